//! Many jobs at once.

use std::time::Instant;

use super::Jobs;
use crate::harness::{figure, until};

#[test]
fn five_hundred_jobs_at_once_are_taken_and_end() {
    let jobs = Jobs::shared();
    jobs.bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    let started = Instant::now();
    jobs.bench.exec(
        "INSERT INTO job_queue (family, payload) SELECT 'job:dot', jsonb_build_object('code', 'DOT-' || 1 + n % 6,
             'args', jsonb_build_object('n', n)) FROM generate_series(1, 500) n",
    );
    let count = |sql: &str| jobs.bench.one::<i64>(sql, &[]);
    until("all are taken", || (count("SELECT count(*) FROM job_queue WHERE status = 'queued'") == 0).then_some(()));
    let taken = started.elapsed();
    until("all are over", || (count("SELECT count(*) FROM job_queue WHERE status = 'succeeded'") == 500).then_some(()));
    figure(
        "jobs",
        &format!(
            "500 jobs at once: taken after {:.1} s, over after {:.1} s",
            taken.as_secs_f64(),
            started.elapsed().as_secs_f64()
        ),
    );
    assert_eq!(count("SELECT count(DISTINCT run_id) FROM job_queue"), 500);
    assert_eq!(count("SELECT count(DISTINCT (args ->> 'n')::int) FROM dot_wrapper.dot_run WHERE source = 'job'"), 500);
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (500, 0));
}

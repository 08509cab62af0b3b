//! Many jobs at once; and many that the table does not let be taken.

use std::time::{Duration, Instant};

use super::Jobs;
use crate::harness::wait::holds;
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

#[test]
fn jobs_that_the_table_objects_to_hold_up_no_other_and_are_one_line_in_the_log() {
    let jobs = Jobs::shared();
    jobs.bench.exec(
        "UPDATE dot_wrapper.job_source SET batch = 20;
         ALTER TABLE job_queue ADD CONSTRAINT twenty_stay_as_they_are CHECK (id > 20 OR status = 'queued');
         INSERT INTO job_queue (family, payload) SELECT 'job:dot', '{\"code\": \"DOT-1\"}' FROM generate_series(1, 20)",
    );
    jobs.drain();
    assert_eq!((jobs.links(), jobs.bench.agent.count()), (20, 0));
    let log = jobs.bench.cluster.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("twenty_stay_as_they_are")).collect();
    // Once a minute, on however slow a machine.
    assert!(lines.len() < 10 && lines[0].contains("(and 19 more)"), "{lines:?}");
    jobs.bench.exec(
        "ALTER TABLE job_queue DROP CONSTRAINT twenty_stay_as_they_are;
         UPDATE dot_wrapper.job_link SET due = '-infinity'; SELECT dot_wrapper.announce()",
    );
    until("all are taken", || (jobs.links() == 0).then_some(()));
}

#[test]
fn while_a_thousand_jobs_rest_none_is_taken_and_none_of_them_before_its_time() {
    let jobs = Jobs::shared();
    jobs.switch("false");
    jobs.bench.exec(
        "INSERT INTO job_queue (family, payload) SELECT 'job:dot', '{\"code\": \"DOT-1\"}' FROM generate_series(1, 1005);
         INSERT INTO dot_wrapper.job_link (relation, job_id, due, trouble)
         SELECT 'public.job_queue', n, clock_timestamp() + interval '1 hour', 'it does not want to'
         FROM generate_series(1, 1005) n",
    );
    jobs.switch("true");
    let said = "no job is taken: 1000 jobs of public.job_queue could not be taken or told";
    until("the log says so", || jobs.bench.cluster.log().contains(said).then_some(()));
    jobs.bench.look();
    let waiting = "SELECT count(*) FROM job_queue WHERE status = 'queued'";
    holds("they rest", Duration::from_millis(200), || jobs.bench.one::<i64>(waiting, &[]) == 1005);
    let doctor = "SELECT string_agg(detail, ' ') FROM fn_dot_doctor() WHERE check_name = 'jobs'";
    assert!(jobs.bench.one::<String>(doctor, &[]).contains("1005 jobs could not be taken or told"));
    // As soon as fewer rest, the others are taken.
    jobs.bench.exec(
        "DELETE FROM job_queue WHERE id NOT IN (3, 4); UPDATE dot_wrapper.job_link SET due = '-infinity' WHERE job_id <> '3';
         SELECT dot_wrapper.announce()",
    );
    jobs.until(4, "succeeded");
    assert_eq!((jobs.job(3)["status"].as_str(), jobs.bench.agent.count(), jobs.links()), (Some("queued"), 1, 1));
}

//! The worker dies with a job in its hands: one run, one effect, and the job is told.

use super::Jobs;
use crate::harness::{Bench, Reply, until};

fn back(jobs: &Jobs) {
    until("the server is back", || jobs.bench.cluster.connect_as(&jobs.bench.name, "postgres").ok());
    jobs.bench.forget_session();
}

#[test]
fn a_worker_that_dies_over_a_job_leaves_one_run_and_one_effect() {
    let jobs = Jobs::on(Bench::own(&[]));
    for (point, code) in [("job_taken", "DOT-1"), ("jobs_committed", "DOT-2"), ("job_told", "DOT-3")] {
        let before = jobs.bench.agent.count();
        let points = jobs.bench.cluster.fail_points(&[&format!("{point}=abort({code}) once")]);
        // By then the worker knows of the point.
        jobs.bench.look();
        let id = jobs.apply(code);
        points.wait_for_deaths();
        back(&jobs);
        let job = jobs.until(id, "succeeded");
        assert_eq!(job["run_id"], jobs.run(id).0["run_id"], "{point}");
        jobs.drain();
        assert_eq!((jobs.runs(id).len(), jobs.bench.agent.count() - before), (1, 1), "{point}");
        assert_eq!(jobs.links(), 0, "{point}");
    }
}

#[test]
fn a_worker_that_is_killed_while_the_call_is_out_leaves_the_job_in_doubt() {
    let jobs = Jobs::on(Bench::own(&[]));
    jobs.bench.agent.reply(Reply::Hold);
    let id = jobs.apply("DOT-1");
    jobs.bench.agent.wait_for(1);
    jobs.until(id, "running");
    jobs.bench.kill(jobs.bench.worker());
    jobs.until(id, "in_doubt");
    let run = jobs.run(id).id();
    jobs.bench.exec(&format!("SELECT fn_dot_resolve('{run}', 'failed', 'it did nothing')"));
    jobs.until(id, "failed");
    assert_eq!((jobs.runs(id).len(), jobs.bench.agent.count(), jobs.links()), (1, 1, 0));
}

/// What was half done when the transaction failed is gone: the job waits, and there is no run.
#[test]
fn an_error_before_the_commit_leaves_neither_run_nor_link() {
    let jobs = Jobs::on(Bench::own(&[]));
    let points = jobs.bench.cluster.fail_points(&["job_taken=error(DOT-1)"]);
    jobs.bench.look();
    let id = jobs.apply("DOT-1");
    points.wait_for(1);
    let trouble = "SELECT trouble FROM dot_wrapper.job_link WHERE job_id = $1 AND run_id IS NULL";
    let said = until("the trouble is noted", || jobs.bench.all::<String>(trouble, &[&id.to_string()]).pop());
    assert!(said.starts_with("fail point"), "{said}");
    assert_eq!((jobs.job(id)["status"].as_str(), jobs.runs(id).len()), (Some("queued"), 0));
    // It holds up no other, and the doctor tells of it.
    jobs.until(jobs.apply("DOT-2"), "succeeded");
    let check = "SELECT detail FROM fn_dot_doctor() WHERE check_name = 'jobs' AND verdict = 'WARN'";
    let found = jobs.bench.all::<String>(check, &[]).join("\n");
    assert!(found.contains(&format!("one of them {id}: fail point")), "{found}");
    drop(points);
    jobs.bench.exec("UPDATE dot_wrapper.job_link SET due = '-infinity'; SELECT dot_wrapper.announce()");
    jobs.until(id, "succeeded");
    assert_eq!((jobs.runs(id).len(), jobs.links()), (1, 0));
}

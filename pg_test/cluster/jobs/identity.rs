//! Which run a job is: key, process run, run id and actor carry over, and one job is one run.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Jobs;
use crate::harness::{Reply, until};

fn keyed(jobs: &Jobs, key: &str, payload: &Value) -> i64 {
    let sql = "INSERT INTO job_queue (family, payload, idempotency_key, actor) VALUES ('job:dot', $1, $2, 'ann') RETURNING id";
    jobs.bench.one(sql, &[payload, &key])
}

#[test]
fn key_process_run_id_run_id_and_actor_carry_over() {
    let jobs = Jobs::shared();
    let process = Uuid::now_v7();
    let id = keyed(&jobs, "nightly-7", &json!({"code": "DOT-1", "process_run_id": process}));
    let job = jobs.until(id, "succeeded");
    let run = jobs.run(id);
    assert_eq!(run.text("idempotency_key"), "nightly-7");
    assert_eq!(run.text("process_run_id"), process.to_string());
    assert_eq!((run.text("actor"), run.text("source_ref")), ("ann", id.to_string().as_str()));
    assert_eq!(job["run_id"], run.0["run_id"]);
    // The agent sees the run's id as the key, as for every run.
    let request = jobs.bench.agent.requests().remove(0);
    assert_eq!(request.header("idempotency-key"), run.id().to_string());
    assert_eq!(request.field("process_run_id"), process.to_string());
}

#[test]
fn two_jobs_with_one_key_are_one_run_and_both_end() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let payload = json!({"code": "DOT-1", "args": {"n": 1}});
    let first = keyed(&jobs, "k", &payload);
    let request = jobs.bench.agent.wait_for(1).remove(0);
    let second = keyed(&jobs, "k", &payload);
    jobs.until(second, "running");
    jobs.bench.agent.release(&request, Reply::succeeded());
    let ends = [jobs.until(first, "succeeded"), jobs.until(second, "succeeded")];
    assert_eq!(ends[0]["run_id"], ends[1]["run_id"]);
    let third = keyed(&jobs, "k", &payload);
    assert_eq!(jobs.until(third, "succeeded")["run_id"], ends[0]["run_id"]);
    // Other arguments under the same key are a mistake, and nothing runs.
    let other = jobs.until(keyed(&jobs, "k", &json!({"code": "DOT-1", "args": {"n": 2}})), "refused");
    let message = other["result"]["message"].as_str().unwrap();
    assert!(message.starts_with("the idempotency key is in use for a run with other arguments"), "{message}");
    assert_eq!((&other["run_id"], jobs.bench.agent.count(), jobs.links()), (&json!(null), 1, 0));
}

#[test]
fn a_job_that_is_queued_again_is_the_same_run() {
    let jobs = Jobs::shared();
    let id = jobs.apply("DOT-1");
    let done = jobs.until(id, "succeeded");
    jobs.bench.exec(&format!("UPDATE job_queue SET status = 'queued', finished_at = NULL WHERE id = {id}"));
    until("it has ended again", || jobs.job(id)["finished_at"].is_string().then_some(()));
    let again = jobs.until(id, "succeeded");
    assert_eq!((&again["run_id"], jobs.runs(id).len(), jobs.bench.agent.count()), (&done["run_id"], 1, 1));

    // A refusal does not use the key up.
    jobs.bench.exec("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'");
    let refused = jobs.apply("DOT-3");
    jobs.until(refused, "refused");
    jobs.bench.open();
    jobs.bench.exec(&format!("UPDATE job_queue SET status = 'queued' WHERE id = {refused}"));
    jobs.until(refused, "succeeded");
    assert_eq!(
        jobs.runs(refused).iter().map(crate::harness::Run::status).collect::<Vec<_>>(),
        ["refused", "succeeded"]
    );

    // Also while it runs.
    jobs.bench.agent.reply(Reply::Hold);
    let id = jobs.apply("DOT-2");
    let request = jobs.bench.agent.wait_for(3).remove(2);
    jobs.until(id, "running");
    jobs.bench.exec(&format!("UPDATE job_queue SET status = 'queued' WHERE id = {id}"));
    jobs.until(id, "running");
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.until(id, "succeeded");
    assert_eq!((jobs.runs(id).len(), jobs.bench.agent.count(), jobs.links()), (1, 3, 0));
}

/// As docs/job_queue.md warns: a restored database must know its jobs again, and so does a table that counts anew.
#[test]
fn a_key_that_is_used_again_is_the_old_job() {
    let jobs = Jobs::shared();
    let first = jobs.apply("DOT-1");
    let done = jobs.until(first, "succeeded");
    jobs.bench.exec("TRUNCATE job_queue RESTART IDENTITY");
    assert_eq!(jobs.apply("DOT-1"), first);
    assert_eq!(jobs.until(first, "succeeded")["run_id"], done["run_id"]);
    jobs.bench.exec("TRUNCATE job_queue RESTART IDENTITY");
    jobs.until(jobs.put(&json!({"code": "DOT-1", "args": {"n": 1}})), "refused");
    // A key of its own makes it another.
    jobs.bench.exec("TRUNCATE job_queue RESTART IDENTITY");
    let other = keyed(&jobs, "another", &json!({"code": "DOT-1"}));
    let again = jobs.until(other, "succeeded");
    assert_ne!((other, &again["run_id"]), (first + 1, &done["run_id"]));
    assert_eq!(jobs.bench.agent.count(), 2);
}

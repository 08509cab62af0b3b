//! A job becomes a run, and ends as its run does.

use serde_json::json;

use super::Jobs;
use crate::harness::{Reply, until};

#[test]
fn a_job_becomes_a_run_and_ends_with_its_outcome() {
    let jobs = Jobs::shared();
    let id = jobs.put(&json!({"code": "DOT-1", "args": {"scope": "all"}}));
    let done = jobs.until(id, "succeeded");
    let run = jobs.run(id);
    assert_eq!((run.status(), run.text("mode"), run.text("source")), ("succeeded", "apply", "job"));
    assert_eq!(run.0["args"], json!({"scope": "all"}));
    assert_eq!(run.text("requested_by"), jobs.role);
    assert_eq!(done["run_id"], run.0["run_id"]);
    assert_eq!(done["result"]["result"], json!({"said": "succeeded"}));
    assert!(done["finished_at"].is_string(), "{done}");
    assert_eq!((jobs.links(), jobs.bench.agent.count()), (0, 1));

    jobs.bench.agent.reply(Reply::ended("failed"));
    let failed = jobs.until(jobs.apply("DOT-2"), "failed");
    assert_eq!(failed["result"]["message"], "it failed");
    let verify = jobs.put(&json!({"code": "DOT-3", "mode": "verify"}));
    jobs.until(verify, "failed");
    assert_eq!(jobs.run(verify).text("mode"), "verify");
    let sent = jobs.bench.agent.count();
    let plan = jobs.put(&json!({"code": "DOT-3", "mode": "plan"}));
    assert_eq!(jobs.until(plan, "succeeded")["result"]["run_status"], "planned");
    assert_eq!((jobs.links(), jobs.bench.agent.count()), (0, sent));
}

#[test]
fn a_job_is_running_while_its_run_is() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let id = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    let job = jobs.until(id, "running");
    assert_eq!((&job["finished_at"], &job["result"]), (&json!(null), &json!(null)));
    // The lease is held: the next job waits for it, and is not refused.
    let next = jobs.apply("DOT-1");
    jobs.until(next, "running");
    assert_eq!(jobs.run(next).status(), "queued");
    jobs.bench.agent.reply(Reply::succeeded());
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.until(id, "succeeded");
    jobs.until(next, "succeeded");
}

#[test]
fn a_job_that_a_gate_refuses_ends_refused_and_says_why() {
    let jobs = Jobs::shared();
    let refused = |id: i64, reason: &str| {
        let job = jobs.until(id, "refused");
        assert_eq!((job["result"]["reason"].as_str(), jobs.run(id).reason()), (Some(reason), reason), "{job}");
        assert!(job["finished_at"].is_string() && job["run_id"].is_string(), "{job}");
    };
    refused(jobs.apply("DOT-NONE"), "uncatalogued");
    jobs.bench.exec("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'");
    let id = jobs.apply("DOT-1");
    let said = jobs.until(id, "refused")["result"]["message"].to_string();
    assert!(said.contains("fs_snapshot_present=0"), "{said}");
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (0, 0));
}

#[test]
fn a_job_whose_run_is_refused_by_the_second_gate_ends_refused() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let first = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    let second = jobs.apply("DOT-1");
    jobs.until(second, "running");
    jobs.bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'");
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.until(first, "succeeded");
    assert_eq!(jobs.until(second, "refused")["result"]["reason"], "inactive");
    assert_eq!(jobs.bench.agent.count(), 1);
}

#[test]
fn a_job_in_doubt_says_so_until_it_is_resolved() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Close);
    let id = jobs.apply("DOT-1");
    let job = jobs.until(id, "in_doubt");
    assert_eq!((job["result"]["run_status"].as_str(), &job["finished_at"]), (Some("in_doubt"), &json!(null)));
    assert_eq!(jobs.links(), 1);
    let run = jobs.run(id).id();
    jobs.bench.exec(&format!("SELECT fn_dot_resolve('{run}', 'succeeded', 'looked')"));
    assert_eq!(jobs.until(id, "succeeded")["result"]["reason"], "resolved");
    assert_eq!(jobs.bench.events(&jobs.run(id)), ["queued", "running", "in_doubt", "succeeded"]);

    // Sent again: it runs, and ends as that ends.
    let id = jobs.apply("DOT-2");
    jobs.until(id, "in_doubt");
    jobs.bench.agent.reply(Reply::Hold);
    let before = jobs.bench.agent.count();
    jobs.bench.exec(&format!("SELECT fn_dot_resolve('{}', 'retry', 'again')", jobs.run(id).id()));
    let request = jobs.bench.agent.wait_for(before + 1).pop().unwrap();
    jobs.until(id, "running");
    jobs.bench.agent.release(&request, Reply::ended("failed"));
    jobs.until(id, "failed");
    assert_eq!((jobs.runs(id).len(), jobs.links()), (1, 0));
}

#[test]
fn a_job_whose_run_is_cancelled_or_expires_ends_so() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let first = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    let cancelled = jobs.apply("DOT-1");
    jobs.until(cancelled, "running");
    jobs.bench.exec("INSERT INTO dot_wrapper.policy (scope, name, start_by_s) VALUES ('tool', 'DOT-1', 1)");
    let expired = jobs.apply("DOT-1");
    jobs.until(expired, "running");
    jobs.bench.exec(&format!("SELECT fn_dot_cancel('{}', 'not needed')", jobs.run(cancelled).id()));
    jobs.until(cancelled, "cancelled");
    let id = jobs.run(expired).id();
    until("its time is over", || {
        jobs.bench
            .one::<bool>("SELECT start_by < clock_timestamp() FROM dot_wrapper.dot_run WHERE run_id = $1", &[&id])
            .then_some(())
    });
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.until(first, "succeeded");
    jobs.until(expired, "expired");
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (1, 0));
}

/// A job that somebody deletes is missed by nobody, and its run goes on.
#[test]
fn a_job_that_is_deleted_leaves_its_run_alone() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let id = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    jobs.until(id, "running");
    jobs.bench.exec(&format!("DELETE FROM job_queue WHERE id = {id}"));
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.bench.until(&jobs.run(id), "succeeded");
    until("nothing waits for it", || (jobs.links() == 0).then_some(()));
}

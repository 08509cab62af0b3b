//! Jobs that wait where a call would be refused: nothing of their kind is let in at the moment.

use std::time::Duration;

use serde_json::json;

use super::Jobs;
use crate::harness::wait::holds;
use crate::harness::{Reply, until};

const OFF: &str = "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'";

#[test]
fn a_job_waits_while_the_master_toggle_is_off_and_runs_when_it_is_on() {
    let jobs = Jobs::shared();
    let log_before = jobs.bench.cluster.log().matches("jobs wait: the master toggle is off").count();
    jobs.bench.exec(OFF);
    let ids: Vec<i64> = ["DOT-1", "DOT-1", "DOT-2"].into_iter().map(|code| jobs.apply(code)).collect();
    let noted =
        "SELECT count(*) FROM dot_wrapper.job_link WHERE trouble = 'the master toggle is off' AND run_id IS NULL";
    until("it is noted", || (jobs.bench.one::<i64>(noted, &[]) > 0).then_some(()));
    // What the toggle does not stop passes them.
    jobs.until(jobs.put(&json!({"code": "DOT-3", "mode": "plan"})), "succeeded");
    holds("they wait", Duration::from_millis(300), || ids.iter().all(|id| jobs.job(*id)["status"] == "queued"));
    let runs = "SELECT count(*) FROM dot_wrapper.dot_run WHERE mode = 'apply'";
    assert_eq!((jobs.bench.one::<i64>(runs, &[]), jobs.bench.agent.count()), (0, 0));
    let doctor = "SELECT string_agg(detail, ' ') FROM fn_dot_doctor() WHERE check_name = 'jobs'";
    let said: String = jobs.bench.one(doctor, &[]);
    assert!(said.contains("jobs could not be taken or told") && said.contains("the master toggle is off"), "{said}");
    assert!(jobs.bench.cluster.log().matches("jobs wait: the master toggle is off").count() > log_before);
    jobs.bench.open();
    for id in &ids {
        jobs.until(*id, "succeeded");
        assert_eq!(jobs.runs(*id).len(), 1);
    }
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (3, 0));
}

#[test]
fn a_job_waits_while_the_queue_is_full_and_holds_up_no_other_tool() {
    let jobs = Jobs::shared();
    jobs.bench.exec("INSERT INTO dot_wrapper.policy (scope, name, max_queued) VALUES ('tool', 'DOT-1', 1)");
    jobs.bench.agent.reply(Reply::Hold);
    let first = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    jobs.bench.agent.reply(Reply::succeeded());
    let ids: Vec<i64> = (0..5).map(|_| jobs.apply("DOT-1")).collect();
    let noted =
        "SELECT count(*) FROM dot_wrapper.job_link WHERE trouble LIKE 'DOT-1: % runs of this tool wait already'";
    until("it is noted", || (jobs.bench.one::<i64>(noted, &[]) > 0).then_some(()));
    jobs.until(jobs.apply("DOT-2"), "succeeded");
    let refused = "SELECT count(*) FROM job_queue WHERE status = 'refused'";
    assert_eq!((jobs.bench.one::<i64>(refused, &[]), jobs.job(ids[4])["status"].as_str()), (0, Some("queued")));
    jobs.bench.agent.release(&request, Reply::succeeded());
    for id in ids.iter().chain([&first]) {
        jobs.until(*id, "succeeded");
        assert_eq!(jobs.runs(*id).len(), 1);
    }
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (7, 0));
}

#[test]
fn a_job_whose_run_waits_when_the_toggle_goes_off_waits_again_and_runs_when_it_is_on() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(Reply::Hold);
    let first = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    jobs.bench.agent.reply(Reply::succeeded());
    let next = jobs.apply("DOT-1");
    jobs.until(next, "running");
    jobs.bench.exec(OFF);
    jobs.bench.agent.release(&request, Reply::succeeded());
    jobs.until(first, "succeeded");
    jobs.until(next, "queued");
    let reasons = |id| jobs.runs(id).iter().map(|run| run.0["reason"].to_string()).collect::<Vec<_>>();
    assert_eq!((reasons(next), &jobs.job(next)["finished_at"]), (vec!["\"toggle_off\"".to_owned()], &json!(null)));
    jobs.bench.open();
    jobs.until(next, "succeeded");
    assert_eq!((jobs.runs(next).len(), jobs.bench.agent.count(), jobs.links()), (2, 2, 0));
}

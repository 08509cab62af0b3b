//! A7: a run that brings the worker down is set aside, and the others go on.

use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, figure, rounds, until};

/// Healthy runs behind the one that is fatal.
const HEALTHY: usize = 20;

/// A bench whose tools need no lease, so that each can have many runs.
fn bench() -> Bench {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
    bench
}

/// Runs of tools, and healthy ones of others behind them, all in one transaction. The last of the former.
fn queue_up(bench: &Bench, fatal: &[&str]) -> (Run, Vec<Uuid>) {
    let mut session = bench.connect();
    let mut transaction = session.transaction().expect("a transaction");
    let mut last = None;
    for code in fatal {
        last = Some(Ask::new(code, "apply").on(&mut transaction).expect("a run"));
    }
    let healthy = (0..HEALTHY).map(|i| {
        let code = ["DOT-2", "DOT-3", "DOT-4", "DOT-5"][i % 4];
        Ask::new(code, "apply").on(&mut transaction).expect("a run").id()
    });
    let healthy = healthy.collect();
    // The server may crash before it answers.
    let _ = transaction.commit();
    bench.forget_session();
    (last.expect("a code"), healthy)
}

/// Returns when a query says true. The server may be going down and up meanwhile.
#[track_caller]
fn until_true(bench: &Bench, what: &str, sql: &str, ids: &[Uuid]) {
    until(what, || {
        let mut session = bench.cluster.connect_as(&bench.name, "postgres").ok()?;
        session.query_one(sql, &[&ids]).ok()?.get::<_, bool>(0).then_some(())
    });
}

const ALL_SUCCEEDED: &str =
    "SELECT bool_and(run_status = 'succeeded') FROM dot_wrapper.dot_run WHERE run_id = ANY ($1)";
const QUARANTINED: &str = "SELECT bool_and(run_status = 'queued' AND coalesce(reason, '') = 'quarantined') FROM dot_wrapper.dot_run WHERE run_id = ANY ($1)";

#[test]
fn a7_quarantine_of_a_run_that_is_fatal() {
    let bench = bench();
    let (times, mut worst) = (rounds(1, 10), 0);
    for _ in 0..times {
        let points = bench.cluster.fail_points(&["claim_gate=abort(DOT-1)"]);
        let (fatal, healthy) = queue_up(&bench, &["DOT-1"]);
        until_true(&bench, "the healthy ones have succeeded", ALL_SUCCEEDED, &healthy);
        until_true(&bench, "the fatal one is set aside", QUARANTINED, &[fatal.id()]);
        let crashes = points.reached(0);
        assert!(crashes <= 3, "{crashes} crashes");
        worst = worst.max(crashes);
        bench.drain();
        assert_eq!(points.reached(0), crashes, "it is not taken up again");
        assert!(bench.events(&fatal).contains(&"quarantined".to_owned()));
        drop(points);
        // What was wrong is mended, or the run is not wanted any more.
        let other = bench.ask(&Ask { key: Some("other"), ..Ask::new("DOT-6", "apply") });
        bench.until(&other, "succeeded");
        bench.exec(&format!("SELECT fn_dot_resume(ARRAY['{}'::uuid])", fatal.id()));
        bench.until(&fatal, "succeeded");
    }
    figure(
        "A7",
        &format!("{times} fatal runs: at most {worst} crashes each, {HEALTHY}/{HEALTHY} others finished, 1 set aside"),
    );
}

#[test]
fn a7_quarantine_can_be_ended_by_cancelling() {
    let bench = bench();
    let points = bench.cluster.fail_points(&["claim_gate=abort(DOT-1)"]);
    let (fatal, _) = queue_up(&bench, &["DOT-1"]);
    until_true(&bench, "it is set aside", QUARANTINED, &[fatal.id()]);
    bench.exec(&format!("SELECT fn_dot_cancel('{}', 'it kills the worker')", fatal.id()));
    assert_eq!(bench.until(&fatal, "cancelled").0["attempts"], 0);
    drop(points);
    assert!(bench.agent.requests().iter().all(|request| request.run_id() != Some(fatal.id())));
}

/// An error is not a death: it is tried again, and nobody is set aside for it.
#[test]
fn a7_quarantine_is_not_for_errors() {
    let bench = bench();
    let points = bench.cluster.fail_points(&["claim_gate=abort(DOT-6) once", "claim_gate=error(DOT-1) times 4"]);
    // The first one's death makes the worker careful.
    let (failing, healthy) = queue_up(&bench, &["DOT-6", "DOT-1"]);
    until_true(&bench, "the healthy ones have succeeded", ALL_SUCCEEDED, &healthy);
    bench.until(&failing, "succeeded");
    assert!(points.reached(1) >= 4, "it failed {} times", points.reached(1));
    assert!(!bench.events(&failing).contains(&"quarantined".to_owned()));
}

/// Not only while it is taken up: also where its end is recorded.
#[test]
fn a7_quarantine_of_a_run_whose_end_is_fatal() {
    let bench = bench();
    // What is out when the worker dies is sent again.
    bench.exec("UPDATE dot_wrapper.policy SET idempotent = true, retry_base_ms = 1 WHERE name = 'agent_api'");
    let points = bench.cluster.fail_points(&["settle_before_commit=abort(DOT-1)"]);
    let (fatal, healthy) = queue_up(&bench, &["DOT-1"]);
    until_true(&bench, "the healthy ones have succeeded", ALL_SUCCEEDED, &healthy);
    let doubtful = "SELECT bool_and(run_status = 'in_doubt' AND reason = 'quarantined') FROM dot_wrapper.dot_run WHERE run_id = ANY ($1)";
    until_true(&bench, "the fatal one is in doubt", doubtful, &[fatal.id()]);
    assert!(points.reached(0) <= 3, "{} crashes", points.reached(0));
    drop(points);
    let resolved =
        bench.one::<String>("SELECT run_status FROM fn_dot_resolve($1, 'failed', 'looked it up')", &[&fatal.id()]);
    assert_eq!(resolved, "failed");
}

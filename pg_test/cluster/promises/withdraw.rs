//! A4, A6: cancelling and resolving, against a worker that is at work.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Run, figure, os, rounds, until};

fn bench() -> Bench {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none', retry_base_ms = 20 WHERE name = 'agent_api'");
    bench
}

fn cancel(bench: &Bench, run: &Run) -> Run {
    Run(bench.one("SELECT to_jsonb(r) FROM fn_dot_cancel($1, 'not needed') r", &[&run.id()]))
}

fn resolve(bench: &Bench, run: &Run, outcome: &str) -> Run {
    Run(bench.one("SELECT to_jsonb(r) FROM fn_dot_resolve($1, $2, 'looked it up') r", &[&run.id(), &outcome]))
}

fn asks_by_key(bench: &Bench) {
    bench.exec("UPDATE dot_wrapper.endpoint SET status_path = '/v1/runs/{run_id}'");
}

/// Milliseconds from the connection to the end of a call. For the connection itself there is time on a busy machine, too.
fn calls_last(bench: &Bench, millis: i32) {
    bench.exec(&format!(
        "UPDATE dot_wrapper.policy SET connect_timeout_ms = 1000, total_timeout_ms = {millis} WHERE name = 'agent_api'"
    ));
}

fn lost(bench: &Bench, code: &str) -> Run {
    bench.agent.plan(|request| if request.method == "POST" { Reply::Close } else { Reply::Json(503, json!({})) });
    bench.until(&bench.apply(code), "in_doubt")
}

#[test]
fn promise_a6_nothing_is_both_cancelled_and_sent() {
    let bench = bench();
    let (mut cancelled, mut other) = (0, 0);
    for i in 0..rounds(40, 200) {
        let run = bench.apply("DOT-1");
        // From before the claim to after the end.
        std::thread::sleep(Duration::from_micros((i as u64 * 7919) % 12_000));
        cancel(&bench, &run);
        let over =
            until("it is over", || Some(bench.run(run.id())).filter(|r| !["queued", "running"].contains(&r.status())));
        let sent = bench.agent.requests().iter().any(|request| request.run_id() == Some(run.id()));
        assert!(!(over.status() == "cancelled" && sent), "{over:?}");
        if over.status() == "cancelled" { cancelled += 1 } else { other += 1 }
    }
    figure(
        "A6",
        &format!(
            "{} cancelled at random moments: {cancelled} cancelled and never sent, {other} sent and never called cancelled",
            cancelled + other
        ),
    );
}

#[test]
fn a_queued_run_is_cancelled_at_once_and_lets_its_lease_go() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    let run = bench.apply("DOT-1");
    let ended = cancel(&bench, &run);
    assert_eq!((ended.status(), ended.reason(), ended.text("message")), ("cancelled", "cancelled", "not needed"));
    assert_eq!(bench.apply("DOT-1").status(), "queued", "the lease is free");
    assert_eq!(cancel(&bench, &run).0, ended.0, "what is over stays as it is");
    assert_eq!(bench.events(&run), ["queued", "cancelled"]);
}

#[test]
fn the_call_of_a_running_run_is_closed_and_leaves_doubt() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    assert_eq!(cancel(&bench, &run).status(), "running");
    assert_eq!(bench.until(&run, "in_doubt").reason(), "cancelled");
    assert_eq!(bench.events(&run), ["queued", "running", "cancel_requested", "in_doubt"]);
}

#[test]
fn a_cancelled_run_ends_as_soon_as_its_agent_says_that_it_never_saw_it() {
    let bench = bench();
    asks_by_key(&bench);
    calls_last(&bench, 500);
    bench.agent.plan(|request| {
        if request.method == "POST" { Reply::Hold } else { Reply::Json(404, json!({"status": "unknown"})) }
    });
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    cancel(&bench, &run);
    let ended = bench.until(&run, "failed");
    assert_eq!(ended.reason(), "cancelled");
    assert_eq!(bench.agent.requests().iter().filter(|r| r.method == "POST").count(), 1);
}

#[test]
fn a_run_in_doubt_ends_as_its_agent_says() {
    let bench = bench();
    let run = lost(&bench, "DOT-1");
    bench.agent.reply(Reply::ended("succeeded"));
    asks_by_key(&bench);
    // It was put aside for an hour, for want of anybody to ask.
    bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = '-infinity'; SELECT dot_wrapper.announce()");
    let ended = bench.until(&run, "succeeded");
    assert_eq!(ended.0["result"], json!({"said": "succeeded"}));
    assert_eq!(bench.events(&run), ["queued", "running", "in_doubt", "succeeded"]);
}

#[test]
fn a_run_that_its_agent_never_saw_is_sent_again_and_not_before_its_deadline() {
    let bench = bench();
    asks_by_key(&bench);
    calls_last(&bench, 1500);
    bench.agent.plan(|request| match (request.method.as_str(), request.body["attempt"].as_i64()) {
        ("GET", _) => Reply::Json(404, json!({"status": "unknown"})),
        (_, Some(1)) => Reply::Close,
        _ => Reply::succeeded(),
    });
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!(bench.events(&run), ["queued", "running", "in_doubt", "queued", "running", "succeeded"]);
    let late = "SELECT e.at > a.deadline FROM dot_wrapper.dot_run_event e, dot_wrapper.dot_run_attempt a
                WHERE e.run_id = $1 AND a.run_id = $1 AND a.attempt = 1 AND e.from_status = 'in_doubt'";
    assert!(bench.one::<bool>(late, &[&run.id()]));
}

#[test]
fn a_bare_404_is_no_word_of_the_agent() {
    let bench = bench();
    asks_by_key(&bench);
    calls_last(&bench, 200);
    bench.agent.plan(|request| if request.method == "POST" { Reply::Close } else { Reply::Json(404, json!({})) });
    let run = bench.until(&bench.apply("DOT-1"), "in_doubt");
    until("it is asked about", || (bench.agent.count() >= 3).then_some(()));
    assert_eq!(bench.run(run.id()).status(), "in_doubt");
}

#[test]
fn an_operator_resolves_what_is_in_doubt() {
    let bench = bench();
    for outcome in ["succeeded", "failed"] {
        let run = lost(&bench, "DOT-1");
        let ended = resolve(&bench, &run, outcome);
        assert_eq!((ended.status(), ended.reason(), ended.text("message")), (outcome, "resolved", "looked it up"));
        assert_eq!(
            bench.error(&format!("SELECT fn_dot_resolve('{}', 'failed', 'no')", run.id())).code().code(),
            "55000"
        );
    }
    let run = lost(&bench, "DOT-1");
    bench.agent.reply(Reply::succeeded());
    assert_eq!(resolve(&bench, &run, "retry").status(), "queued");
    assert_eq!(bench.until(&run, "succeeded").0["attempts"], 2);
}

#[test]
fn a_run_in_doubt_keeps_its_lease_for_as_long_as_its_policy_says() {
    let bench = Bench::own(&[]);
    let run = lost(&bench, "DOT-1");
    assert_eq!(bench.apply("DOT-1").reason(), "lease_held");
    resolve(&bench, &run, "failed");
    bench.exec("UPDATE dot_wrapper.policy SET doubt_lease_s = 0 WHERE name = 'agent_api'");
    let run = lost(&bench, "DOT-1");
    until("the lease is given up", || (bench.apply("DOT-1").status() == "queued").then_some(()));
    assert_eq!(bench.run(run.id()).status(), "in_doubt");
}

/// The worker has written the end and not committed it; who cancels waits, and finds the run over.
#[test]
fn promise_a4_an_end_that_is_being_written_is_not_overwritten() {
    let bench = bench();
    let points = bench.cluster.fail_points(&["settle_before_commit=wait(DOT-1)"]);
    let run = bench.apply("DOT-1");
    points.wait_for(1);
    let mut other = bench.connect();
    let id = run.id();
    let waiting = std::thread::spawn(move || {
        other.query_one("SELECT to_jsonb(r) FROM fn_dot_cancel($1, 'too late') r", &[&id]).map(|row| Run(row.get(0)))
    });
    let blocked =
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%fn_dot_cancel%'";
    until("the cancel waits", || bench.one::<bool>(blocked, &[]).then_some(()));
    drop(points);
    assert_eq!(waiting.join().unwrap().unwrap().status(), "succeeded");
    holds("it stays so", Duration::from_secs(1), || bench.run(id).status() == "succeeded");
    assert_eq!(bench.events(&run), ["queued", "running", "succeeded"]);
}

/// The cancel of a running run is open when the answer comes: the answer is recorded after it, and is the end.
#[test]
fn promise_a4_an_answer_that_comes_during_a_cancel_is_kept() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let requests = bench.agent.wait_for(1);
    let mut other = bench.connect();
    let mut transaction = other.transaction().unwrap();
    transaction.execute("SELECT fn_dot_cancel($1, 'hm')", &[&run.id()]).unwrap();
    bench.agent.release(&requests[0], Reply::succeeded());
    holds("the end waits for the cancel", Duration::from_secs(1), || bench.run(run.id()).status() == "running");
    transaction.commit().unwrap();
    bench.until(&run, "succeeded");
}

/// A worker that was stopped while its call was out, and whose run was meanwhile resolved by hand, changes nothing.
#[test]
fn promise_a4_a_late_answer_is_a_remark() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let requests = bench.agent.wait_for(1);
    let worker = bench.worker();
    assert!(os::signal(worker, "STOP"));
    // As if another worker had taken it for lost.
    bench.exec(&format!(
        "UPDATE dot_wrapper.dot_run SET run_status = 'in_doubt', reason = 'x', message = 'x' WHERE run_id = '{0}';
         UPDATE dot_wrapper.dot_queue SET state = 'in_doubt', worker = NULL, available_at = 'infinity' WHERE run_id = '{0}'",
        run.id()
    ));
    let ended = resolve(&bench, &run, "failed");
    bench.agent.release(&requests[0], Reply::succeeded());
    assert!(os::signal(worker, "CONT"));
    until("the answer is a remark", || bench.events(&run).contains(&"late_answer".to_owned()).then_some(()));
    assert_eq!(bench.run(run.id()).0, ended.0);
    figure(
        "A4",
        "end x cancel x rescue: 3 schedules made certain with fail points, locks and SIGSTOP, 0 final states changed",
    );
}

/// `doubt_lease_s` is about doubt: a run that is sent again keeps its lease.
#[test]
fn a_run_that_is_sent_again_keeps_its_lease() {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET retry_base_ms = 1, doubt_lease_s = 0 WHERE name = 'agent_api'");
    bench.agent.plan(|request| match request.body["attempt"].as_i64() {
        Some(1) if request.field("dot_code") == "DOT-1" => Reply::Json(429, json!({})),
        Some(2) => Reply::Hold,
        _ => Reply::succeeded(),
    });
    let run = bench.apply("DOT-1");
    let again = bench.agent.wait_for(2).pop().unwrap();
    holds("the lease is kept", Duration::from_secs(2), || bench.apply("DOT-1").reason() == "lease_held");
    bench.agent.release(&again, Reply::succeeded());
    bench.until(&run, "succeeded");
}

/// A caller who cancels in a transaction and goes away holds up his own run, and no other.
#[test]
fn an_open_cancel_holds_up_no_other_run() {
    let bench = bench();
    bench.agent.plan(|request| if request.field("dot_code") == "DOT-1" { Reply::Hold } else { Reply::succeeded() });
    let run = bench.apply("DOT-1");
    let requests = bench.agent.wait_for(1);
    let mut other = bench.connect();
    let mut transaction = other.transaction().unwrap();
    transaction.execute("SELECT fn_dot_cancel($1, 'hm')", &[&run.id()]).unwrap();
    bench.agent.release(&requests[0], Reply::succeeded());
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        bench.until(&bench.apply("DOT-2"), "succeeded");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(bench.run(run.id()).status(), "running");
    transaction.commit().unwrap();
    bench.until(&run, "succeeded");
}

/// The agent is being asked when somebody cancels: what it then says does not undo the cancel.
#[test]
fn a_cancel_outlives_a_question_that_is_out() {
    let bench = bench();
    asks_by_key(&bench);
    calls_last(&bench, 200);
    bench.agent.plan(|request| if request.method == "POST" { Reply::Close } else { Reply::Hold });
    let run = bench.apply("DOT-1");
    let question = bench.agent.wait_for(2).pop().unwrap();
    assert_eq!(question.method, "GET");
    cancel(&bench, &run);
    bench.agent.reply(Reply::Json(404, json!({"status": "unknown"})));
    bench.agent.release(&question, Reply::Json(404, json!({"status": "unknown"})));
    assert_eq!(bench.until(&run, "failed").reason(), "cancelled");
    assert_eq!(bench.agent.requests().iter().filter(|request| request.method == "POST").count(), 1);
}

/// An agent may forget a key when its window is over; that it does not know it then says nothing.
#[test]
fn a_key_that_may_be_forgotten_is_none_that_was_never_seen() {
    let bench = bench();
    asks_by_key(&bench);
    calls_last(&bench, 100);
    bench.exec("UPDATE dot_wrapper.policy SET key_window_s = 1 WHERE name = 'agent_api'");
    bench.agent.plan(|request| {
        if request.method == "POST" { Reply::Close } else { Reply::Json(404, json!({"status": "unknown"})) }
    });
    let run = bench.until(&bench.apply("DOT-1"), "in_doubt");
    until("it is asked about", || (bench.agent.count() >= 3).then_some(()));
    assert_eq!(bench.run(run.id()).status(), "in_doubt");
}

/// Whoever requested it may be gone: who may resolve, and sees all, is enough.
#[test]
fn an_operator_ends_runs_of_roles_that_are_gone() {
    let bench = bench();
    let (role, operator) = (bench.role("gone"), bench.role("operator"));
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run TO {role};
         GRANT EXECUTE ON FUNCTION fn_dot_resolve, fn_dot_cancel TO {operator}; GRANT pg_read_all_data TO {operator}"
    ));
    let mut runs = Vec::new();
    bench.agent.reply(Reply::Close);
    for _ in 0..3 {
        let run = Ask::new("DOT-1", "apply").on(&mut bench.connect_as(&role)).unwrap();
        runs.push(bench.until(&run, "in_doubt"));
    }
    bench.exec(&format!("DROP OWNED BY {role}; ALTER ROLE {role} RENAME TO {role}_2"));
    assert_eq!(resolve(&bench, &runs[0], "failed").status(), "failed");
    let mut session = bench.connect_as(&operator);
    let said = |session: &mut postgres::Client, call: &str, id: Uuid| {
        session.query_one(&format!("SELECT run_status FROM {call}"), &[&id]).unwrap().get::<_, String>(0)
    };
    assert_eq!(said(&mut session, "fn_dot_resolve($1, 'succeeded', 'seen')", runs[1].id()), "succeeded");
    assert_eq!(said(&mut session, "fn_dot_cancel($1, 'not needed')", runs[2].id()), "in_doubt");
    bench.exec(&format!("DROP ROLE {role}_2; DROP OWNED BY {operator}; DROP ROLE {operator}"));
}

//! D3: each request that an endpoint received matches exactly one attempt row, across crashes at every fail point and
//! whatever the endpoint does to the connection.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::harness::{Bench, Reply, Run, figure, rounds, until};

/// Crashes the server once at a point, while a run comes by there. The run, if the caller was told of it.
fn crash_at(bench: &Bench, entries: &[&str]) -> Option<Run> {
    let points = bench.cluster.fail_points(entries);
    let mut session = bench.connect();
    let asked = crate::harness::run::Ask::new("DOT-1", "apply").on(&mut session).ok();
    until("the server has crashed", || session.batch_execute("").is_err().then_some(()));
    until("all points were reached", || (0..entries.len()).all(|index| points.reached(index) > 0).then_some(()));
    bench.forget_session();
    asked
}

/// The run as soon as it has ended; the server may still be about to crash.
#[track_caller]
fn ended(bench: &Bench, run: &Run) -> Run {
    let sql = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r
               WHERE run_id = $1 AND run_status NOT IN ('queued', 'running')";
    until("the run has ended", || {
        let mut session = bench.cluster.connect_as(&bench.name, "postgres").ok()?;
        session.query_opt(sql, &[&run.id()]).ok()?.map(|row| Run(row.get(0)))
    })
}

/// How often an attempt was received, of those that have a row; fails when a request has none.
#[track_caller]
fn received(bench: &Bench, run: &Run) -> Vec<usize> {
    let mut attempts: BTreeMap<i64, usize> = bench
        .all("SELECT attempt::bigint FROM dot_wrapper.dot_run_attempt WHERE run_id = $1", &[&run.id()])
        .into_iter()
        .map(|attempt: i64| (attempt, 0))
        .collect();
    for request in bench.agent.requests().iter().filter(|r| r.method == "POST" && r.run_id() == Some(run.id())) {
        let attempt = request.body["attempt"].as_i64().expect("an attempt");
        let count = attempts.get_mut(&attempt);
        *count.unwrap_or_else(|| panic!("attempt {attempt} was sent and has no row: {request:?}")) += 1;
    }
    attempts.into_values().collect()
}

#[test]
fn d3_one_to_one_across_crashes_at_every_fail_point() {
    // Where it crashes, what the agent does, and how often each attempt is received: at least, at most.
    let cases: [(&[&str], Reply, usize, usize); 9] = [
        (&["claim_gate=abort once"], Reply::succeeded(), 1, 1),
        (&["claim_before_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["claim_after_commit=abort once"], Reply::succeeded(), 0, 0),
        (&["submitted=abort once"], Reply::succeeded(), 0, 1),
        (&["report_received=abort once"], Reply::succeeded(), 1, 1),
        (&["accepted_recorded=abort once"], Reply::Accepted, 1, 1),
        (&["settle_before_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["settle_after_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["recover_before_commit=abort once", "claim_after_commit=abort once"], Reply::succeeded(), 0, 0),
    ];
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
    let (times, mut crashes, mut matched) = (rounds(2, 50), 0, 0);
    for (entries, reply, least, most) in cases {
        for _ in 0..times {
            let reply = reply.clone();
            bench.agent.plan(move |request| if request.method == "GET" { Reply::succeeded() } else { reply.clone() });
            let run = crash_at(&bench, entries).expect("a run was admitted");
            let ended = ended(&bench, &run);
            let received = received(&bench, &ended);
            assert_eq!(received.len(), 1, "attempts, {entries:?}");
            assert!((least..=most).contains(&received[0]), "{received:?} {entries:?} {ended:?}");
            crashes += entries.len();
            matched += 1;
        }
    }
    for _ in 0..times {
        assert!(crash_at(&bench, &["request_before_return=abort once"]).is_none(), "the caller was told of it");
        crashes += 1;
    }
    let known: i64 = bench.one("SELECT count(*) FROM dot_run", &[]);
    assert_eq!(known, matched, "a run whose caller crashed has left a row");
    let ids: Vec<Uuid> = bench.all("SELECT run_id FROM dot_wrapper.dot_run_attempt", &[]);
    assert!(bench.agent.requests().iter().all(|request| request.run_id().is_some_and(|id| ids.contains(&id))));
    figure(
        "D3-crashes",
        &format!("{crashes} crashes at 10 fail points, {matched} runs, each request has its attempt row"),
    );
}

/// The other two things that a point can do, without which tests of promises could not be certain.
#[test]
fn d3_fail_points_wait_and_fail() {
    let bench = Bench::own(&[]);
    let points =
        bench.cluster.fail_points(&["claim_before_commit=wait(DOT-1)", "settle_before_commit=error(DOT-2) once"]);
    let waits = bench.apply("DOT-1");
    points.wait_for(1);
    assert_eq!(bench.run(waits.id()).status(), "queued");
    let behind = bench.apply("DOT-2");
    assert_eq!(bench.agent.count(), 0);
    drop(points);
    bench.until(&waits, "succeeded");
    bench.until(&behind, "succeeded");
    let points = bench.cluster.fail_points(&["settle_before_commit=error(DOT-2) once", "claim_gate=wait(DOT-1)"]);
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert_eq!(points.reached(0), 2, "the second try came through");
    let stuck = bench.apply("DOT-1");
    until("it waits", || (points.reached(1) > 0).then_some(()));
    let worker = bench.worker();
    assert!(bench.one::<bool>("SELECT pg_terminate_backend($1)", &[&worker]), "a wait can be interrupted");
    until("there is a new worker", || bench.worker_now().filter(|pid| *pid != worker));
    assert_eq!(bench.run(stuck.id()).status(), "queued");
}

//! Invariant 6: an apply that was sent and whose outcome is unknown is in doubt, is not sent again, and keeps its lease.

use crate::harness::{Bench, Reply, Run, os, until};

/// The run is in doubt, was sent once, and holds its lease against others.
#[track_caller]
fn in_doubt_and_sent_once(bench: &Bench, run: &Run, reason: &str) {
    let run = bench.until(run, "in_doubt");
    assert_eq!((run.reason(), run.text("finished_at")), (reason, ""), "{run:?}");
    bench.agent.reply(Reply::succeeded());
    bench.drain();
    let sent = bench.agent.requests().iter().filter(|request| request.run_id() == Some(run.id())).count();
    assert_eq!(sent, 1, "it was sent again");
    assert_eq!(bench.run(run.id()).status(), "in_doubt");
    let held: i64 = bench.one(
        "SELECT count(*) FROM dot_iu_runtime_lease l JOIN dot_wrapper.lease_grant g USING (lease_key)
         WHERE l.holder = 'dot_run:' || g.run_id AND l.expires_at > now() AND g.run_id = $1",
        &[&run.id()],
    );
    assert_eq!(held, 1, "the lease is gone");
    let other = bench.apply(run.text("code"));
    assert_eq!((other.status(), other.reason()), ("refused", "lease_held"));
}

#[test]
fn invariant_06_never_blind_a_killed_worker_leaves_doubt() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let verify = bench.verify("DOT-2");
    bench.agent.wait_for(2);
    bench.kill(bench.worker());
    in_doubt_and_sent_once(&bench, &run, "worker_lost");
    // A verify may not have changed anything, so it is sent again.
    bench.agent.reply(Reply::succeeded());
    assert_eq!(bench.until(&verify, "succeeded").0["attempts"], 2);
    bench.until(&bench.apply("DOT-2"), "succeeded");
}

#[test]
fn invariant_06_never_blind_a_killed_postmaster_leaves_doubt() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    assert!(os::signal(bench.cluster.postmaster(), "KILL"));
    bench.cluster.start_again();
    bench.forget_session();
    in_doubt_and_sent_once(&bench, &run, "worker_lost");
}

#[test]
fn invariant_06_never_blind_a_terminated_worker_leaves_doubt() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    let old = bench.worker();
    assert!(bench.one::<bool>("SELECT pg_terminate_backend($1)", &[&old]));
    until("there is a new worker", || bench.worker_now().filter(|pid| *pid != old));
    in_doubt_and_sent_once(&bench, &run, "worker_lost");
}

#[test]
fn invariant_06_never_blind_an_agent_that_hangs_up_leaves_doubt() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Close);
    let run = bench.apply("DOT-1");
    let verify = bench.verify("DOT-2");
    assert_eq!(bench.until(&verify, "failed").reason(), "connection_lost");
    in_doubt_and_sent_once(&bench, &run, "connection_lost");
}

#[test]
fn invariant_06_never_blind_an_answer_that_breaks_off_leaves_doubt() {
    let bench = Bench::shared();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"status\":";
    bench.agent.reply(Reply::Bytes(head.into()));
    in_doubt_and_sent_once(&bench, &bench.apply("DOT-1"), "answer_incomplete");
}

#[test]
fn invariant_06_never_blind_an_agent_that_is_silent_leaves_doubt() {
    let bench = Bench::shared();
    bench.exec("UPDATE dot_wrapper.policy SET total_timeout_ms = 400 WHERE name = 'agent_api'");
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let verify = bench.verify("DOT-2");
    assert_eq!(bench.until(&verify, "failed").reason(), "timeout");
    in_doubt_and_sent_once(&bench, &run, "timeout");
}

/// Where it is certain that nothing was sent, there is no doubt.
#[test]
fn invariant_06_never_blind_what_was_not_sent_has_failed() {
    let bench = Bench::shared();
    bench.agent.close();
    let run = bench.until(&bench.apply("DOT-1"), "failed");
    assert_eq!(run.reason(), "connect_failed", "{run:?}");
    let leases: i64 = bench.one("SELECT count(*) FROM dot_iu_runtime_lease", &[]);
    assert_eq!(leases, 0);
}

//! Invariant 2: an engine is called only after the attempt is durably recorded, claimed and committed.

use std::sync::Mutex;
use std::time::Duration;

use crate::harness::bench::TOOLS;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Request, os, until};

/// How many recorded attempts there are for what a request says of itself: 1 when all is well.
fn recorded(session: &mut postgres::Client, request: &Request) -> i64 {
    let sql = "SELECT count(*) FROM dot_wrapper.dot_run_attempt a
               WHERE a.run_id = $1 AND a.attempt = $2 AND a.fencing_token IS NOT DISTINCT FROM $3";
    let attempt = i32::try_from(request.body["attempt"].as_i64().unwrap()).unwrap();
    let token = request.body["fencing_token"].as_i64();
    session.query_one(sql, &[&request.run_id(), &attempt, &token]).unwrap().get(0)
}

#[test]
fn invariant_02_no_row_no_run_the_agent_finds_its_attempt_when_it_is_called() {
    let bench = Bench::shared();
    let witness = Mutex::new(bench.connect());
    bench.agent.plan(move |request| match recorded(&mut witness.lock().unwrap(), request) {
        1 => Reply::succeeded(),
        _ => Reply::ended("failed"),
    });
    for code in TOOLS {
        bench.until(&bench.apply(code), "succeeded");
        bench.until(&bench.verify(code), "succeeded");
    }
}

/// A standby that never comes holds up every commit that waits to be durable. So long the agent must not be called,
/// whatever the owner of the role and of the database has set.
#[test]
fn invariant_02_no_row_no_run_nothing_is_sent_before_the_intent_is_durable() {
    let bench = Bench::own(&[]);
    bench.exec(&format!(
        "ALTER ROLE dot_wrapper_worker SET synchronous_commit = off;
         ALTER DATABASE {} SET synchronous_commit = off",
        bench.name
    ));
    let old = bench.worker();
    assert!(os::signal(old, "TERM"));
    until("there is a new worker", || bench.worker_now().filter(|pid| *pid != old));
    bench.exec("SET synchronous_commit = off");
    bench.cluster.set(&[("synchronous_standby_names", "nobody")]);

    let run = bench.apply("DOT-1");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND wait_event = 'SyncRep'";
    let what = "nothing is sent while the intent is not durable";
    until("the worker waits for the standby", || {
        assert_eq!(bench.agent.count(), 0, "{what}");
        (bench.one::<i64>(waiting, &[]) == 1).then_some(())
    });
    holds(what, Duration::from_millis(500), || bench.agent.count() == 0);
    bench.cluster.set(&[("synchronous_standby_names", "")]);
    bench.until(&run, "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

/// Callers commit without waiting for the disk, and the server crashes as soon as the agent is called.
#[test]
fn invariant_02_no_row_no_run_no_request_is_without_a_row_after_a_crash() {
    const CRASHES: usize = 12;
    let bench = Bench::own(&["synchronous_commit = off", "wal_writer_delay = 10s", "checkpoint_timeout = 1h"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    bench.exec("CHECKPOINT");
    bench.agent.reply(Reply::Hold);
    for crash in 0..CRASHES {
        bench.apply(TOOLS[crash % TOOLS.len()]);
        let request = bench.agent.wait_for(crash + 1).pop().unwrap();
        bench.crash();
        assert_eq!(recorded(&mut bench.session(), &request), 1, "after crash {crash}: {request:?}");
    }
    assert_eq!(bench.agent.count(), CRASHES, "nothing was sent again");
}

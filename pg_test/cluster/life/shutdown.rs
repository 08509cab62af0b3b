//! Shutting the server down while the worker has something in hand.

use std::time::{Duration, Instant};

use crate::harness::{Bench, Reply, until};

/// A fast shutdown takes no longer than this.
const FAST: Duration = Duration::from_secs(2);

#[track_caller]
fn stops_fast(bench: &Bench) {
    bench.forget_session();
    let started = Instant::now();
    bench.cluster.stop("fast");
    assert!(started.elapsed() < FAST, "the shutdown took {:?}", started.elapsed());
    let log = bench.cluster.log();
    assert!(!log.contains("was terminated by signal") && !log.contains("PANIC"), "{log}");
}

#[test]
fn a_fast_shutdown_is_fast_while_a_call_is_out() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    stops_fast(&bench);
    bench.cluster.start_again();
    bench.agent.reply(Reply::succeeded());
    assert_eq!(bench.until(&run, "in_doubt").reason(), "worker_lost");
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn a_fast_shutdown_is_fast_while_the_worker_waits_for_a_lock() {
    let bench = Bench::own(&[]);
    let mut locker = bench.connect();
    let mut transaction = locker.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE dot_tools IN SHARE MODE").unwrap();
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND wait_event_type = 'Lock'";
    until("the worker waits for the catalogue", || (bench.one::<i64>(waits, &[]) == 1).then_some(()));
    stops_fast(&bench);
    drop(transaction);
    bench.cluster.start_again();
    assert_eq!(bench.run(run.id()).status(), "succeeded");
    // What was owed to the catalogue is paid after the restart.
    let sql = "SELECT usage_count FROM dot_tools WHERE code = 'DOT-1'";
    until("the counter has moved", || (bench.one::<i64>(sql, &[]) == 1).then_some(()));
}

#[test]
fn a_fast_shutdown_is_fast_while_the_worker_is_idle_and_a_restart_finds_it_again() {
    let bench = Bench::own(&[]);
    bench.drain();
    stops_fast(&bench);
    bench.cluster.start_again();
    bench.drain();
}

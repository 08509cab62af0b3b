//! Signals to launcher and worker.

use crate::harness::{Bench, Reply, os, until};

fn launcher(bench: &Bench) -> Option<i32> {
    bench.all("SELECT pid FROM pg_stat_activity WHERE backend_type = 'dot_wrapper launcher'", &[]).pop()
}

#[test]
fn a_terminated_worker_is_replaced() {
    let bench = Bench::shared();
    for _ in 0..2 {
        let old = bench.worker();
        assert!(bench.one::<bool>("SELECT pg_terminate_backend($1)", &[&old]));
        until("there is another worker", || bench.worker_now().filter(|pid| *pid != old));
        bench.drain();
    }
}

#[test]
fn a_cancelled_worker_stays() {
    let bench = Bench::shared();
    bench.drain();
    let worker = bench.worker();
    for _ in 0..5 {
        assert!(bench.one::<bool>("SELECT pg_cancel_backend($1)", &[&worker]));
        bench.drain();
    }
    assert_eq!(bench.worker(), worker);
}

#[test]
fn a_terminated_launcher_is_replaced_and_takes_up_the_workers() {
    let bench = Bench::own(&[]);
    bench.drain();
    let worker = bench.worker();
    let old = until("there is a launcher", || launcher(&bench));
    assert!(os::signal(old, "TERM"));
    until("there is another launcher", || launcher(&bench).filter(|pid| *pid != old));
    bench.drain();
    assert_eq!(bench.worker(), worker, "the worker went on");
    // The new one knows the worker of the old one, and answers its end.
    assert!(os::signal(worker, "TERM"));
    until("there is another worker", || bench.worker_now().filter(|pid| *pid != worker));
    bench.drain();
}

#[test]
fn a_killed_launcher_or_backend_takes_nothing_away() {
    let bench = Bench::own(&[]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.kill(until("there is a launcher", || launcher(&bench)));
    bench.until(&bench.apply("DOT-1"), "succeeded");
    // A backend that dies in the middle of a request leaves nothing of it.
    let mut session = bench.connect();
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let mut transaction = session.transaction().unwrap();
    let lost = crate::harness::run::Ask::new("DOT-2", "apply").on(&mut transaction).unwrap();
    bench.kill(pid);
    drop(transaction);
    let left: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE run_id = $1", &[&lost.id()]);
    assert_eq!(left, 0);
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert_eq!(bench.agent.count(), 3);
}

/// A signal must reach the worker, not the engine's threads, also while calls are out.
#[test]
fn signals_reach_a_worker_whose_engine_is_busy() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    let worker = bench.worker();
    for signal in ["HUP", "INT", "USR1", "URG", "USR2"] {
        for _ in 0..20 {
            assert!(os::signal(worker, signal));
        }
        bench.drain();
    }
    assert_eq!(bench.worker(), worker);
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
}

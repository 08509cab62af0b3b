//! How scripts are ended that do not end: by their deadline, by a cancel, by the worker's end of any kind. Nothing of them is
//! left, whatever they have started and wherever that has fled to.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Stage, gone, is_alive};
use crate::harness::{Run, os, until};

/// Notes its own pid, that of a child, that of one who has fled to another session, and that of his child; none of which ends
/// or heeds SIGTERM.
fn stubborn(log: &str) -> String {
    format!(
        "trap '' TERM; echo $$ >> {log}; sleep 3000 & echo $! >> {log}
         setsid sh -c 'trap \"\" TERM; echo $$ >> {log}; sleep 3001 & echo $! >> {log}; wait' > /dev/null 2>&1 &
         while :; do sleep 3002; done"
    )
}

/// A stage on which a stubborn script runs, and the pids of all of it.
fn running(stage: &Stage, policy: &str) -> (Run, Vec<i32>) {
    let notes = stage.notes("pids");
    stage.tool("DOT-S", &stubborn(&notes.path()), policy);
    let run = stage.ask("DOT-S", "apply", json!({}));
    let mut pids = notes.pids(4);
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    pids.push(keeper(pids[0]));
    (run, pids)
}

fn keeper(leader: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{leader}/stat")).expect("a process");
    stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok()).expect("its parent")
}

#[test]
fn a_deadline_kills_the_script_and_all_that_came_of_it() {
    let stage = Stage::shared();
    let (run, pids) = running(&stage, "total_timeout_ms = 1500");
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("in_doubt", "timeout"));
    assert!(pids[..4].iter().all(|pid| !is_alive(*pid)), "none is left when the run is in doubt: {pids:?}");
    gone(&pids);
}

#[test]
fn a_script_that_heeds_sigterm_may_say_that_it_changed_nothing() {
    let stage = Stage::shared();
    let script = "trap 'echo undone; exit 75' TERM; sleep 3000 & wait";
    stage.tool("DOT-P", script, "total_timeout_ms = 300, max_attempts = 1");
    let run = stage.apply("DOT-P", json!({}));
    assert_eq!((run.status(), run.reason(), &run.0["result"]["stdout"]), ("failed", "timeout", &json!("undone\n")));
}

#[test]
fn a_cancel_ends_the_script_before_the_run_is_told_of_as_in_doubt() {
    let stage = Stage::shared();
    let (run, pids) = running(&stage, "");
    stage.bench.exec(&format!("SELECT fn_dot_cancel('{}', 'enough')", run.id()));
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("in_doubt", "cancelled"));
    assert!(pids[..4].iter().all(|pid| !is_alive(*pid)), "{pids:?}");
}

#[test]
fn a_worker_that_is_terminated_takes_its_scripts_along() {
    let stage = Stage::own();
    let (run, pids) = running(&stage, "");
    let worker = stage.bench.worker();
    assert!(os::signal(worker, "TERM"));
    gone(&pids);
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("in_doubt", "worker_lost"));
}

#[test]
fn a_worker_that_is_killed_leaves_no_process_and_the_run_is_in_doubt_or_repeated() {
    let stage = Stage::own();
    let (run, pids) = running(&stage, "");
    let notes = stage.notes("again");
    let again = format!("echo $$ >> {0}; [ $(wc -l < {0}) -ge 2 ] || sleep 3000", notes.path());
    stage.tool("DOT-I", &again, "idempotent = true");
    let repeated = stage.ask("DOT-I", "apply", json!({}));
    let first = notes.pids(1);
    stage.bench.kill(stage.bench.worker());
    gone(&pids);
    gone(&first);
    assert_eq!(stage.ended(&run).reason(), "worker_lost");
    assert_eq!(stage.bench.run(run.id()).status(), "in_doubt");
    assert_eq!(stage.ended(&repeated).status(), "succeeded");
    assert_eq!(notes.lines().len(), 2);
}

#[test]
fn a_postmaster_that_is_killed_can_be_started_again_at_once() {
    let stage = Stage::own();
    let (run, pids) = running(&stage, "");
    assert!(os::signal(stage.bench.cluster.postmaster(), "KILL"));
    let killed = Instant::now();
    gone(&pids);
    let longest = killed.elapsed();
    stage.bench.forget_session();
    stage.bench.cluster.start_again();
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    assert_eq!(stage.ended(&run).status(), "in_doubt");
}

/// The keeper alone, stopped so that it cannot end, must not keep the server from starting.
#[test]
fn a_keeper_holds_nothing_of_the_server() {
    let stage = Stage::own();
    let (_, pids) = running(&stage, "");
    let keeper = *pids.last().unwrap();
    let worker = stage.bench.worker();
    // The segment that a postmaster asks for before it starts.
    let holds = |pid| std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its memory").contains("/SYSV");
    assert!(holds(worker) && !holds(keeper));
    assert!(os::signal(keeper, "STOP"));
    assert!(os::signal(stage.bench.cluster.postmaster(), "KILL"));
    gone(&[worker]);
    stage.bench.forget_session();
    stage.bench.cluster.start_again();
    assert!(is_alive(keeper));
    assert!(os::signal(keeper, "CONT"));
    gone(&pids);
}

#[test]
fn a_keeper_that_is_killed_takes_the_script_along() {
    let stage = Stage::shared();
    let notes = stage.notes("keeper");
    stage.tool("DOT-L", &format!("echo $$ >> {}; exec sleep 3000", notes.path()), "");
    let run = stage.ask("DOT-L", "apply", json!({}));
    let pids = notes.pids(1);
    assert!(os::signal(keeper(pids[0]), "KILL"));
    gone(&pids);
    assert_eq!(stage.ended(&run).reason(), "keeper_lost");
    until("no zombie of it is left", || {
        let children = std::fs::read_to_string(format!("/proc/{}/status", stage.bench.worker())).ok()?;
        (!children.contains("zombie")).then_some(())
    });
}

/// A keeper that somebody has stopped hears nothing until it goes on; the run must not be over before.
#[test]
fn a_keeper_that_was_stopped_goes_on_when_its_script_is_to_end() {
    let stage = Stage::shared();
    let notes = stage.notes("stopped");
    stage.tool("DOT-Z", &format!("echo $$ >> {}; exec sleep 3000", notes.path()), "");
    let run = stage.ask("DOT-Z", "apply", json!({}));
    let pids = notes.pids(1);
    assert!(os::signal(keeper(pids[0]), "STOP"));
    stage.bench.exec(&format!("SELECT fn_dot_cancel('{}', 'enough')", run.id()));
    assert_eq!(stage.ended(&run).reason(), "cancelled");
    assert!(!is_alive(pids[0]), "it is over only when nothing of it is left");
}

#[test]
fn a_script_ends_at_its_deadline_although_the_worker_is_stopped() {
    let stage = Stage::own();
    let notes = stage.notes("pids");
    stage.tool("DOT-W", &format!("echo $$ >> {}; exec sleep 3000", notes.path()), "total_timeout_ms = 2000");
    let run = stage.ask("DOT-W", "apply", json!({}));
    let mut pids = notes.pids(1);
    pids.push(keeper(pids[0]));
    let worker = stage.bench.worker();
    assert!(os::signal(worker, "STOP"));
    gone(&pids);
    assert!(is_alive(worker));
    assert!(os::signal(worker, "CONT"));
    assert_eq!(stage.ended(&run).status(), "in_doubt");
}

//! O1: fast shutdown and pg_terminate_backend end the worker within 3 s in any state.

use std::time::{Duration, Instant};

use postgres::Client;

use crate::harness::bench::{Params, TOOLS};
use crate::harness::{Bench, Reply, figure, rounds, until};

/// The longest that either may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Calls that are out, or being settled.
const MANY: usize = 60;
const NO_PARAMS: Params<'_> = &[];

const STATES: [&str; 5] = ["idle", "call out", "many calls out", "waiting on a lock", "settling under load"];

/// Brings the worker into a state; what has to be kept for it to last.
fn reach(bench: &Bench, state: &str) -> Option<Client> {
    bench.agent.reply(Reply::Hold);
    let before = bench.agent.count();
    match state {
        "idle" => bench.look(),
        "call out" => {
            bench.apply(TOOLS[0]);
            bench.agent.wait_for(before + 1);
        }
        "many calls out" => {
            ask(bench, MANY);
            bench.agent.wait_for(before + MANY);
        }
        "waiting on a lock" => {
            // The intent cannot be written.
            let mut locker = bench.connect();
            locker.batch_execute("BEGIN; LOCK TABLE dot_wrapper.dot_run_attempt IN SHARE MODE").unwrap();
            ask(bench, 1);
            let waits = "SELECT count(*) FROM pg_stat_activity
                         WHERE backend_type = 'dot_wrapper worker' AND wait_event_type = 'Lock'";
            until("the worker waits for the lock", || (bench.one::<i64>(waits, NO_PARAMS) == 1).then_some(()));
            return Some(locker);
        }
        _ => {
            bench.agent.reply(Reply::succeeded());
            ask(bench, 5 * MANY);
            bench.agent.wait_for(before + MANY);
        }
    }
    None
}

fn ask(bench: &Bench, count: usize) {
    let count = i64::try_from(count).unwrap();
    bench.one::<i64>("SELECT count(fn_dot_run('DOT-1', 'apply')) FROM generate_series(1, $1::bigint)", &[&count]);
}

/// Nothing of this round is in the way of the next.
fn clear(bench: &Bench) {
    bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE state = 'queued'");
}

fn stop(bench: &Bench, kept: Option<Client>) -> Duration {
    bench.forget_session();
    let started = Instant::now();
    bench.cluster.stop("fast");
    let took = started.elapsed();
    drop(kept);
    bench.cluster.start_again();
    took
}

fn terminate(bench: &Bench, kept: Option<Client>) -> Duration {
    let worker = bench.worker();
    let mut session = bench.cluster.connect("postgres");
    let started = Instant::now();
    assert!(session.query_one("SELECT pg_terminate_backend($1)", &[&worker]).unwrap().get::<_, bool>(0));
    until("it has gone", || bench.worker_now().filter(|pid| *pid == worker).is_none().then_some(()));
    let took = started.elapsed();
    drop(kept);
    until("there is another", || bench.worker_now());
    took
}

#[test]
fn o1_the_worker_ends_within_three_seconds_whatever_it_does() {
    let rounds = rounds(2, 20);
    let bench = Bench::own(&[&format!("dot_wrapper.max_in_flight = {}", 2 * MANY)]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    let mut worst = Vec::new();
    for (name, end) in [("stop", stop as fn(&Bench, Option<Client>) -> Duration), ("termination", terminate)] {
        for state in STATES {
            let took = (0..rounds).map(|_| {
                bench.worker();
                let kept = reach(&bench, state);
                let took = end(&bench, kept);
                clear(&bench);
                took
            });
            worst.push((took.max().unwrap(), name, state));
        }
    }
    let log = bench.cluster.log();
    assert!(!log.contains("was terminated by signal") && !log.contains("PANIC"), "{log}");
    let shown: Vec<String> =
        worst.iter().map(|(took, name, state)| format!("{name} while {state}: {} ms", took.as_millis())).collect();
    figure("O1", &format!("{rounds} each, the longest: {}", shown.join(", ")));
    assert!(worst.iter().all(|(took, ..)| *took <= LIMIT), "{worst:?}");
}

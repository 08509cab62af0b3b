//! One slow agent, or one tenant's flood, is not felt by the others. And callers do not wait for the worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{bench, durations, flood, percentile, second_agent, waiting};
use crate::harness::{Bench, Reply, figure, rounds, until};

/// What the machine itself may add to a percentile, whoever else is on it.
const NOISE: Duration = Duration::from_millis(25);

/// What two figures are to each other, as the promise has it.
fn at_most_twice(what: &str, baseline: Duration, now: Duration) -> String {
    assert!(now <= baseline * 2 + NOISE, "{what}: p95 {now:?}, alone {baseline:?}");
    format!("p95 {} ms, alone {} ms", now.as_millis(), baseline.as_millis())
}

#[test]
fn promise_r1_a_slow_agent_with_hundreds_of_runs_does_not_hold_up_another() {
    let bench = bench(", total_timeout_ms = 120000");
    let slow = second_agent(&bench, "slow", &["DOT-2", "DOT-3"]);
    slow.reply(Reply::Hold);
    let mut session = bench.connect();
    durations(&mut session, "DOT-1", 10);
    let alone = percentile(durations(&mut session, "DOT-1", 100), 95);
    assert_eq!(flood(&bench, "DOT-2", 300) + flood(&bench, "DOT-3", 300), 600);
    // One endpoint may have three quarters of the 64 calls, and not the last one.
    slow.wait_for(48);
    let beside = percentile(durations(&mut session, "DOT-1", 100), 95);
    assert_eq!(slow.count(), 48);
    assert_eq!(waiting(&bench), 600 - 48);
    figure(
        "R1-slow-agent",
        &format!(
            "48 calls hang and 552 runs wait at one agent; at the other: {}",
            at_most_twice("beside a slow agent", alone, beside)
        ),
    );
}

/// Tenants with a tool each, or with the same; the agent takes a tenth of a second for each run.
#[test]
fn promise_r1_one_tenant_s_flood_is_not_felt_by_another() {
    let flood_of = rounds(2_000, 100_000);
    let bench = Bench::own(&["dot_wrapper.max_in_flight = 16"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
    let (a, b) = (bench.role("a"), bench.role("b"));
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run, fn_dot_wait TO {a}, {b};
         ALTER DATABASE {} SET dot_wrapper.max_queued = {}",
        bench.name,
        flood_of - 500
    ));
    bench.agent.plan(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Reply::succeeded()
    });
    let (mut of_a, mut of_b) = (bench.connect_as(&a), bench.connect_as(&b));
    durations(&mut of_b, "DOT-2", 3);
    let count = rounds(20, 100);
    let alone = percentile(durations(&mut of_b, "DOT-2", count), 95);
    let begun = Instant::now();
    // In one transaction, so that nothing has been taken before the limit is reached.
    let sql = "SELECT (r).run_status, (r).reason, count(*) FROM (SELECT fn_dot_run('DOT-1', 'apply') AS r
               FROM generate_series(1, $1::integer) OFFSET 0) x GROUP BY 1, 2 ORDER BY 3";
    let found = of_a.query(sql, &[&i32::try_from(flood_of).unwrap()]).unwrap();
    let counts: Vec<(String, i64)> = found.iter().map(|row| (row.get(0), row.get(2))).collect();
    let admitted = i64::try_from(flood_of - 500).unwrap();
    assert_eq!(counts, [("refused".to_owned(), 500), ("queued".to_owned(), admitted)], "the limit is exact");
    let pushed = begun.elapsed();
    let beside = percentile(durations(&mut of_b, "DOT-2", count), 95);
    let same_tool = percentile(durations(&mut of_b, "DOT-1", count), 95);
    assert!(waiting(&bench) > 0, "the flood was still there");
    let refused: i64 = bench.one(
        "SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'refused' AND reason = 'queue_full' AND requested_by = $1::text::name",
        &[&a],
    );
    assert_eq!(refused, 500, "every refusal is in the ledger");
    let text = at_most_twice("another tool", alone, beside);
    figure(
        "R1",
        &format!(
            "tenant A submits {flood_of} ({:.0} s): {admitted} admitted, 500 refused and recorded; tenant B: {text}; with A's own tool: {}",
            pushed.as_secs_f64(),
            at_most_twice("the same tool", alone, same_tool)
        ),
    );
}

/// Nothing deletes from the ledger; the queue's rows go as runs end, and nobody waits for that.
#[test]
fn promise_r4_callers_never_wait_for_runs_that_finish() {
    let (clients, span) = (rounds(8, 32), Duration::from_secs(rounds(3, 60) as u64));
    let bench = bench("");
    let over = AtomicBool::new(false);
    let calls = |bench: &Bench| {
        let mut session = bench.connect();
        let mut times = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            session.query_one("SELECT fn_dot_run('DOT-1', 'apply')", &[]).unwrap();
            times.push(begun.elapsed());
        }
        times
    };
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(|| calls(&bench))).collect();
        let begun = Instant::now();
        let finished = "SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'succeeded'";
        until("time is up and runs have finished", || {
            (begun.elapsed() >= span && bench.one::<i64>(finished, &[]) > 50).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let (count, worst) = (times.len(), times.iter().max().copied().unwrap());
    let finished: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'succeeded'", &[]);
    let kept: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run", &[]);
    assert_eq!(kept, i64::try_from(count).unwrap(), "no row of the ledger is ever removed");
    assert!(worst <= Duration::from_secs(1), "{worst:?}");
    figure(
        "R4",
        &format!(
            "{clients} clients, {count} requests beside {finished} runs that finished: the longest took {} ms; 0 rows removed",
            worst.as_millis()
        ),
    );
}

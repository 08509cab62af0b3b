//! One slow agent, or one tenant's flood, is not felt by the others. And callers do not wait for the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use super::{bench, durations, flood, percentile, second_agent, waiting};
use crate::harness::{Bench, Reply, figure, rounds, until};

/// What the machine itself may add to a percentile, whoever else is on it.
const NOISE: Duration = Duration::from_millis(25);

/// The same work in a database where nothing else goes on, at the same time: what the machine does to it is in both figures.
struct Baseline {
    bench: Bench,
    session: Client,
}

impl Baseline {
    fn beside(bench: &Bench, work: Duration) -> Baseline {
        let alone = Bench::on(Arc::clone(&bench.cluster));
        alone.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
        works(&alone, work);
        let mut session = alone.connect();
        durations(&mut session, "DOT-2", 3);
        Baseline { bench: alone, session }
    }

    /// How long runs of this tool take, one here and one there in turn: at the 95th percentile at most twice as long.
    fn compare(&mut self, what: &str, session: &mut Client, code: &str, count: usize) -> String {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..count {
            alone.extend(durations(&mut self.session, "DOT-2", 1));
            beside.extend(durations(session, code, 1));
        }
        let (alone, beside) = (percentile(alone, 95), percentile(beside, 95));
        assert!(beside <= alone * 2 + NOISE, "{what}: p95 {beside:?}, alone {alone:?}");
        assert_eq!(waiting(&self.bench), 0);
        format!("{what}: p95 {} ms, alone {} ms", beside.as_millis(), alone.as_millis())
    }
}

/// Lets the agent take so long for each run.
fn works(bench: &Bench, time: Duration) {
    bench.agent.plan(move |_| {
        std::thread::sleep(time);
        Reply::succeeded()
    });
}

#[test]
fn promise_r1_a_slow_agent_with_hundreds_of_runs_does_not_hold_up_another() {
    let bench = bench(", total_timeout_ms = 120000");
    let slow = second_agent(&bench, "slow", &["DOT-2", "DOT-3"]);
    slow.reply(Reply::Hold);
    let mut baseline = Baseline::beside(&bench, Duration::ZERO);
    assert_eq!(flood(&bench, "DOT-2", 150) + flood(&bench, "DOT-3", 150), 300);
    // One endpoint may have three quarters of the 64 calls, and not the last one.
    slow.wait_for(48);
    let figures = baseline.compare("at the other", &mut bench.connect(), "DOT-1", rounds(40, 200));
    assert_eq!((slow.count(), waiting(&bench)), (48, 300 - 48));
    figure("R1-slow-agent", &format!("48 calls hang and 252 runs wait at one agent; {figures}"));
}

/// Tenants with a tool each, or with the same; the agent takes a fifth of a second for each run.
#[test]
fn promise_r1_one_tenant_s_flood_is_not_felt_by_another() {
    let (flood_of, over) = (rounds(600, 100_000), 100);
    let bench = Bench::own(&["dot_wrapper.max_in_flight = 8"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
    let (a, b) = (bench.role("a"), bench.role("b"));
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run, fn_dot_wait TO {a}, {b};
         ALTER DATABASE {} SET dot_wrapper.max_queued = {}",
        bench.name,
        flood_of - over
    ));
    works(&bench, Duration::from_millis(200));
    let mut baseline = Baseline::beside(&bench, Duration::from_millis(200));
    let (mut of_a, mut of_b) = (bench.connect_as(&a), bench.connect_as(&b));
    let (begun, count) = (Instant::now(), rounds(12, 100));
    // In one transaction, so that nothing has been taken before the limit is reached.
    let sql = "SELECT (r).run_status, (r).reason, count(*) FROM (SELECT fn_dot_run('DOT-1', 'apply') AS r
               FROM generate_series(1, $1::integer) OFFSET 0) x GROUP BY 1, 2 ORDER BY 1";
    let found = of_a.query(sql, &[&i32::try_from(flood_of).unwrap()]).unwrap();
    let counts: Vec<(String, i64)> = found.iter().map(|row| (row.get(0), row.get(2))).collect();
    let (admitted, over) = (i64::try_from(flood_of - over).unwrap(), i64::try_from(over).unwrap());
    assert_eq!(counts, [("queued".to_owned(), admitted), ("refused".to_owned(), over)], "the limit is exact");
    let pushed = begun.elapsed();
    let other_tool = baseline.compare("with another tool", &mut of_b, "DOT-2", count);
    let same_tool = baseline.compare("with A's tool", &mut of_b, "DOT-1", count);
    assert!(waiting(&bench) > 0, "the flood was still there");
    let refused: i64 = bench.one(
        "SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'refused' AND reason = 'queue_full' AND requested_by = $1::text::name",
        &[&a],
    );
    assert_eq!(refused, over, "every refusal is in the ledger");
    figure(
        "R1",
        &format!(
            "tenant A submits {flood_of} ({:.0} s): {admitted} admitted, {over} refused and recorded; tenant B {other_tool}; {same_tool}",
            pushed.as_secs_f64()
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

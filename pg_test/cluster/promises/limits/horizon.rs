//! R3: while somebody holds an old snapshot, nothing that is over can be removed from tables and indexes; claiming goes
//! on all the same.

use std::time::{Duration, Instant};

use super::{all_over, bench, bench_with, flood};
use crate::harness::{Bench, figure, os, rounds, until};

/// Tells the log what every statement of the worker costs, while it is switched on.
const EXPLAIN: [&str; 4] = [
    "shared_preload_libraries = 'dot_wrapper, auto_explain'",
    "auto_explain.log_analyze = on",
    "auto_explain.log_buffers = on",
    "auto_explain.log_timing = off",
];

/// Buffers that a look of the worker's behind its marks takes, the median of a few.
fn look_buffers(bench: &Bench) -> u64 {
    bench.cluster.set(&[("auto_explain.log_min_duration", "0")]);
    let old = bench.cluster.log().len();
    // Now and then the worker looks from the beginning instead.
    let mut found = until("the worker has looked behind its marks", || {
        flood(bench, "DOT-1", 50);
        all_over(bench);
        let found = looks(&bench.cluster.log()[old..]);
        (found.len() >= 5).then_some(found)
    });
    bench.cluster.set(&[("auto_explain.log_min_duration", "-1")]);
    found.sort_unstable();
    found[found.len() / 2]
}

fn looks(log: &str) -> Vec<u64> {
    let looks = log.split("Query Text:").filter(|plan| plan.contains("AS m (lane, seq, timed, timed_seq)"));
    // The first line of the kind is the topmost node's, which counts those below.
    let buffers = |plan: &str| {
        let counts = plan.lines().find(|line| line.trim_start().starts_with("Buffers: shared"))?;
        let of = |word: &str| counts.split_once(word)?.1.split_whitespace().next()?.parse::<u64>().ok();
        Some(of("hit=").unwrap_or(0) + of("read=").unwrap_or(0))
    };
    looks.filter_map(buffers).collect()
}

/// Runs that have ended, per second, until there are so many.
fn speed(bench: &Bench, until_count: usize) -> f64 {
    let sql = "SELECT count(*) FROM dot_wrapper.dot_run_event WHERE to_status = 'succeeded'";
    let (begun, before) = (Instant::now(), bench.agent.count());
    let end = Instant::now() + Duration::from_secs(1200);
    while bench.agent.count() < until_count {
        assert!(Instant::now() < end, "{} of {until_count}", bench.agent.count());
        std::thread::sleep(Duration::from_millis(20));
    }
    let rate = (bench.agent.count() - before) as f64 / begun.elapsed().as_secs_f64();
    assert!(bench.one::<i64>(sql, &[]) > 0);
    rate
}

#[test]
fn promise_r3_claiming_keeps_its_speed_under_an_old_snapshot() {
    if !os::has_library("auto_explain") {
        return;
    }
    let claims = rounds(800, 30_000);
    let part = claims / 8;
    let bench = bench_with(&EXPLAIN, "");
    flood(&bench, "DOT-1", 200);
    speed(&bench, 200);
    let mut pinned = bench.connect();
    pinned.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM dot_wrapper.dot_queue").unwrap();
    let few = look_buffers(&bench);
    let start = bench.agent.count();
    flood(&bench, "DOT-1", claims + part);
    let first = speed(&bench, start + part);
    speed(&bench, start + claims);
    let last = speed(&bench, start + claims + part);
    all_over(&bench);
    let many = look_buffers(&bench);
    // What is gone and cannot be removed is passed by, whatever the machine's speed is.
    assert!(many <= 2 * few + 4, "{many} buffers a look after {claims} claims, {few} before");
    // The quick variant is too short for a speed.
    if std::env::var_os("DOT_TEST_FULL").is_some() {
        assert!(last > first / 2.0, "{last:.0}/s after {claims} claims, {first:.0}/s before");
    }
    pinned.batch_execute("COMMIT").unwrap();
    figure(
        "R3",
        &format!(
            "{claims} claims under a pinned horizon: a look takes {few} buffers before and {many} after; \
             {first:.0} runs/s at first, {last:.0}/s at the end"
        ),
    );
}

/// A place in a lane that the worker has left behind: a transaction that began early and commits late.
#[test]
fn promise_r3_a_late_commit_is_found_within_a_second() {
    let count = rounds(400, 20_000);
    let bench = bench("");
    let mut pinned = bench.connect();
    pinned.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM dot_wrapper.dot_queue").unwrap();
    let mut late = bench.connect();
    let mut transaction = late.transaction().unwrap();
    let run = crate::harness::run::Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    flood(&bench, "DOT-1", count);
    let end = count - count / 10;
    speed(&bench, end);
    transaction.commit().unwrap();
    let begun = Instant::now();
    until("it is sent", || bench.agent.requests().iter().any(|r| r.run_id() == Some(run.id())).then_some(()));
    let found = begun.elapsed();
    assert!(found <= Duration::from_millis(1_500), "{found:?}");
    pinned.batch_execute("COMMIT").unwrap();
    figure("R3-late", &format!("a row before {end} that were gone was sent {} ms after its commit", found.as_millis()));
}

/// A queue is empty most of the time, and so it is when it is analysed; then plans are made for one row.
#[test]
fn promise_r3_no_list_is_read_row_by_row_whatever_the_statistics_say() {
    if !os::has_library("auto_explain") {
        return;
    }
    let bench = bench_with(&[&EXPLAIN[..], &["dot_wrapper.max_in_flight = 400", "autovacuum = off"]].concat(), "");
    let tools = "SET lease = 'own:{args.n}', max_in_flight = 400 WHERE name = 'agent_api'";
    bench.exec(&format!("UPDATE dot_wrapper.policy {tools}"));
    let request = |from: i32, to: i32| {
        let sql =
            "SELECT count(*) FROM (SELECT fn_dot_run('DOT-1', 'apply', args => jsonb_build_object('n', n::text)) AS r
                   FROM generate_series($1::integer, $2::integer) n OFFSET 0) x";
        bench.one::<i64>(sql, &[&from, &to])
    };
    request(1, 20);
    all_over(&bench);
    for table in ["dot_queue", "lease_grant", "dot_run", "dot_run_attempt", "dot_run_event"] {
        bench.exec(&format!("VACUUM ANALYZE dot_wrapper.{table}"));
    }
    bench.cluster.set(&[("auto_explain.log_min_duration", "0")]);
    let old = bench.cluster.log().len();
    request(1001, 1800);
    all_over(&bench);
    bench.cluster.set(&[("auto_explain.log_min_duration", "-1")]);
    let log = bench.cluster.log();
    let plans = log[old..].split("Query Text:").skip(1).filter(|plan| plan.contains("dot_wrapper."));
    let (mut seen, mut worst) = (0, (0, String::new()));
    for plan in plans {
        seen += 1;
        let removed = thrown_away(plan);
        if removed > worst.0 {
            worst = (removed, plan.to_owned());
        }
    }
    assert!(seen > 10, "{seen} plans");
    // Those of a batch may be looked through once; the queue has twice as many.
    assert!(worst.0 <= 450, "{} rows were read and thrown away:\n{}", worst.0, worst.1);
}

/// The most rows that one node of a plan has read in vain, over all of its loops.
fn thrown_away(plan: &str) -> u64 {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    let (mut loops, mut most) = (1, 0);
    for line in plan.lines() {
        if let Some((_, count)) = line.split_once("loops=") {
            loops = number(count).unwrap_or(1);
        }
        if let Some((_, rest)) = line.split_once("Rows Removed by ")
            && let Some((_, each)) = rest.split_once(": ")
        {
            // The plan gives the average.
            most = most.max(number(each).unwrap_or(0) * loops);
        }
    }
    most
}

//! R2: a long run leaks neither memory, descriptors, worker slots nor locks.

use std::time::{Duration, Instant};

use crate::harness::bench::{Params, TOOLS};
use crate::harness::{Bench, Reply, figure, rounds, until};

/// Runs asked for in one statement, ten times a second.
const BATCH: i64 = 10;
const EVERY: Duration = Duration::from_millis(100);
const NO_PARAMS: Params<'_> = &[];

/// What the worker has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    /// Memory of its own, in kB.
    memory: u64,
    /// Sockets, pipes and the like.
    descriptors: usize,
    /// Files of the database, which the server keeps open, and closes when it has too many of them.
    files: usize,
    threads: usize,
    locks: i64,
    slots: i64,
}

fn holdings(bench: &Bench, pid: i32) -> Holdings {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let entries = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let files = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let files = files.filter(|to| to.starts_with(bench.cluster.dir())).count();
    Holdings {
        memory: line.split_whitespace().nth(1).unwrap().parse().unwrap(),
        descriptors: entries("fd") - files,
        files,
        threads: entries("task"),
        locks: bench.one("SELECT count(*) FROM pg_locks WHERE pid = $1", &[&pid]),
        slots: bench.one("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dot_wrapper%'", NO_PARAMS),
    }
}

/// Waits for the end of what is out, and looks.
fn at_rest(bench: &Bench, pid: i32) -> Holdings {
    let over = "SELECT count(*) FROM dot_wrapper.dot_queue WHERE state <> 'in_doubt'";
    until("all is over", || (bench.one::<i64>(over, NO_PARAMS) == 0).then_some(()));
    until("the worker waits", || {
        let idle = "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $1";
        bench.one::<bool>(idle, &[&pid]).then_some(())
    });
    holdings(bench, pid)
}

/// A hundred runs a second for a while.
fn load(bench: &Bench, span: Duration) -> usize {
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < span {
        let next = Instant::now() + EVERY;
        let code = TOOLS[asked / 10 % TOOLS.len()];
        bench.one::<i64>("SELECT count(fn_dot_run($1, 'apply')) FROM generate_series(1, $2::bigint)", &[&code, &BATCH]);
        asked += BATCH as usize;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    asked
}

#[test]
fn r2_a_long_life_leaks_nothing() {
    let bench = Bench::own(&["autovacuum = on"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    // Faults among them: hung up, garbage, errors, 202 and questions.
    bench.agent.plan(|request| match (request.method.as_str(), request.number % 10) {
        ("POST", 1) => Reply::Close,
        ("POST", 3) => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"sta".to_vec()),
        ("POST", 5) => Reply::Json(422, serde_json::json!({"status": "failed"})),
        ("POST", 7) => Reply::Accepted,
        _ => Reply::succeeded(),
    });
    let (warm, span) = (Duration::from_secs(rounds(3, 60) as u64), Duration::from_secs(rounds(4, 120) as u64));
    let pid = bench.worker();
    let warming = load(&bench, warm);
    let before = at_rest(&bench, pid);
    let asked = load(&bench, span);
    let after = at_rest(&bench, pid);
    assert_eq!(bench.worker(), pid);
    let growth = 100.0 * (after.memory as f64 - before.memory as f64) / before.memory as f64;
    figure(
        "R2",
        &format!(
            "{asked} runs in {} s with faults, after {warming}: own memory {} -> {} kB ({growth:.1} %), \
             descriptors {} -> {} (data files {} -> {}), threads {} -> {}, locks {} -> {}, our processes {} -> {}",
            span.as_secs(),
            before.memory,
            after.memory,
            before.descriptors,
            after.descriptors,
            before.files,
            after.files,
            before.threads,
            after.threads,
            before.locks,
            after.locks,
            before.slots,
            after.slots
        ),
    );
    // In a few seconds a page here or there would be a percentage.
    let slack = rounds(1024, 0) as f64;
    assert!(after.memory as f64 <= before.memory as f64 * 1.05 + slack, "{before:?} {after:?}");
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    assert_eq!((after.locks, after.slots), (before.locks, before.slots));
}

/// Answers of 1 MB, 64 at a time: the engine's thread frees them, and the C library would keep what they took.
#[test]
fn r2_the_memory_of_large_answers_is_given_back_at_rest() {
    let bench = Bench::own(&["dot_wrapper.poll_interval = 1"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none', max_response_bytes = 2097152 WHERE scope = 'engine'");
    let text = "x".repeat(1_000_000);
    let pid = bench.worker();
    load(&bench, Duration::from_secs(1));
    let before = at_rest(&bench, pid);
    bench.agent.plan(move |_| Reply::Json(200, serde_json::json!({"status": "succeeded", "result": {"text": text}})));
    bench.one::<i64>("SELECT count(fn_dot_run('DOT-1', 'apply')) FROM generate_series(1, 200)", NO_PARAMS);
    at_rest(&bench, pid);
    let after = until("the memory is given back", || {
        Some(holdings(&bench, pid).memory).filter(|memory| *memory <= before.memory + 32 * 1024)
    });
    println!("own memory {} -> {after} kB", before.memory);
}

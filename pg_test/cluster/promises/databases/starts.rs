//! O3: start-up failures back off to a 60 s ceiling and log at most 2 lines per minute per database.

use std::time::{Duration, Instant};

use crate::harness::{Bench, Cluster, figure, rounds, until};

/// How long a worker may take to come, once nothing is in its way.
const RECOVERY: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);

/// One thing that keeps the worker away, and what puts it right.
struct Fault {
    name: &'static str,
    conf: &'static [&'static str],
    /// Statements that keep it away, and that put it right; DATABASE stands for its name.
    spoil: &'static str,
    repair: &'static str,
}

const FAULTS: [Fault; 5] = [
    Fault {
        name: "missing extension",
        conf: &[],
        spoil: "SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper",
        repair: "CREATE EXTENSION dot_wrapper",
    },
    Fault {
        name: "NOLOGIN role",
        conf: &[],
        spoil: "ALTER ROLE dot_wrapper_worker NOLOGIN",
        repair: "ALTER ROLE dot_wrapper_worker LOGIN",
    },
    Fault {
        name: "missing role",
        conf: &[],
        spoil: "ALTER ROLE dot_wrapper_worker RENAME TO elsewhere",
        repair: "ALTER ROLE elsewhere RENAME TO dot_wrapper_worker",
    },
    Fault {
        name: "role without CONNECT",
        conf: &[],
        spoil: "REVOKE CONNECT ON DATABASE DATABASE FROM PUBLIC",
        repair: "GRANT CONNECT ON DATABASE DATABASE TO dot_wrapper_worker",
    },
    // The launcher takes one, the logical replication launcher another.
    Fault {
        name: "no worker slot",
        conf: &["max_worker_processes = 3"],
        spoil: "CREATE EXTENSION IF NOT EXISTS dot_wrapper",
        repair: "SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper",
    },
];

/// What came of one fault.
struct Seen {
    name: &'static str,
    /// Lines of ours, or about our processes, in the worst minute.
    lines: Vec<String>,
    recovery: Duration,
}

/// Lines of the log that our worker's troubles make, past the first `from` bytes.
fn lines(bench: &Bench, from: usize) -> Vec<String> {
    let log = bench.cluster.log();
    let ours = |line: &&str| {
        line.contains("dot_wrapper")
            && !line.contains("administrator command")
            && !line.contains("the newest seal of database")
            && !line.contains("STATEMENT")
            // What follows of a statement of several lines.
            && !line.starts_with('\t')
            && !line.contains("statement:")
    };
    log.get(from..).unwrap_or_default().lines().filter(ours).map(str::to_owned).collect()
}

/// The most lines that any whole minute of the span had; a shorter span counts as one minute.
/// The first one begins where the trouble does.
fn worst_minute(bench: &Bench, mut from: usize, span: Duration) -> Vec<String> {
    let end = Instant::now() + span;
    let mut worst = Vec::new();
    while Instant::now() < end {
        std::thread::sleep(MINUTE.min(end.saturating_duration_since(Instant::now())));
        let found = lines(bench, from);
        if found.len() > worst.len() {
            worst = found;
        }
        from = bench.cluster.log().len();
    }
    worst
}

fn see(fault: &Fault, span: Duration) -> Seen {
    let bench = Bench::own(fault.conf);
    let of = |sql: &str, name: &str| sql.replace("DATABASE DATABASE", &format!("DATABASE {name}"));
    // Where slots are short, another database has the last one.
    let short = !fault.conf.is_empty();
    bench.drain();
    let from = bench.cluster.log().len();
    let second = short.then(|| {
        let second = Bench::empty(bench.cluster.clone());
        second.exec(fault.spoil);
        second
    });
    let spoilt = second.as_ref().unwrap_or(&bench);
    if !short {
        spoilt.exec(&of(fault.spoil, &spoilt.name));
        let old = spoilt.worker_now();
        if let Some(old) = old {
            spoilt.exec(&format!("SELECT pg_terminate_backend({old})"));
            until("the worker has gone", || (spoilt.worker_now() != Some(old)).then_some(()));
        }
    }
    let lines = worst_minute(spoilt, from, span);
    assert_eq!(spoilt.worker_now(), None, "{}", fault.name);
    if short {
        bench.exec(fault.repair)
    } else {
        spoilt.exec(&of(fault.repair, &spoilt.name))
    }
    let started = Instant::now();
    while spoilt.worker_now().is_none() && started.elapsed() <= RECOVERY {
        std::thread::sleep(Duration::from_millis(10));
    }
    Seen { name: fault.name, lines, recovery: started.elapsed() }
}

#[test]
fn o3_a_worker_that_cannot_start_is_quiet_and_comes_back() {
    let span = Duration::from_secs(rounds(3, 600) as u64);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        // From PostgreSQL 17 on a background worker needs no LOGIN.
        let version: i32 =
            Bench::empty(Cluster::shared()).one("SELECT current_setting('server_version_num')::int", &[]);
        let applies = |fault: &&Fault| fault.name != "NOLOGIN role" || version < 170_000;
        let threads: Vec<_> =
            FAULTS.iter().filter(applies).map(|fault| scope.spawn(move || see(fault, span))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let shown: Vec<String> = seen
        .iter()
        .map(|seen| {
            format!(
                "{}: {} lines in the worst minute, back in {} ms",
                seen.name,
                seen.lines.len(),
                seen.recovery.as_millis()
            )
        })
        .collect();
    figure("O3", &format!("{} s of each; {}", span.as_secs(), shown.join("; ")));
    for seen in &seen {
        assert!(seen.lines.len() <= 2, "{}: {:#?}", seen.name, seen.lines);
        assert!(seen.recovery <= RECOVERY, "{}: {:?}", seen.name, seen.recovery);
    }
}

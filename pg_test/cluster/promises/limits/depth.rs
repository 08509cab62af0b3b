//! How many runs may wait: exact for one session, close for many, cheap to refuse, and nobody shut out.

use std::time::{Duration, Instant};

use super::{bench, flood, percentile, waiting};
use crate::harness::run::Ask;
use crate::harness::{Bench, figure, rounds};

/// Nothing is sent, so that what is admitted stays.
fn dammed(limit: usize) -> Bench {
    let bench = bench("");
    bench.exec("SELECT fn_dot_breaker('agent', 'open', 'nothing is to go')");
    bench.look();
    bench.exec(&format!("ALTER DATABASE {} SET dot_wrapper.max_queued = {limit}", bench.name));
    bench.forget_session();
    bench
}

#[test]
fn promise_r1_the_queue_has_a_limit_that_refuses_and_does_not_fail() {
    let bench = dammed(100);
    bench.exec("INSERT INTO dot_wrapper.policy (scope, name, max_queued) VALUES ('tool', 'DOT-2', 7)");
    assert_eq!(flood(&bench, "DOT-2", 20), 7);
    assert_eq!(flood(&bench, "DOT-1", 150), 93);
    let refused = bench.apply("DOT-1");
    assert_eq!((refused.status(), refused.reason()), ("refused", "queue_full"));
    assert_eq!(bench.block(&refused, "request"), ("queue".into(), "queue_full".into()));
    assert_eq!(bench.ask(&Ask::new("DOT-1", "plan")).gate("queue").unwrap()["verdict"], "BLOCK");
    assert_eq!(waiting(&bench), 100);
    // The same transaction sees what it has put in, and a savepoint's rollback gives it back.
    bench.exec("SELECT fn_dot_cancel(run_id, 'room') FROM dot_wrapper.dot_queue LIMIT 10");
    bench.exec("BEGIN; SAVEPOINT s; SELECT fn_dot_run('DOT-1', 'apply') FROM generate_series(1, 5); ROLLBACK TO s");
    assert_eq!(flood(&bench, "DOT-1", 30), 10);
    bench.exec("COMMIT");
    // Who has little in a full queue is still let in: a sixteenth.
    let other = bench.role("other");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {other}"));
    let mut session = bench.connect_as(&other);
    let admitted =
        |code| (0..10).filter(|_| Ask::new(code, "apply").on(&mut session).unwrap().status() == "queued").count();
    assert_eq!([("DOT-3"), ("DOT-4")].map(admitted), [6, 0]);
    figure("R1-depth", "limits of 100 and 7 are exact; another role's sixteenth is kept");
}

#[test]
fn promise_r1_many_sessions_exceed_the_limit_by_no_more_than_they_have_open() {
    let (sessions, limit) = (8, 60);
    let bench = dammed(limit);
    let ask = |bench: &Bench| {
        let mut session = bench.connect();
        (0..40).filter(|_| Ask::new("DOT-1", "apply").on(&mut session).unwrap().status() == "queued").count()
    };
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions).map(|_| scope.spawn(|| ask(&bench))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(waiting(&bench), i64::try_from(admitted).unwrap());
    assert!((limit..limit + sessions).contains(&admitted), "{admitted}");
    // An open transaction makes nobody wait.
    let mut open = bench.connect();
    open.batch_execute("BEGIN; SELECT fn_dot_run('DOT-1', 'apply')").unwrap();
    bench.exec("SET lock_timeout = 1; SELECT fn_dot_run('DOT-1', 'apply')");
    open.batch_execute("ROLLBACK").unwrap();
    figure("R1-depth-many", &format!("{sessions} sessions, limit {limit}: {admitted} admitted"));
}

#[test]
fn promise_r1_a_refusal_costs_less_than_an_admission() {
    let limit = rounds(1_000, 100_000);
    let bench = dammed(limit);
    assert_eq!(flood(&bench, "DOT-1", limit - 300), i64::try_from(limit - 300).unwrap());
    bench.exec("ANALYZE dot_wrapper.dot_queue");
    let mut session = bench.connect();
    let mut time = |count: usize, status: &str| -> Vec<Duration> {
        let one = |_| {
            let begun = Instant::now();
            assert_eq!(Ask::new("DOT-1", "apply").on(&mut session).unwrap().status(), status);
            begun.elapsed()
        };
        (0..count).map(one).collect()
    };
    let (admitted, refused) = (time(300, "queued"), time(300, "refused"));
    let sum = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() * 1000.0 / 300.0;
    let (dear, cheap) = (sum(&admitted), sum(&refused));
    // A figure, and a guard against the gross: the two are measured one after the other on a machine that does other things.
    assert!(cheap < 2.0 * dear, "refused {cheap:.2} ms, admitted {dear:.2} ms");
    figure(
        "R1-refusal",
        &format!(
            "at a depth of {limit}: refused {cheap:.2} ms (p95 {:.2}), admitted {dear:.2} ms (p95 {:.2})",
            percentile(refused, 95).as_secs_f64() * 1000.0,
            percentile(admitted, 95).as_secs_f64() * 1000.0
        ),
    );
}

//! L4: when a holder is killed, its lease is there for others within its TTL and two seconds, and nobody inherits it.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::{Bench, Reply, Run, figure, rounds, until};

/// What is left of the lease's time when its holder is killed: nobody should have to wait for a real one.
const LEFT: Duration = Duration::from_secs(1);

/// Kills the worker while it is out with a call, and takes the lease as soon as it can be had. The run that took it,
/// and how long that took from the end of the lease on.
fn taken_over(bench: &Bench, first: &Run) -> (Run, Duration) {
    bench.kill(bench.worker());
    let sql =
        format!("UPDATE dot_iu_runtime_lease SET expires_at = clock_timestamp() + interval '{} ms'", LEFT.as_millis());
    let started = Instant::now();
    bench.exec(&sql);
    assert_eq!(bench.apply("DOT-1").reason(), "lease_held", "it is not over yet");
    let second = until("the lease can be had", || Some(bench.apply("DOT-1")).filter(|run| run.status() == "queued"));
    assert!(second.token() > first.token(), "{} {}", second.token(), first.token());
    (second, started.elapsed().saturating_sub(LEFT))
}

#[test]
fn l4_the_lease_of_a_killed_worker_is_free_in_time_and_nobody_inherits_it() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let (cycles, mut slowest, mut requests) = (rounds(3, 100), Duration::ZERO, 0);
    for cycle in 0..cycles {
        bench.exec(&format!("UPDATE dot_wrapper.policy SET idempotent = {} WHERE name = 'agent_api'", cycle % 2 == 1));
        let first = bench.apply("DOT-1");
        requests += 1;
        bench.agent.wait_for(requests);
        bench.until(&first, "running");
        // No worker comes back before the lease is over, which it would go on keeping.
        bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
        let (second, waited) = taken_over(&bench, &first);
        slowest = slowest.max(waited);
        assert!(waited <= Duration::from_secs(2), "cycle {cycle}: {waited:?} after its end");

        bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
        let came = until("the second one is sent", || {
            let all = bench.agent.requests();
            all.iter().any(|request| request.run_id() == Some(second.id())).then_some(all)
        });
        // The one that was interrupted is not sent beside it, under whatever name.
        let since: Vec<Option<Uuid>> = came[requests..].iter().map(|request| request.run_id()).collect();
        assert_eq!(since, [Some(second.id())], "cycle {cycle}");
        let interrupted = bench.run(first.id());
        assert!(["in_doubt", "queued", "refused"].contains(&interrupted.status()), "{interrupted:?}");
        bench.agent.release(&came[requests], Reply::succeeded());
        bench.until(&second, "succeeded");
        requests += 1;
        // Out of the way of the next cycle, whatever became of it.
        bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE state = 'queued'");
    }
    let (attempts, workers): (i64, i64) = {
        let mut session = bench.session();
        let row =
            session.query_one("SELECT count(*), count(DISTINCT worker) FROM dot_wrapper.dot_run_attempt", &[]).unwrap();
        (row.get(0), row.get(1))
    };
    // Each cycle's second run is sent by the worker that takes the next cycle's first.
    assert_eq!((attempts, workers), (2 * cycles as i64, cycles as i64 + 1), "no worker has the name of another");
    figure(
        "L4",
        &format!("{cycles} workers killed: lease free at most {} ms after its end, 0 inherited", slowest.as_millis()),
    );
}

//! L4: when a holder is killed, its lease is there for others within its TTL and two seconds, and nobody inherits it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Request, Run, figure, rounds, until};

/// What is left of the lease's time when its holder is killed: nobody should have to wait for a real one.
const LEFT: Duration = Duration::from_secs(1);

/// Kills the worker while it is out with a call, and takes the lease as soon as it can be had. The run that took it,
/// and how long that took from the end of the lease on.
fn taken_over(bench: &Bench, first: &Run, ask: &Ask<'_>) -> (Run, Duration) {
    bench.kill(bench.worker());
    let sql = "UPDATE dot_iu_runtime_lease SET expires_at = clock_timestamp() + $1 * interval '1 ms' WHERE holder = 'dot_run:' || $2::text";
    let started = Instant::now();
    let (left, id) = (LEFT.as_millis() as f64, first.id().to_string());
    assert_eq!(bench.session().execute(sql, &[&left, &id]).unwrap(), 1, "its lease is there");
    assert_eq!(bench.ask(ask).reason(), "lease_held", "it is not over yet");
    let second = until("the lease can be had", || Some(bench.ask(ask)).filter(|run| run.status() == "queued"));
    assert!(second.token() > first.token(), "{} {}", second.token(), first.token());
    (second, started.elapsed().saturating_sub(LEFT))
}

/// The request of a run that the agent has, as soon as it has it.
fn request_of(bench: &Bench, run: &Run) -> Request {
    until("it is sent", || bench.agent.requests().into_iter().find(|request| request.run_id() == Some(run.id())))
}

/// One holder's end. How long others waited for the lease after its end.
fn cycle(bench: &Bench, number: usize) -> Duration {
    let idempotent = number % 2 == 1;
    bench.exec(&format!("UPDATE dot_wrapper.policy SET idempotent = {idempotent} WHERE name = 'agent_api'"));
    let ask = Ask { args: json!({"n": number}), ..Ask::new("DOT-1", "apply") };
    let first = bench.ask(&ask);
    request_of(bench, &first);
    // No worker comes back before the lease is over, which it would go on keeping.
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    let (second, waited) = taken_over(bench, &first, &ask);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    let request = request_of(bench, &second);
    assert_eq!(request.body["fencing_token"], second.token());
    // While the second one is out, the interrupted one is not, under whatever name.
    let again = |request: &Request| request.run_id() == Some(first.id()) && request.body["attempt"] != 1;
    assert!(!bench.agent.requests().iter().any(again), "cycle {number}");
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&second, "succeeded");
    // It is in doubt, or sent again afterwards, under a token of its own.
    until("the interrupted one has come to rest", || {
        ["succeeded", "in_doubt"].contains(&bench.run(first.id()).status()).then_some(())
    });
    for request in bench.agent.requests().iter().filter(|request| again(request)) {
        assert!(idempotent && request.body["fencing_token"].as_i64() > Some(second.token()), "{request:?}");
    }
    waited
}

#[test]
fn l4_the_lease_of_a_killed_worker_is_free_in_time_and_nobody_inherits_it() {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'n:{args.n}', retry_base_ms = 1 WHERE name = 'agent_api'");
    bench.agent.plan(|request| if request.body["attempt"] == 1 { Reply::Hold } else { Reply::succeeded() });
    let cycles = rounds(3, 100);
    let slowest = (0..cycles).map(|number| cycle(&bench, number)).max().unwrap();
    assert!(slowest <= Duration::from_secs(2), "{slowest:?} after its end");
    let names = "SELECT count(DISTINCT worker) FROM dot_wrapper.dot_run_attempt";
    // Each cycle's second run is sent by the worker that takes the next cycle's first.
    assert_eq!(bench.one::<i64>(names, &[]), cycles as i64 + 1, "no worker has the name of another");
    figure(
        "L4",
        &format!("{cycles} workers killed: lease free at most {} ms after its end, 0 inherited", slowest.as_millis()),
    );
}

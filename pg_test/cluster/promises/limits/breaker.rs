//! The circuit breaker: an agent that does not answer is left alone, and asked by one run whether it is back.

use std::time::{Duration, Instant};

use super::bench;
use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, figure, until};

/// Opens after three failures, for a second at first.
fn fragile() -> Bench {
    let bench = bench("");
    bench.exec("UPDATE dot_wrapper.endpoint SET breaker_failures = 3, breaker_pause_s = 1");
    bench
}

fn shown(bench: &Bench, column: &str) -> String {
    bench.one(&format!("SELECT ({column})::text FROM dot_breaker WHERE endpoint = 'agent'"), &[])
}

/// Three runs that the agent hangs up on, and the breaker that opens by it.
fn break_it(bench: &Bench) {
    bench.agent.reply(Reply::Close);
    for _ in 0..3 {
        bench.until(&bench.apply("DOT-1"), "in_doubt");
    }
    until("it is open", || (shown(bench, "state") != "closed").then_some(()));
}

#[test]
fn promise_r1_a_breaker_opens_tries_with_one_run_doubles_and_closes() {
    let bench = fragile();
    break_it(&bench);
    assert_eq!((shown(&bench, "failures"), bench.agent.count()), ("3".into(), 3));
    assert!(shown(&bench, "says").contains("connection_lost"), "{}", shown(&bench, "says"));
    bench.agent.reply(Reply::Hold);
    // Runs are admitted and wait, and are told so; so are plans.
    let waiting: Vec<_> = (0..5).map(|_| bench.apply("DOT-2")).collect();
    let warned = waiting[0].gate("breaker").expect("a warning").clone();
    assert_eq!((&warned["verdict"], &warned["reason"]), (&"WARN".into(), &"breaker_open".into()), "{warned}");
    assert_eq!(bench.ask(&Ask::new("DOT-1", "plan")).gate("breaker").unwrap()["reason"], "breaker_open");
    // Its time over, one run tries, and no other while that is out.
    let trial = bench.agent.wait_for(4).pop().unwrap();
    holds("there is one trial", Duration::from_millis(700), || bench.agent.count() == 4);
    assert_eq!(shown(&bench, "state"), "half_open");
    let failed = Instant::now();
    bench.agent.release(&trial, Reply::Json(500, "".into()));
    let trial = bench.agent.wait_for(5).pop().unwrap();
    let pause = failed.elapsed();
    assert!(pause >= Duration::from_millis(1_990), "twice as long: {pause:?}");
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&trial, Reply::succeeded());
    for run in waiting.iter().filter(|run| Some(run.id()) != bench.agent.requests()[3].run_id()) {
        bench.until(run, "succeeded");
    }
    assert_eq!((shown(&bench, "state"), shown(&bench, "failures")), ("closed".into(), "0".into()));
    assert_eq!(bench.apply("DOT-1").gate("breaker"), None);
    figure(
        "R1-breaker",
        &format!(
            "open after 3 failures; 1 trial; second pause {:.1} s of 2; then 4 of 4 waiting runs succeeded",
            pause.as_secs_f64()
        ),
    );
}

#[test]
fn promise_r1_a_breaker_survives_the_worker_and_obeys_operators() {
    let bench = fragile();
    bench.exec("UPDATE dot_wrapper.endpoint SET breaker_pause_s = 600");
    break_it(&bench);
    bench.agent.reply(Reply::succeeded());
    let run = bench.apply("DOT-2");
    bench.kill(bench.worker());
    bench.look();
    let quiet = |what: &str| holds(what, Duration::from_millis(300), || bench.agent.count() == 3);
    quiet("a new worker leaves the agent alone");
    // What an operator says is there at once, in SQL, and counts for the worker.
    let order = |state: &str| {
        let sql = "SELECT state || ' ' || forced FROM fn_dot_breaker('agent', $1, 'a test')";
        bench.one::<String>(sql, &[&state])
    };
    assert_eq!(order("closed"), "closed false");
    bench.until(&run, "succeeded");
    assert_eq!(order("open"), "open true");
    bench.look();
    let run = bench.apply("DOT-2");
    assert_eq!(run.gate("breaker").unwrap()["reason"], "breaker_open");
    bench.kill(bench.worker());
    bench.look();
    holds("an order outlives the worker", Duration::from_millis(300), || bench.agent.count() == 4);
    assert_eq!(order("auto"), "half_open false");
    bench.until(&run, "succeeded");
    assert_eq!(shown(&bench, "state"), "closed");
    // An order is followed once: what happens afterwards counts.
    break_it(&bench);
    let notes: i64 = bench.one("SELECT count(*) FROM dot_wrapper.breaker_order WHERE ordered_by = 'postgres'", &[]);
    assert_eq!(notes, 3);
    figure(
        "R1-breaker-orders",
        "open by failures and by order across 2 killed workers: 0 requests; closed and auto followed",
    );
}

/// An operator's transaction that stays open holds up nothing.
#[test]
fn promise_r1_an_order_that_is_not_committed_holds_up_no_result() {
    let bench = fragile();
    let mut other = bench.connect();
    other.batch_execute("BEGIN; SELECT fn_dot_breaker('agent', 'open', 'thinking')").unwrap();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.agent.reply(Reply::Json(500, "".into()));
    bench.until(&bench.verify("DOT-2"), "queued");
    until("failures are counted meanwhile", || (shown(&bench, "failures") != "0").then_some(()));
    other.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn promise_r1_what_an_agent_asks_for_is_asked_of_all_its_runs() {
    let bench = bench("");
    bench.exec("UPDATE dot_wrapper.endpoint SET breaker_failures = 1");
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
    bench.agent.plan(move |request| match request.number {
        0 => Reply::Bytes(busy.as_bytes().to_vec()),
        _ => Reply::succeeded(),
    });
    let first = bench.apply("DOT-1");
    until("it asks for a pause", || (!shown(&bench, "paused_until IS NULL").starts_with('t')).then_some(()));
    let begun = Instant::now();
    let second = bench.apply("DOT-2");
    assert_eq!(second.gate("breaker").unwrap()["reason"], "endpoint_paused");
    bench.until(&second, "succeeded");
    let pause = begun.elapsed();
    assert!(pause > Duration::from_millis(1_500), "{pause:?}");
    bench.until(&first, "succeeded");
    assert_eq!((shown(&bench, "state"), shown(&bench, "failures")), ("closed".into(), "0".into()), "no failure");
    figure("R1-retry-after", &format!("Retry-After: 2 kept from another run for {:.1} s", pause.as_secs_f64()));
}

//! A1 to A3: what is sent again, with which key, how often, and what never is.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Request, Run, figure, rounds, until};

/// Quick repetitions, no leases; `extra` sets more columns of the policy.
fn bench(extra: &str) -> Bench {
    let bench = Bench::own(&[]);
    set(&bench, &format!("lease = 'none', retry_base_ms = 20, retry_max_ms = 200{extra}"));
    bench
}

fn set(bench: &Bench, columns: &str) {
    bench.exec(&format!("UPDATE dot_wrapper.policy SET {columns} WHERE name = 'agent_api'"));
}

/// Runs whose calls are out when the worker is killed.
fn killed_in_the_middle(bench: &Bench, runs: usize) -> Vec<Run> {
    let before = bench.agent.count();
    bench.agent.reply(Reply::Hold);
    let runs: Vec<Run> = (0..runs).map(|_| bench.apply("DOT-1")).collect();
    bench.agent.wait_for(before + runs.len());
    bench.agent.reply(Reply::succeeded());
    bench.kill(bench.worker());
    runs
}

fn of<'a>(requests: &'a [Request], run: &Run) -> Vec<&'a Request> {
    requests.iter().filter(|request| request.run_id() == Some(run.id())).collect()
}

/// What must be the same in every delivery of a run.
fn identity(request: &Request) -> Value {
    let mut body = request.body.clone();
    for of_the_delivery in ["attempt", "deadline", "fencing_token"] {
        body.as_object_mut().unwrap().remove(of_the_delivery);
    }
    json!([request.header("idempotency-key"), request.path, body])
}

#[test]
fn promise_a1_what_is_not_idempotent_is_sent_once_and_then_in_doubt() {
    let bench = bench("");
    let (cycles, each) = (rounds(3, 60), 5);
    let mut runs = Vec::new();
    for _ in 0..cycles {
        for run in killed_in_the_middle(&bench, each) {
            assert_eq!(bench.until(&run, "in_doubt").reason(), "worker_lost");
            runs.push(run);
        }
    }
    bench.drain();
    let requests = bench.agent.requests();
    assert!(runs.iter().all(|run| of(&requests, run).len() == 1), "sent twice");
    figure("A1", &format!("{cycles} crashes under {} calls: {} in doubt, 0 sent twice", runs.len(), runs.len()));
}

#[test]
fn promise_a2_what_is_idempotent_is_sent_until_it_is_known_with_one_key_and_one_body() {
    let bench = bench(", idempotent = true");
    let (cycles, each) = (rounds(3, 60), 5);
    let (mut runs, mut most) = (0, 0);
    for _ in 0..cycles {
        for run in killed_in_the_middle(&bench, each) {
            bench.until(&run, "succeeded");
            let requests = bench.agent.requests();
            let deliveries = of(&requests, &run);
            let identities: HashSet<String> = deliveries.iter().map(|r| identity(r).to_string()).collect();
            assert_eq!(identities.len(), 1, "{deliveries:?}");
            let attempts: Vec<_> = deliveries.iter().map(|r| r.body["attempt"].as_i64().unwrap()).collect();
            assert_eq!(attempts, (1..).take(attempts.len()).collect::<Vec<i64>>());
            most = most.max(attempts.len());
            runs += 1;
        }
    }
    assert!(most <= 5);
    figure(
        "A2",
        &format!(
            "{cycles} crashes under {runs} calls: all succeeded, one key and body each, {most} deliveries at most"
        ),
    );
}

#[test]
fn promise_a2_nothing_is_sent_after_the_keys_window() {
    let bench = bench(
        ", idempotent = true, max_attempts = 100, connect_timeout_ms = 100, total_timeout_ms = 400, key_window_s = 2",
    );
    bench.agent.reply(Reply::Close);
    let run = bench.apply("DOT-1");
    let first = Instant::now();
    // Whichever says so first: the end of a delivery, or the second gate of the next.
    let reason = bench.until(&run, "in_doubt").reason().to_owned();
    assert!(["connection_lost", "key_window_passed"].contains(&reason.as_str()), "{reason}");
    assert!(first.elapsed() < Duration::from_secs(4));
    let sent = bench.agent.count();
    assert!(sent >= 3, "{sent}");
    let window = "SELECT max(intent_at) - min(intent_at) < '1.6 s' FROM dot_wrapper.dot_run_attempt WHERE run_id = $1";
    assert!(bench.one::<bool>(window, &[&run.id()]), "the last delivery could have arrived too late");
    holds("nothing more is sent", Duration::from_secs(1), || bench.agent.count() == sent);
}

/// What an agent does at first, and what that makes of an apply, not idempotent and idempotent, and of a verify:
/// how many deliveries, and the state. The second delivery always succeeds.
fn answers() -> Vec<(Reply, [(usize, &'static str); 3])> {
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let busy = format!("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\n{json}\r\n{{}}");
    let date = format!("HTTP/1.1 503 Busy\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n{json}\r\n{{}}");
    let (again, doubt, failed) = ((2, "succeeded"), (1, "in_doubt"), (1, "failed"));
    vec![
        (Reply::Json(429, json!({})), [again; 3]),
        (Reply::Json(408, json!({})), [again; 3]),
        (Reply::Json(425, json!({})), [again; 3]),
        (Reply::Bytes(busy.into_bytes()), [again; 3]),
        (Reply::Bytes(date.into_bytes()), [again; 3]),
        (Reply::Json(503, json!({})), [doubt, again, again]),
        (Reply::Json(500, json!({})), [doubt, again, again]),
        (Reply::Json(502, json!({"message": "x"})), [doubt, again, again]),
        (Reply::Close, [doubt, again, again]),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), [doubt, again, again]),
        (Reply::Json(200, json!({"status": "odd"})), [doubt, again, again]),
        (Reply::Json(500, json!({"status": "failed"})), [failed; 3]),
        (Reply::Json(503, json!({"status": "refused"})), [failed; 3]),
        (Reply::Json(404, json!({})), [failed; 3]),
        (Reply::Json(409, json!({})), [failed; 3]),
        (Reply::Json(422, json!({"status": "refused"})), [failed; 3]),
    ]
}

#[test]
fn promise_a3_every_answer_is_repeated_or_not_as_the_table_says() {
    let bench = bench("");
    let mut checked = 0;
    for (reply, expected) in answers() {
        for (column, (deliveries, status)) in expected.into_iter().enumerate() {
            set(&bench, &format!("idempotent = {}", column == 1));
            let first = reply.clone();
            bench
                .agent
                .plan(move |request| if request.body["attempt"] == 1 { first.clone() } else { Reply::succeeded() });
            let mode = if column == 2 { "verify" } else { "apply" };
            let run = bench.ask(&Ask::new("DOT-1", mode));
            bench.until(&run, status);
            let requests = bench.agent.requests();
            assert_eq!(of(&requests, &run).len(), deliveries, "{mode}, idempotent {}: {reply:?}", column == 1);
            checked += 1;
        }
    }
    figure(
        "A3",
        &format!(
            "{checked} of {checked} answers and modes end as the table says; the engine's cuts are in its unit tests"
        ),
    );
}

#[test]
fn promise_a3_what_was_never_sent_is_tried_again_for_every_tool() {
    let bench = bench(", max_attempts = 100");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = dead.local_addr().unwrap().port();
    drop(dead);
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
         UPDATE dot_wrapper.endpoint SET base_url = 'http://127.0.0.1:{port}', breaker_failures = 0 WHERE name = 'agent'"
    ));
    let run = bench.apply("DOT-1");
    until("it was tried three times", || (bench.run(run.id()).0["attempts"].as_i64() >= Some(3)).then_some(()));
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = Request::read(&mut stream).unwrap();
        Reply::succeeded().write(&request, &mut stream).unwrap();
    });
    bench.until(&run, "succeeded");
    serve.join().unwrap();
}

#[test]
fn retry_after_is_waited_for() {
    let bench = bench("");
    bench.agent.plan(|request| match request.body["attempt"].as_i64() {
        Some(1) => Reply::Bytes(b"HTTP/1.1 429 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n".to_vec()),
        _ => Reply::succeeded(),
    });
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    let waited = "SELECT max(intent_at) - min(intent_at) BETWEEN '2 s' AND '10 s' FROM dot_wrapper.dot_run_attempt WHERE run_id = $1";
    assert!(bench.one::<bool>(waited, &[&run.id()]));
}

#[test]
fn a_delivery_that_waited_for_too_long_is_withheld_when_the_toggle_is_off() {
    let bench = bench("");
    let points = bench.cluster.fail_points(&["claim_after_commit=wait(DOT-1)"]);
    let run = bench.apply("DOT-1");
    points.wait_for(1);
    bench.exec("UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'");
    std::thread::sleep(Duration::from_millis(1100)); // the leave that the claim gave lasts for 0.9 s
    drop(points);
    let ended = bench.until(&run, "refused");
    assert_eq!(ended.reason(), "toggle_off");
    assert_eq!(bench.events(&run), ["queued", "running", "queued", "refused"]);
    assert_eq!(bench.agent.count(), 0, "sent although the toggle was off");
}

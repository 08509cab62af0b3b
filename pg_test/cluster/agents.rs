//! Agents that misbehave: each ends its run with a short reason, and the worker lives on.
//!
//! Does not live here: what an answer means, case by case, which the engine's own tests know.

use serde_json::{Value, json};

use crate::harness::bench::TOOLS;
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Run, until};

/// A success with this result, as text that need not be JSON.
fn with_result(result: &str) -> Reply {
    let body = format!(r#"{{"status":"succeeded","result":{result}}}"#);
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

fn bytes(text: &str) -> Reply {
    Reply::Bytes(text.as_bytes().to_vec())
}

/// What an agent does, and the state and reason that follow for an apply: whoever says 2xx has done something, and
/// where nobody can read what, the run is in doubt.
fn faults() -> Vec<(Reply, &'static str, &'static str)> {
    let json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let page = "<html><body>It works!</body></html>";
    vec![
        (bytes(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}")), "in_doubt", "bad_content_type"),
        (bytes(&format!("{json}\r\n{page}")), "in_doubt", "bad_answer"),
        (bytes(&format!("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n{page}")), "in_doubt", "http_502"),
        (Reply::Json(200, json!(["succeeded"])), "in_doubt", "bad_answer"),
        (Reply::Json(200, json!({"status": "done"})), "in_doubt", "bad_answer"),
        (Reply::Json(200, json!({})), "in_doubt", "bad_answer"),
        (with_result(&"[".repeat(200_000)), "in_doubt", "bad_answer"),
        (with_result("\"\u{1}\""), "in_doubt", "bad_answer"),
        (
            Reply::Flood("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n"),
            "in_doubt",
            "answer_too_large",
        ),
        (Reply::Flood("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"), "in_doubt", "answer_too_large"),
        (Reply::Flood("HTTP/1.1 503 No\r\nContent-Type: application/json\r\n\r\n"), "in_doubt", "http_503"),
        (Reply::Flood("HTTP/1.1 200 OK\r\nX-Endless: "), "in_doubt", "connection_lost"),
        (Reply::Close, "in_doubt", "connection_lost"),
        (bytes("\0\0\0\0"), "in_doubt", "connection_lost"),
        (bytes("SSH-2.0-OpenSSH_9.2\r\n"), "in_doubt", "connection_lost"),
        (bytes("HTTP/1.1 200 OK\r\nContent-Le"), "in_doubt", "connection_lost"),
        (bytes(&format!("{json}Content-Length: 100\r\n\r\n{{\"status\":\"succ")), "in_doubt", "answer_incomplete"),
        (bytes(&format!("{json}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"sta")), "in_doubt", "answer_incomplete"),
        (
            Reply::Stall(format!("{json}Content-Length: 100\r\n\r\n{{\"status\":").into_bytes()),
            "in_doubt",
            "answer_incomplete",
        ),
        (Reply::Stall(b"HTTP/1.1 200 OK\r\n".to_vec()), "in_doubt", "timeout"),
        (Reply::Hold, "in_doubt", "timeout"),
        (bytes("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"), "in_doubt", "accepted_without_location"),
        (bytes("HTTP/1.1 202 Accepted\r\nLocation: http://127.0.0.2:1/\r\n\r\n"), "in_doubt", "bad_status_location"),
    ]
}

/// Short, on one line, and without what the agent has sent.
#[track_caller]
fn explained(run: &Run) {
    let message = run.text("message");
    assert!(!message.is_empty() && message.chars().count() <= 300, "{message}");
    assert!(!message.contains(['\n', '\r', '\0']) && !message.contains("<html>"), "{message}");
}

#[test]
fn every_fault_of_an_agent_ends_its_run_and_not_the_worker() {
    let bench = Bench::shared();
    bench.exec(
        "UPDATE dot_wrapper.policy SET lease = 'none', total_timeout_ms = 1500, idle_timeout_ms = 500
         WHERE name = 'agent_api'",
    );
    let worker = bench.worker();
    let mut sent = 0;
    for (reply, status, reason) in faults() {
        let shown = format!("{reply:?}").chars().take(100).collect::<String>();
        bench.agent.reply(reply);
        let run = bench.apply("DOT-1");
        let ended = until("the run is over or in doubt", || {
            Some(bench.run(run.id())).filter(|run| !["queued", "running"].contains(&run.status()))
        });
        assert_eq!((ended.status(), ended.reason()), (status, reason), "after {shown}: {}", ended.text("message"));
        explained(&ended);
        sent += 1;
        assert_eq!(bench.agent.count(), sent, "one fault, one request");
    }
    bench.drain();
    assert_eq!(bench.worker(), worker, "the same worker");
}

#[test]
fn an_endless_redirect_is_not_followed_once() {
    let bench = Bench::shared();
    bench.agent.plan(|request| {
        let path = &request.path;
        Reply::Bytes(format!("HTTP/1.1 307 X\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    let run = bench.until(&bench.apply("DOT-1"), "failed");
    assert_eq!(run.reason(), "redirect_refused");
    explained(&run);
    bench.drain();
    assert_eq!(bench.agent.count(), 1);
}

/// Results that JSON can hold and PostgreSQL cannot, or not easily.
#[test]
fn a_result_that_cannot_be_stored_does_not_hold_up_the_run() {
    let bench = Bench::shared();
    let worker = bench.worker();
    let results = [
        "\"a\\u0000b\"",
        "{\"a\\u0000b\": 1}",
        "\"\\ud83d\\ude00\"",
        "123456789012345678901234567890.000000000000000000000000000001",
        "1e400000",
        "-1e-400000",
        &format!("\"{}\"", "x".repeat(900_000)),
        &format!("{}1{}", "[".repeat(120), "]".repeat(120)),
    ];
    for (n, result) in results.into_iter().enumerate() {
        bench.agent.reply(with_result(result));
        let run = bench.until(&bench.apply(TOOLS[n % TOOLS.len()]), "succeeded");
        let stored = &run.0["result"];
        assert!(!stored.to_string().contains('\0'), "{stored}");
    }
    let kept: Vec<Value> =
        bench.all("SELECT result FROM dot_wrapper.dot_run WHERE result IS NOT NULL ORDER BY run_id", &[]);
    assert_eq!(kept[2], json!("\u{1f600}"));
    assert_eq!(kept[3].to_string(), "123456789012345678901234567890.000000000000000000000000000001");
    assert_eq!(bench.worker(), worker, "the same worker");
}

/// One agent that does not answer is no reason for the others to wait.
#[test]
fn a_silent_agent_does_not_hold_up_the_others() {
    let bench = Bench::shared();
    bench.agent.plan(|request| if request.field("dot_code") == "DOT-1" { Reply::Hold } else { Reply::succeeded() });
    let silent = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    for code in &TOOLS[1..] {
        bench.until(&bench.ask(&Ask::new(code, "verify")), "succeeded");
    }
    assert_eq!(bench.run(silent.id()).status(), "running");
    let held = bench.agent.requests().remove(0);
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&silent, "succeeded");
}

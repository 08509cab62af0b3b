//! Asking by key: one question, and only what the agent itself can have said is believed.

use std::time::Duration;

use super::server::{Server, json, wait_for_close};
use super::{Call, Finding, Rig, TempDir, call, call_at, rule, short};
use crate::domain::answer::Verdict;
use crate::domain::secret::MASK;
use crate::engine::Config;

const AT: &str = "/v1/runs/00000000-0000-0000-0000-000000000007";
const UNKNOWN: &str = r#"{"status":"unknown"}"#;

fn asked(bytes: impl Into<Vec<u8>>) -> Finding {
    let server = Server::saying(bytes);
    let finding = Rig::new().inquire(call(server.port), AT);
    let lines: Vec<_> = server.requests().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(lines, [format!("GET {AT} HTTP/1.1")], "one question and nothing else");
    assert_eq!(server.connections(), 1);
    finding
}

#[test]
fn an_answer_of_the_contract_is_the_end() {
    for (status, body, verdict, reason) in [
        ("200 OK", r#"{"status":"succeeded","result":{"n":1}}"#, Verdict::Succeeded, "ok"),
        ("201 Created", r#"{"status":"failed","error":"no"}"#, Verdict::Failed, "agent_failed"),
        ("200 OK", r#"{"status":"refused"}"#, Verdict::Refused, "agent_refused"),
    ] {
        let Finding::Ended(answer) = asked(json(status, "", body)) else { panic!("an end") };
        assert_eq!((answer.verdict, answer.reason.as_str()), (verdict, reason));
        assert!(answer.remote.is_some() && answer.http_status.is_some() && answer.elapsed > Duration::ZERO);
        assert_eq!(answer.result.is_some(), verdict == Verdict::Succeeded);
    }
}

#[test]
fn work_under_way_is_told_with_its_time() {
    for (status, body) in [("202 Accepted", ""), ("200 OK", r#"{"status":"running"}"#)] {
        let finding = asked(json(status, "Retry-After: 7\r\n", body));
        assert!(
            matches!(finding, Finding::Running { retry_after: Some(wait) } if wait == Duration::from_secs(7)),
            "{finding:?}"
        );
    }
}

#[test]
fn only_the_agents_own_word_says_that_a_key_was_never_seen() {
    assert!(matches!(asked(json("404 Not Found", "", UNKNOWN)), Finding::NeverSeen));
    let typed = |kind: &str| {
        format!("HTTP/1.1 404 No\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{UNKNOWN}", UNKNOWN.len())
    };
    for bytes in [
        json("404 Not Found", "", ""),
        json("404 Not Found", "", "{}"),
        json("404 Not Found", "", r#"{"status":"failed"}"#),
        json("404 Not Found", "", r#"{"status":"not found"}"#),
        json("404 Not Found", "", r#"{"status":["unknown"]}"#),
        json("404 Not Found", "", r#"[{"status":"unknown"}]"#),
        json("404 Not Found", "Content-Encoding: gzip\r\n", UNKNOWN),
        "HTTP/1.1 404 No\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"status\":\"unknown\"}"
            .into(),
        typed("text/html"),
        json("410 Gone", "", UNKNOWN),
        json("200 OK", "", UNKNOWN),
        json("500 Oops", "", UNKNOWN),
    ] {
        let finding = asked(bytes.clone());
        assert!(matches!(finding, Finding::NoAnswer { .. }), "{bytes}: {finding:?}");
    }
}

#[test]
fn anything_else_teaches_nothing() {
    for (bytes, shown, wait) in [
        (json("503 Busy", "Retry-After: 3\r\n", ""), "HTTP 503", Some(3)),
        (json("429 Slow", "Retry-After: 2\r\n", r#"{"error":"easy"}"#), "HTTP 429: easy", Some(2)),
        (json("409 Conflict", "", r#"{"status":"failed"}"#), "HTTP 409", None),
        (json("500 Oops", "", r#"{"status":"succeeded"}"#), "HTTP 500", None),
        (json("200 OK", "", "[]"), "not a JSON object", None),
        (json("302 Found", "Location: /t\r\n", ""), "redirects are not followed", None),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{".into(), "middle", None),
        (String::new(), "did not answer", None),
    ] {
        let Finding::NoAnswer { message, retry_after } = asked(bytes) else { panic!("nothing learned: {shown}") };
        assert!(message.contains(shown), "{message}");
        assert_eq!(retry_after, wait.map(Duration::from_secs));
    }
    let silent = Server::start(|_, _, stream| wait_for_close(stream));
    let finding = Rig::new().inquire(short(silent.port, Duration::from_millis(300)), AT);
    assert!(matches!(&finding, Finding::NoAnswer { message, .. } if message.contains("in time")), "{finding:?}");
}

#[test]
fn a_question_that_may_not_be_asked_is_not_asked() {
    let server = Server::saying(json("404 Not Found", "", UNKNOWN));
    let elsewhere = format!("http://localhost:{}{AT}", server.port);
    let mut call = call(server.port);
    call.egress = std::sync::Arc::new(crate::domain::egress::Rules(vec![
        rule("http", "127.0.0.1", server.port, "/v1/dots", &["127.0.0.0/8"]),
        rule("http", "localhost", server.port, "/", &["127.0.0.0/8"]),
    ]));
    for (at, why) in [(elsewhere.as_str(), "origin"), (AT, "not allowed")] {
        let Finding::NoAnswer { message, .. } = Rig::new().inquire(call.clone(), at) else { panic!("not asked") };
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(server.connections(), 0);
}

fn with_secret(port: u16) -> Call {
    let rules = vec![rule("http", "127.0.0.1", port, "/", &["127.0.0.0/8"])];
    call_at(&format!("http://127.0.0.1:{port}"), Some("agent_token"), rules)
}

#[test]
fn a_question_carries_the_secret_and_its_echo_is_masked() {
    let dir = TempDir::holding("agent_token", b"s3cr3t");
    let rig = Rig::with(Config { secrets_dir: Some(dir.0.clone()), ..Config::default() });
    let body = r#"{"status":"failed","message":"no s3cr3t","result":["s3cr3t"]}"#;
    for bytes in [json("200 OK", "", body), json("500 Oops", "", body)] {
        let server = Server::saying(bytes);
        let finding = format!("{:?}", rig.inquire(with_secret(server.port), AT));
        assert!(!finding.contains("s3cr3t") && finding.contains(MASK), "{finding}");
        let seen = server.requests();
        assert_eq!(seen[0].header("authorization"), ["Bearer s3cr3t"]);
        assert!(seen[0].header("idempotency-key").is_empty() && seen[0].body.is_empty());
    }
    let server = Server::saying(json("404 Not Found", "", UNKNOWN));
    let finding = Rig::new().inquire(with_secret(server.port), AT);
    assert!(matches!(&finding, Finding::NoAnswer { message, .. } if message.contains("agent_token")), "{finding:?}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_question_needs_no_permission_and_is_not_waited_for_as_unsent() {
    let server = Server::start(|_, _, stream| wait_for_close(stream));
    let rig = Rig::new();
    rig.engine.allow_until(std::time::Instant::now());
    let mut question = call(server.port);
    question.errand = crate::engine::Errand::Inquire(question.request.http().unwrap().url.join(AT).unwrap());
    rig.engine.submit(question);
    assert_eq!((rig.engine.in_flight(), rig.engine.unsent()), (1, 0));
    let answered = Server::saying(json("404 Not Found", "", UNKNOWN));
    let mut other = call(answered.port);
    other.attempt = 2;
    assert!(matches!(rig.inquire(other, AT), Finding::NeverSeen));
}

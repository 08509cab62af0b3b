//! What an answer of each kind becomes.

use std::time::Duration;

use serde_json::json as value;

use super::server::{Server, json};
use super::{CAP, Rig, assert_end, call};
use crate::domain::answer::{Answer, Reach, Verdict};

fn answer_to(bytes: impl Into<Vec<u8>>) -> Answer {
    let server = Server::saying(bytes);
    let answer = Rig::new().run(call(server.port));
    assert_eq!((server.requests().len(), server.connections()), (1, 1), "one delivery is one request");
    answer
}

fn typed(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_success_is_told_with_all_that_the_ledger_keeps() {
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded","result":{"n":3},"observations":["a"]}"#));
    let answer = Rig::new().run(call(server.port));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!((answer.result, answer.observations), (Some(value!({"n": 3})), Some(value!(["a"]))));
    assert_eq!(answer.http_status, Some(200));
    assert_eq!(answer.remote, Some(([127, 0, 0, 1], server.port).into()));
    assert_eq!(answer.bytes, 60);
    assert!(answer.elapsed > Duration::ZERO && answer.elapsed < Duration::from_secs(20));
}

#[test]
fn the_request_on_the_wire_is_the_one_that_was_planned() {
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    let call = call(server.port);
    let planned = call.request.masked();
    Rig::new().run(call);
    let [seen] = &server.requests()[..] else { panic!("one request") };
    assert_eq!(seen.line, "POST /v1/dots/DOT-KG-017/runs HTTP/1.1");
    for name in ["content-type", "accept", "idempotency-key", "traceparent"] {
        assert_eq!(seen.header(name), [planned["headers"][name].as_str().unwrap()], "{name}");
    }
    assert_eq!(serde_json::from_str::<serde_json::Value>(&seen.body).unwrap(), planned["body"]);
    assert_eq!(seen.header("user-agent"), [concat!("dot_wrapper/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(seen.header("host"), [format!("127.0.0.1:{}", server.port)]);
    let mut names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let known = ["accept", "content-length", "content-type", "host", "idempotency-key", "traceparent", "user-agent"];
    assert_eq!(names, known, "nothing else, accept-encoding and cookies above all");
}

#[test]
fn what_the_agent_says_is_what_it_becomes() {
    for (status, body, verdict, reason, message) in [
        ("200 OK", r#"{"status":"succeeded","message":"done\nwell"}"#, Verdict::Succeeded, "ok", "done well"),
        ("201 Created", r#"{"status":"succeeded"}"#, Verdict::Succeeded, "ok", "the agent succeeded"),
        ("200 OK", r#"{"status":"failed","error":"boom"}"#, Verdict::Failed, "agent_failed", "boom"),
        ("200 OK", r#"{"status":"refused"}"#, Verdict::Refused, "agent_refused", "the agent refused"),
        ("409 Conflict", r#"{"status":"refused","message":"stale"}"#, Verdict::Refused, "http_409", "HTTP 409: stale"),
        ("409 Conflict", r#"{"message":"stale token"}"#, Verdict::None, "http_409", "HTTP 409: stale token"),
        ("422 No", "not json", Verdict::None, "http_422", "HTTP 422"),
        ("400 Bad", r#"{"status":"refused","result":1}"#, Verdict::Refused, "http_400", "HTTP 400"),
        ("500 Oops", r#"{"status":"failed","error":"boom"}"#, Verdict::Failed, "http_500", "HTTP 500: boom"),
        ("500 Oops", r#"{"status":"succeeded"}"#, Verdict::None, "http_500", "HTTP 500"),
        ("404 Not Found", r#"{"status":"unknown"}"#, Verdict::None, "http_404", "HTTP 404"),
        ("404 Not Found", r#"{"error":{"deep":1}}"#, Verdict::None, "http_404", "HTTP 404"),
        ("401 Unauthorized", "", Verdict::None, "http_401", "HTTP 401"),
        ("500 Oops", r#"{"error":"\u0007bell"}"#, Verdict::None, "http_500", "HTTP 500:  bell"),
        ("204 No Content", "", Verdict::None, "http_204", "HTTP 204"),
    ] {
        let answer = answer_to(json(status, "", body));
        assert_end(&answer, Reach::Answered, verdict, reason);
        assert_eq!(answer.message, message, "{status}");
        assert_eq!(answer.http_status, status[..3].parse().ok());
    }
}

#[test]
fn a_refusal_may_carry_findings_and_findings_may_have_any_shape() {
    let answer = answer_to(json("409 Conflict", "", r#"{"result":{"newest":6},"observations":{"a":1}}"#));
    assert_eq!((answer.result, answer.observations), (Some(value!({"newest": 6})), Some(value!([{"a": 1}]))));
    let answer = answer_to(json("200 OK", "", r#"{"status":"succeeded","result":null,"observations":null}"#));
    assert_eq!((answer.result, answer.observations), (None, None));
}

#[test]
fn a_long_message_is_cut() {
    let body = format!(r#"{{"status":"failed","message":"{}"}}"#, "é".repeat(5000));
    assert_eq!(answer_to(json("200 OK", "", &body)).message, "é".repeat(200));
}

#[test]
fn an_error_keeps_what_it_says_about_retrying() {
    for (status, extra, reason, wait) in [
        ("503 Busy", "Retry-After: 7\r\n", "http_503", Some(7)),
        ("429 Slow", "Retry-After: 1\r\n", "http_429", Some(1)),
        ("408 Late", "", "http_408", None),
    ] {
        let server = Server::saying(json(status, extra, ""));
        let rig = Rig::new();
        assert_end(&rig.run(call(server.port)), Reach::Answered, Verdict::None, reason);
        assert_eq!(*rig.retry_after.borrow(), wait.map(Duration::from_secs));
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn an_answer_outside_of_the_contract_is_told_apart() {
    let ok = r#"{"status":"succeeded"}"#;
    let deep = format!(r#"{{"status":"succeeded","result":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (bytes, reason) in [
        (typed("text/html", "<html>"), "bad_content_type"),
        (typed("text/plain", ok), "bad_content_type"),
        (typed("application/json", "<html>"), "bad_answer"),
        (typed("application/json", ""), "bad_answer"),
        (typed("application/json", "[]"), "bad_answer"),
        (typed("application/json", "{}"), "bad_answer"),
        (typed("application/json", r#"{"status":"great"}"#), "bad_answer"),
        (typed("application/json", r#"{"status":7}"#), "bad_answer"),
        (typed("application/json", r#"{"status":"succeeded"#), "bad_answer"),
        (typed("application/json", r#"{"status":"succeeded","result":"\ud800"}"#), "bad_answer"),
        (typed("application/json", &deep), "bad_answer"),
        (json("200 OK", "Content-Encoding: gzip\r\n", ok), "bad_content_encoding"),
        ("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".into(), "redirect_refused"),
        ("HTTP/1.1 307 Again\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".into(), "redirect_refused"),
    ] {
        assert_end(&answer_to(bytes), Reach::Answered, Verdict::None, reason);
    }
}

#[test]
fn a_number_that_no_float_can_hold_is_kept_digit_by_digit() {
    for number in ["1e+999", "12345678901234567890.123456789"] {
        let answer = answer_to(typed("application/json", &format!(r#"{{"status":"succeeded","result":{number}}}"#)));
        assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
        assert_eq!(answer.result.map(|result| result.to_string()).as_deref(), Some(number));
    }
}

#[test]
fn json_by_another_name_is_json() {
    let body = r#"{"status":"succeeded"}"#;
    for kind in ["application/json; charset=utf-8", "application/vnd.dot+json"] {
        assert_end(&answer_to(typed(kind, body)), Reach::Answered, Verdict::Succeeded, "ok");
    }
    let answer = answer_to(json("200 OK", "Content-Encoding: identity\r\n", body));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
}

#[test]
fn a_nul_cannot_reach_jsonb() {
    let answer = answer_to(json("200 OK", "", r#"{"status":"succeeded","result":{"k\u0000":"v\u0000"}}"#));
    assert_eq!(answer.result, Some(value!({"k\u{fffd}": "v\u{fffd}"})));
}

#[test]
fn the_largest_answer_is_read_and_one_byte_more_is_not() {
    let frame = r#"{"status":"succeeded","result":""}"#.len() as u64;
    for (length, reason) in [(CAP - frame, "ok"), (CAP - frame + 1, "answer_too_large")] {
        let text = "x".repeat(usize::try_from(length).unwrap());
        let answer = answer_to(json("200 OK", "", &format!(r#"{{"status":"succeeded","result":"{text}"}}"#)));
        assert_eq!(answer.reason, reason);
        assert_eq!(answer.reach, Reach::Answered);
    }
}

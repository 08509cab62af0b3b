//! 202 and what follows it.

use std::io::Write;
use std::time::Duration;

use serde_json::json as value;
use url::Url;

use super::server::{Server, json};
use super::{Rig, assert_end, call, call_at, rule};
use crate::domain::answer::{Reach, Verdict};
use crate::engine::Errand;

const NOW: &str = "Retry-After: 0\r\n";
const DONE: &str = r#"{"status":"succeeded","result":{"n":1}}"#;
const RUNNING: &str = r#"{"status":"running"}"#;

/// Answers the requests in order, the last answer again and again.
fn script(answers: Vec<String>) -> Server {
    Server::start(move |number, _, stream| {
        let _ = stream.write_all(answers[number.min(answers.len() - 1)].as_bytes());
    })
}

fn accepted(location: &str) -> String {
    json("202 Accepted", &format!("Location: {location}\r\n{NOW}"), "")
}

fn lines(server: &Server) -> Vec<String> {
    server.requests().iter().map(|seen| seen.line.trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

#[test]
fn accepted_work_is_asked_after_until_it_ends() {
    let running = [json("202 Accepted", NOW, ""), json("200 OK", NOW, RUNNING), json("202 Accepted", NOW, RUNNING)];
    let server =
        script([vec![accepted("../../status/7?x=1#part")], running.to_vec(), vec![json("200 OK", "", DONE)]].concat());
    let rig = Rig::new();
    let answer = rig.run(call(server.port));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!(answer.result, Some(value!({"n": 1})));
    let get = "GET /v1/status/7?x=1";
    assert_eq!(lines(&server), ["POST /v1/dots/DOT-KG-017/runs", get, get, get, get]);
    let url = format!("http://127.0.0.1:{}/v1/status/7?x=1", server.port);
    assert_eq!(rig.accepted.borrow()[..], [Url::parse(&url).unwrap()]);
    let seen = server.requests();
    assert_eq!(seen[1].header("traceparent"), seen[0].header("traceparent"));
    assert!(seen[1].header("idempotency-key").is_empty() && seen[1].body.is_empty());
}

#[test]
fn a_body_that_says_running_is_an_acceptance_as_well() {
    let first = json("200 OK", &format!("Location: /s\r\n{NOW}"), RUNNING);
    let server = script(vec![first, json("200 OK", "", r#"{"status":"failed","error":"no"}"#)]);
    let rig = Rig::new();
    assert_end(&rig.run(call(server.port)), Reach::Answered, Verdict::Failed, "agent_failed");
    assert_eq!(rig.accepted.borrow().len(), 1);
}

#[test]
fn questions_that_fail_are_asked_again() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{";
    let server = script(vec![
        accepted("/s"),
        String::new(),
        cut.into(),
        json("503 Busy", NOW, ""),
        json("429 Slow", NOW, ""),
        json("408 Late", NOW, ""),
        json("200 OK", "", DONE),
    ]);
    let answer = Rig::new().run(call(server.port));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!(server.requests().len(), 7);
}

#[test]
fn a_question_without_an_answer_does_not_eat_the_whole_delivery() {
    let server = Server::start(|number, _, stream| match number {
        0 => drop(stream.write_all(accepted("/s").as_bytes())),
        1 => super::server::wait_for_close(stream),
        _ => drop(stream.write_all(json("200 OK", "", DONE).as_bytes())),
    });
    let mut call = call(server.port);
    call.limits.connect = Duration::from_millis(100);
    call.limits.idle = Duration::from_millis(100);
    assert_end(&Rig::new().run(call), Reach::Answered, Verdict::Succeeded, "ok");
}

#[test]
fn what_a_status_url_says_outside_of_the_contract_says_nothing_about_the_work() {
    for (bytes, reason) in [
        (json("404 Not Found", "", ""), "http_404"),
        (json("409 Conflict", "", r#"{"result":1}"#), "http_409"),
        (json("200 OK", "", "[]"), "bad_answer"),
        (json("302 Found", "Location: /t\r\n", ""), "redirect_refused"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n".into(), "bad_content_type"),
        (json("200 OK", "", &" ".repeat(70_000)), "answer_too_large"),
    ] {
        let server = script(vec![accepted("/s"), bytes]);
        let answer = Rig::new().run(call(server.port));
        assert_end(&answer, Reach::Sent, Verdict::None, reason);
        assert_eq!(answer.result, None);
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn work_that_does_not_end_is_a_timeout() {
    let server = script(vec![accepted("/s"), json("202 Accepted", NOW, "")]);
    let mut call = call(server.port);
    call.limits.total = Duration::from_millis(500);
    let answer = Rig::new().run(call);
    assert_end(&answer, Reach::Sent, Verdict::None, "timeout");
    assert_eq!(answer.http_status, Some(202));
    assert!(server.requests().len() >= 2 && server.requests().len() <= 6, "a pause of 0 is 100 ms");
}

#[test]
fn a_status_url_elsewhere_is_not_asked() {
    for location in ["http://127.0.0.1:1/s", "https://127.0.0.1/s", "//localhost/s", "/admin", "http://[", "ftp://x/"] {
        let server = script(vec![accepted(location)]);
        let mut call = call(server.port);
        call.egress = std::sync::Arc::new(crate::domain::egress::Rules(vec![
            rule("http", "127.0.0.1", server.port, "/v1", &["127.0.0.0/8"]),
            rule("http", "127.0.0.1", 1, "/", &["127.0.0.0/8"]),
            rule("http", "localhost", 80, "/", &["127.0.0.0/8"]),
        ]));
        let rig = Rig::new();
        assert_end(&rig.run(call), Reach::Sent, Verdict::None, "bad_status_location");
        assert!(rig.accepted.borrow().is_empty());
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn an_acceptance_without_a_place_to_ask_is_unknown() {
    for bytes in [json("202 Accepted", NOW, ""), json("200 OK", "", RUNNING)] {
        let server = script(vec![bytes]);
        assert_end(&Rig::new().run(call(server.port)), Reach::Sent, Verdict::None, "accepted_without_location");
    }
}

#[test]
fn resuming_asks_and_does_not_send() {
    let server = script(vec![json("202 Accepted", NOW, ""), json("200 OK", "", DONE)]);
    let mut call = call(server.port);
    call.errand = Errand::Follow(call.request.http().unwrap().url.join("/s").unwrap());
    let rig = Rig::new();
    assert_end(&rig.run(call), Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!(lines(&server), ["GET /s", "GET /s"]);
    assert!(rig.accepted.borrow().is_empty());
}

#[test]
fn resuming_never_claims_that_nothing_was_sent() {
    let rules = || vec![rule("http", "127.0.0.1", 1, "/v1", &["127.0.0.0/8"])];
    for (secret, url, reason) in [
        (None, "http://127.0.0.1:2/s", "bad_status_location"),
        (None, "http://127.0.0.1:1/s", "bad_status_location"),
        (Some("no_such"), "http://127.0.0.1:1/v1", "secret_missing"),
        (None, "http://127.0.0.1:1/v1", "timeout"),
    ] {
        let mut call = call_at("http://127.0.0.1:1", secret, rules());
        call.limits.total = Duration::from_millis(300);
        call.errand = Errand::Follow(Url::parse(url).unwrap());
        assert_end(&Rig::new().run(call), Reach::Sent, Verdict::None, reason);
    }
}

//! Secrets: where they come from, and that they never come back.

use std::fs;
use std::path::Path;

use super::network::in_child;
use super::server::{Server, json};
use super::{Call, Config, Rig, TempDir, assert_end, call, call_at, rule};
use crate::domain::answer::{Reach, Verdict};
use crate::domain::secret::MASK;

const VALUE: &str = "s3cr3t/\"value\"";

fn holding(value: &[u8]) -> TempDir {
    TempDir::holding("agent_token", value)
}

fn rig(dir: &TempDir) -> Rig {
    Rig::with(Config { secrets_dir: Some(dir.0.clone()), ..Config::default() })
}

fn with_secret(port: u16) -> Call {
    let rules = vec![rule("http", "127.0.0.1", port, "/", &["127.0.0.0/8"])];
    call_at(&format!("http://127.0.0.1:{port}"), Some("agent_token"), rules)
}

#[test]
fn the_value_is_read_for_every_delivery_and_sent_in_its_header() {
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    let dir = holding(b"first\r\n");
    let rig = rig(&dir);
    rig.run(with_secret(server.port));
    fs::write(dir.0.join("agent_token"), "second").unwrap();
    rig.run(with_secret(server.port));
    rig.run(call(server.port));
    let seen: Vec<_> = server.requests().iter().map(|seen| seen.header("authorization").join("|")).collect();
    assert_eq!(seen, ["Bearer first", "Bearer second", ""]);
}

#[test]
fn an_echo_is_masked_wherever_it_stands() {
    let echo = serde_json::to_string(VALUE).unwrap();
    let body = format!(
        r#"{{"status":"failed","message":{echo},"result":{{{echo}:[{echo},"Bearer s3cr3t\/\u0022value\u0022"]}},
            "observations":[{{"header":{echo}}}]}}"#
    );
    let server = Server::saying(json("200 OK", "", &body));
    let answer = rig(&holding(VALUE.as_bytes())).run(with_secret(server.port));
    assert_eq!(server.requests()[0].header("authorization"), [format!("Bearer {VALUE}")]);
    assert_end(&answer, Reach::Answered, Verdict::Failed, "agent_failed");
    let all = format!("{answer:?}");
    assert!(!all.contains("s3cr3t"), "{all}");
    assert_eq!(answer.message, MASK);
    assert_eq!(answer.result.unwrap()[MASK][1], format!("Bearer {MASK}"));
}

#[test]
fn an_echo_in_an_error_or_a_header_is_masked() {
    let body = format!(r#"{{"error":"{}s3cr3t"}}"#, "x".repeat(198));
    for bytes in [
        json("500 Oops", "", r#"{"error":"bad token s3cr3t"}"#),
        json("500 Oops", "", &body),
        "HTTP/1.1 200 OK\r\nContent-Type: s3cr3t\r\nContent-Length: 0\r\n\r\n".into(),
        json("200 OK", "Content-Encoding: s3cr3t\r\n", "{}"),
        json("202 Accepted", "Location: /s?token=s3cr3t\r\n", ""),
        json("202 Accepted", "Location: /s?token=%73%33cr3t\r\n", ""),
    ] {
        let server = Server::saying(bytes);
        let dir = holding(b"s3cr3t");
        let rig = rig(&dir);
        let answer = rig.run(with_secret(server.port));
        assert!(!format!("{answer:?}").contains("s3c"), "{answer:?}");
        assert!(rig.accepted.borrow().is_empty());
    }
}

#[test]
fn without_a_usable_secret_nothing_is_sent() {
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    let directory = TempDir::new();
    fs::create_dir(directory.0.join("agent_token")).unwrap();
    for (dir, reason, hint) in [
        (TempDir::new(), "secret_missing", "no such file"),
        (directory, "secret_missing", "not a regular file"),
        (holding(b"\n"), "secret_missing", "empty"),
        (holding(&[b'x'; 65 * 1024]), "secret_missing", "64 KiB"),
        (holding(b"\xff\xfe"), "secret_missing", "UTF-8"),
        (holding(b"one\r\nInjected: two"), "secret_unusable", "cannot carry"),
    ] {
        let answer = rig(&dir).run(with_secret(server.port));
        assert_end(&answer, Reach::NotSent, Verdict::None, reason);
        assert!(answer.message.contains("\"agent_token\"") && answer.message.contains(hint), "{}", answer.message);
        assert!(!answer.message.contains("Injected") && !answer.message.contains("DOT_SECRET_AGENT_TOKEN="));
    }
    assert_end(&Rig::new().run(with_secret(server.port)), Reach::NotSent, Verdict::None, "secret_missing");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_link_to_a_file_is_a_file() {
    let (kept, dir) = (holding(b"linked"), TempDir::new());
    std::os::unix::fs::symlink(kept.0.join("agent_token"), dir.0.join("agent_token")).unwrap();
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    rig(&dir).run(with_secret(server.port));
    assert_eq!(server.requests()[0].header("authorization"), ["Bearer linked"]);
}

#[test]
fn another_directory_counts_for_the_next_call() {
    let (first, second) = (holding(b"first"), holding(b"second"));
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    let rig = rig(&first);
    rig.run(with_secret(server.port));
    rig.engine.reconfigure(Config { secrets_dir: Some(second.0.clone()), ..Config::default() });
    rig.run(with_secret(server.port));
    let seen: Vec<_> = server.requests().iter().map(|seen| seen.header("authorization").join("|")).collect();
    assert_eq!(seen, ["Bearer first", "Bearer second"]);
}

#[test]
fn the_environment_is_asked_when_there_is_no_file() {
    in_child("secrets::child_with_a_secret_in_its_environment", &[("DOT_SECRET_AGENT_TOKEN", "from-env")]);
}

#[test]
fn child_with_a_secret_in_its_environment() {
    if std::env::var_os("DOT_SECRET_AGENT_TOKEN").is_none() {
        return;
    }
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    Rig::with(Config { secrets_dir: Some(Path::new("/nonexistent").into()), ..Config::default() })
        .run(with_secret(server.port));
    rig(&holding(b"from-file")).run(with_secret(server.port));
    let seen: Vec<_> = server.requests().iter().map(|seen| seen.header("authorization").join("|")).collect();
    assert_eq!(seen, ["Bearer from-env", "Bearer from-file"]);
}

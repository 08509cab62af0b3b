//! Where a connection goes: names, literals, proxies.

use std::process::Command;

use super::server::{Server, json};
use super::{Call, Rig, assert_end, call, call_at, rule};
use crate::domain::answer::{Reach, Verdict};

const OK: &str = r#"{"status":"succeeded"}"#;

fn named(host: &str, port: u16, cidrs: &[&str]) -> Call {
    call_at(&format!("http://{host}:{port}"), None, vec![rule("http", host, port, "/", cidrs)])
}

/// Runs one test of this binary as a child with variables of its own; a test may not change its own environment.
pub fn in_child(test: &str, variables: &[(&str, &str)]) {
    let (_, module) = module_path!().split_once("::").unwrap();
    let name = format!("{}::{test}", module.trim_end_matches("::network"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_name_is_dialled_only_at_addresses_that_its_rule_allows() {
    let server = Server::saying(json("200 OK", "", OK));
    for (cidrs, reach, reason) in [
        (&[][..], Reach::NotSent, "address_denied"),
        (&["10.0.0.0/8"], Reach::NotSent, "address_denied"),
        (&["127.0.0.0/8"], Reach::Answered, "ok"),
    ] {
        let answer = Rig::new().run(named("localhost", server.port, cidrs));
        assert_eq!((answer.reach, answer.reason.as_str()), (reach, reason));
        assert!(!answer.message.contains("127.0.0.1") && !answer.message.contains("::1"), "{}", answer.message);
        assert_eq!(answer.remote.is_some(), reach == Reach::Answered);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_name_that_does_not_resolve_is_not_sent() {
    let answer = Rig::new().run(named("no-such-host.invalid", 80, &[]));
    assert_end(&answer, Reach::NotSent, Verdict::None, "dns_failed");
}

#[test]
fn the_rules_are_asked_again_before_dialling() {
    let server = Server::saying(json("200 OK", "", OK));
    let rig = Rig::new();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1"] {
        let normal = url::Url::parse(&format!("http://{host}")).unwrap().host_str().unwrap().to_owned();
        assert_end(&rig.run(named(&normal, server.port, &[])), Reach::NotSent, Verdict::None, "address_denied");
    }
    let mut unruled = call(server.port);
    unruled.egress = std::sync::Arc::default();
    assert_end(&rig.run(unruled), Reach::NotSent, Verdict::None, "no_egress_rule");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_rule_for_one_path_does_not_lend_its_addresses_to_another() {
    let server = Server::saying(json("200 OK", "", OK));
    let mut call = named("localhost", server.port, &["127.0.0.0/8"]);
    let rig = Rig::new();
    assert_end(&rig.run(call.clone()), Reach::Answered, Verdict::Succeeded, "ok");
    call.egress = std::sync::Arc::new(crate::domain::egress::Rules(vec![
        rule("http", "localhost", server.port, "/other", &["127.0.0.0/8"]),
        rule("http", "localhost", server.port, "/v1", &[]),
    ]));
    assert_end(&rig.run(call), Reach::NotSent, Verdict::None, "address_denied");
}

#[test]
fn proxies_in_the_environment_are_ignored() {
    let canary = Server::connections_to(|_| {});
    let proxy = format!("http://127.0.0.1:{}", canary.port);
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let variables: Vec<_> = names.iter().map(|name| (*name, proxy.as_str())).collect();
    in_child("network::child_that_sends_directly", &variables);
    assert_eq!(canary.connections(), 0);
}

#[test]
fn child_that_sends_directly() {
    let server = Server::saying(json("200 OK", "", OK));
    let answer = Rig::new().run(named("localhost", server.port, &["127.0.0.0/8"]));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
}

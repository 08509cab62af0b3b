//! T5: secrets go through every way in which a call can succeed or fail, with a server that tells everything; then they
//! are looked for wherever something can be read.

use std::path::Path;
use std::process::Command;

use crate::harness::canary::{self, IN_ENVIRONMENT, IN_FILE};
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Run, figure, os, until};

/// Where a server keeps what it can load; wheels bring no contrib modules.
fn has_module(name: &str) -> bool {
    let pkglibdir = os::run(Command::new(os::variable("DOT_TEST_PG_CONFIG")).arg("--pkglibdir"));
    Path::new(pkglibdir.trim()).join(format!("{name}.so")).exists()
}

/// A server that says all that it can, with the modules that make it say more, where there are such.
fn talkative() -> (Bench, Vec<&'static str>) {
    let modules: Vec<&str> =
        ["pg_stat_statements", "auto_explain"].into_iter().filter(|name| has_module(name)).collect();
    let preload = format!("shared_preload_libraries = '{}'", [&["dot_wrapper"], modules.as_slice()].concat().join(","));
    let mut conf = vec![preload.as_str(), "log_connections = on", "log_duration = on", "debug_print_plan = on"];
    if modules.contains(&"auto_explain") {
        conf.extend([
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_verbose = on",
        ]);
    }
    if modules.contains(&"pg_stat_statements") {
        conf.extend(["pg_stat_statements.track = all", "pg_stat_statements.track_utility = on"]);
    }
    let bench = canary::bench(&conf);
    // Not at its start: there PostgreSQL itself writes its whole environment to the log, from debug3 on.
    bench.cluster.set(&[("log_min_messages", "debug5")]);
    if modules.contains(&"pg_stat_statements") {
        bench.exec("CREATE EXTENSION pg_stat_statements");
    }
    (bench, modules)
}

/// Every row of every table and view that there is, as text. Those that cannot be read as they are, are counted.
fn everything(bench: &Bench) -> (String, usize) {
    let names: Vec<String> = bench.all(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'p', 'S', 't') ORDER BY 1",
        &[],
    );
    let mut session = bench.connect();
    let (mut text, mut read) = (String::new(), 0);
    for name in &names {
        if let Ok(rows) = session.simple_query(&format!("SELECT t::text FROM {name} t")) {
            read += 1;
            for row in rows {
                if let postgres::SimpleQueryMessage::Row(row) = row {
                    text += row.get(0).unwrap_or_default();
                }
            }
        }
    }
    assert!(read > 150 && text.contains("DOT-CANARY"), "{read} of {} relations", names.len());
    (text, read)
}

/// An apply, as soon as nobody is at it any more.
fn ended(bench: &Bench, code: &str) -> Run {
    let run = bench.apply(code);
    until("it is over or in doubt", || {
        Some(bench.run(run.id())).filter(|run| !["queued", "running"].contains(&run.status()))
    })
}

/// Ways to fail that no answer of an agent makes; each is undone.
fn misfortunes(bench: &Bench) -> usize {
    let unusable = |text: &str| bench.cluster.write_secret("file_token", text);
    let mut ways = 0;
    // Bad contents: control characters, several lines, bytes that are no header's, nothing at all, far too much.
    let many = format!("{IN_FILE}\n").repeat(3);
    let huge = format!("{IN_FILE}{}", "x".repeat(1 << 17));
    for content in [
        format!("{IN_FILE}\u{1}{IN_FILE}"),
        many,
        format!("{IN_FILE}\u{fc}"),
        format!("{IN_FILE}\r\nX-Evil: {IN_FILE}"),
        huge,
    ] {
        unusable(&content);
        let run = ended(bench, "DOT-1");
        assert!(!run.0.to_string().contains("canary"), "{run:?}");
        ways += 1;
    }
    unusable(&format!("{IN_FILE}\n"));
    // An agent that speaks no TLS, one that is not there, one at an address that no rule allows.
    let url: String = bench.one("SELECT base_url FROM dot_wrapper.endpoint WHERE name = 'agent'", &[]);
    let elsewhere = [url.replace("http:", "https:"), "http://127.0.0.1:1".to_owned(), "http://localhost:9".to_owned()];
    bench.exec("INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) SELECT 'https', host, port, cidrs FROM dot_wrapper.egress_rule;
                INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', 1, '{127.0.0.1/32}')");
    for other in elsewhere {
        bench.exec(&format!("UPDATE dot_wrapper.endpoint SET base_url = '{other}' WHERE name = 'agent'"));
        assert_ne!(ended(bench, "DOT-1").status(), "succeeded", "{other}");
        ways += 1;
    }
    bench.exec(&format!("UPDATE dot_wrapper.endpoint SET base_url = '{url}' WHERE name = 'agent'"));
    // What people do wrong: the secret where its name belongs, and in a call to something that does not take it.
    for sql in
        ["UPDATE dot_wrapper.endpoint SET auth_secret = 'Bearer abc/def=='", "SELECT fn_dot_run('DOT-1', 'nonsense')"]
    {
        bench.error(sql);
        ways += 1;
    }
    ways
}

#[test]
fn t5_canaries_are_found_nowhere() {
    let (bench, modules) = talkative();
    let mut ways = 0;
    for (code, secret) in [("DOT-1", IN_FILE), ("DOT-2", IN_ENVIRONMENT)] {
        for reply in canary::echoes(secret) {
            bench.agent.reply(reply);
            ended(&bench, code);
            ways += 1;
        }
    }
    bench.agent.reply(Reply::succeeded());
    ways += misfortunes(&bench);
    for code in ["DOT-1", "DOT-2"] {
        for mode in ["plan", "verify"] {
            let run = bench.ask(&Ask::new(code, mode));
            assert!(["planned", "queued"].contains(&run.status()), "{run:?}");
            ways += 1;
        }
    }
    bench.exec("SELECT fn_dot_doctor(); SELECT fn_dot_run_all()");
    bench.drain();
    let reached =
        bench.agent.requests().iter().filter(|request| canary::secret_of(request).starts_with("canary")).count();
    assert!(reached >= 30, "the agent is the one who got it: {reached}");
    assert_eq!(canary::shown(&bench), [""; 0]);
    let (text, relations) = everything(&bench);
    for secret in [IN_FILE, IN_ENVIRONMENT] {
        assert!(
            !text.contains(secret),
            "in a table or view: {:?}",
            text.find(secret).map(|at| &text[at.saturating_sub(200)..at + 50])
        );
    }
    assert!(ways >= 30);
    figure(
        "T5",
        &format!(
            "2 secrets, {ways} ways through success and failure, {relations} relations, dump, log at debug5, files, {modules:?}: 0 hits"
        ),
    );
}

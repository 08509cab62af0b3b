//! Invariant 10: secrets never enter a table, a log, a setting or an error.

use serde_json::{Value, json};

use crate::harness::bench::TOOLS;
use crate::harness::canary::{IN_ENVIRONMENT, IN_FILE, bench, echoes, secret_of, shown};

#[test]
fn invariant_10_secrets_reach_the_agent_and_nothing_else() {
    let bench = bench(&[]);
    assert_eq!(shown(&bench), [""; 0]);
    let mut calls = 0;
    for (code, secret) in [("DOT-1", IN_FILE), ("DOT-2", IN_ENVIRONMENT)] {
        for reply in echoes(secret) {
            bench.agent.reply(reply.clone());
            let run = bench.apply(code);
            crate::harness::until("the run is over or in doubt", || {
                let status = bench.run(run.id()).status().to_owned();
                (!["queued", "running"].contains(&status.as_str())).then_some(())
            });
            calls += 1;
            let request = bench.agent.wait_for(calls).pop().unwrap();
            assert_eq!(secret_of(&request), secret, "the agent is the one who gets it");
        }
    }
    let plan = bench.ask(&crate::harness::run::Ask::new("DOT-1", "plan"));
    assert_eq!(plan.0["request"]["headers"]["authorization"], "Bearer ********");
    assert_eq!(shown(&bench), [""; 0]);
    // The masking is not bought with silence: what surrounds a secret is kept.
    let kept: Value = bench.one("SELECT result FROM dot_wrapper.dot_run WHERE run_status = 'succeeded' LIMIT 1", &[]);
    assert_eq!((&kept["whole"], &kept["part"]), (&json!("********"), &json!("Bearer ********!")), "{kept}");
}

#[test]
fn invariant_10_secrets_that_cannot_be_used_are_not_shown_either() {
    let bench = bench(&[]);
    bench.cluster.write_secret("file_token", &format!("{IN_FILE}\u{1}{IN_FILE}"));
    let run = bench.until(&bench.apply("DOT-1"), "failed");
    assert_eq!(run.reason(), "secret_unusable");
    bench.exec("UPDATE dot_wrapper.endpoint SET auth_secret = 'no_such_secret' WHERE name = 'agent'");
    assert_eq!(bench.until(&bench.apply(TOOLS[2]), "failed").reason(), "secret_missing");
    // Where a secret itself is put into the configuration, the configuration does not take it.
    let error = bench.error("UPDATE dot_wrapper.endpoint SET auth_secret = 'Bearer abc/def=='");
    assert_eq!(error.code().code(), "23514");
    assert_eq!(shown(&bench), [""; 0]);
    assert_eq!(bench.agent.count(), 0);
}

#[test]
fn invariant_10_secrets_a_rotated_file_counts_for_the_next_call() {
    let bench = bench(&[]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.cluster.write_secret("file_token", "the-next-one");
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let seen: Vec<String> = bench.agent.requests().iter().map(secret_of).collect();
    assert_eq!(seen, [IN_FILE, "the-next-one"]);
}

//! Invariant 3: every decision is a row, refusals too; only misuse raises.

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply};

/// What is done first, what is asked, and the gate and reason that must refuse it.
const REFUSALS: [(&str, &str, &str, &str, &str); 9] = [
    ("", "DOT-NONE", "apply", "tool", "uncatalogued"),
    ("", "DOT-NONE", "plan", "tool", "uncatalogued"),
    ("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'", "DOT-1", "apply", "tool", "inactive"),
    (
        "INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-2', '{apply}')",
        "DOT-2",
        "verify",
        "mode",
        "mode_not_offered",
    ),
    (
        "UPDATE dot_tools SET execution_engine = 'mail' WHERE code = 'DOT-3'",
        "DOT-3",
        "apply",
        "engine",
        "engine_unsupported",
    ),
    (
        "INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('far', 'https://agent.example');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('tool', 'DOT-4', 'far')",
        "DOT-4",
        "apply",
        "egress",
        "no_egress_rule",
    ),
    ("", "DOT-5", "apply", "lease", "lease_held"),
    ("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'", "DOT-6", "verify", "guard", "guard_error"),
    (
        "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'",
        "DOT-6",
        "apply",
        "toggle",
        "toggle_off",
    ),
];

#[test]
fn invariant_03_every_decision_is_a_row_refusals_with_gate_inputs_and_verdict() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let holder = bench.apply("DOT-5");
    bench.agent.wait_for(1);
    for (first, code, mode, gate, reason) in REFUSALS {
        bench.exec(first);
        let run = bench.ask(&Ask { args: json!({"n": 1}), ..Ask::new(code, mode) });
        assert_eq!((run.status(), run.reason()), ("refused", reason), "{run:?}");
        assert!(!run.text("message").is_empty() && !run.text("finished_at").is_empty(), "{run:?}");
        assert_eq!(run.text("requested_by"), "postgres");
        let decision = run.gate(gate).unwrap_or_else(|| panic!("no decision of {gate}: {run:?}"));
        assert_eq!((&decision["verdict"], &decision["reason"]), (&json!("BLOCK"), &json!(reason)));
        assert!(decision["inputs"].is_object(), "{decision}");
        // What was returned is what is kept.
        assert_eq!(bench.run(run.id()), run);
        assert_eq!(bench.block(&run, "request"), (gate.to_owned(), reason.to_owned()));
        assert_eq!(bench.events(&run), ["refused"]);
        let queued: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_queue WHERE run_id = $1", &[&run.id()]);
        assert_eq!(queued, 0);
    }
    assert_eq!(bench.agent.requests().iter().map(|r| r.run_id()).collect::<Vec<_>>(), [Some(holder.id())]);
}

#[test]
fn invariant_03_every_decision_is_a_row_but_misuse_raises_and_leaves_none() {
    let bench = Bench::shared();
    for (arguments, state) in [
        ("NULL", "22004"),
        ("'DOT-1', NULL", "22004"),
        ("'DOT-1', 'destroy'", "22023"),
        ("'DOT-1', 'APPLY'", "22023"),
        ("''", "22023"),
        ("'DOT-1', 'apply', NULL, NULL", "22004"),
        ("'DOT-1', 'apply', NULL, '[]'", "22023"),
        ("'DOT-1', 'apply', NULL, '7'", "22023"),
    ] {
        let error = bench.error(&format!("SELECT fn_dot_run({arguments})"));
        assert_eq!(error.code().code(), state, "fn_dot_run({arguments}): {error:?}");
    }
    let role = bench.role("nobody");
    let error = Ask::new("DOT-1", "plan").on(&mut bench.connect_as(&role)).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error:?}");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM dot_wrapper.dot_run", &[]), 0);
}

//! Invariant 4: a gate that errors, a port that is unbound, a toggle that is missing: refused, at both gates.

use crate::harness::Bench;
use crate::harness::run::Ask;

const KEY: &str = "key = 'iu_core.operator_runtime_enabled'";
const TOGGLE: &str = "CREATE OR REPLACE FUNCTION fn_dot_iu_operator_runtime_enabled() RETURNS boolean LANGUAGE";
const GUARD: &str = "CREATE OR REPLACE FUNCTION fn_assert_safe_for_dot_action() RETURNS void LANGUAGE";
const ACQUIRE: &str = "CREATE OR REPLACE FUNCTION fn_dot_iu_runtime_lease_acquire(key text, holder text, ttl interval)
                       RETURNS timestamptz LANGUAGE";

/// Ways to break a gate, with the gate and the reason of the refusal.
fn breakages() -> Vec<(String, &'static str, &'static str)> {
    let drop = |function: &str| {
        format!(
            "SET dot_wrapper.allow_drop = on; ALTER EXTENSION dot_wrapper DROP FUNCTION {function}; DROP FUNCTION {function}"
        )
    };
    vec![
        (format!("DELETE FROM dot_config WHERE {KEY}"), "toggle", "toggle_off"),
        (format!("UPDATE dot_config SET value = NULL WHERE {KEY}"), "toggle", "toggle_off"),
        (format!("UPDATE dot_config SET value = '' WHERE {KEY}"), "toggle", "toggle_off"),
        (format!("UPDATE dot_config SET value = 'garbage' WHERE {KEY}"), "toggle", "toggle_off"),
        ("ALTER TABLE dot_config RENAME TO dot_config_old".into(), "toggle", "toggle_error"),
        (format!("{TOGGLE} sql AS 'SELECT NULL::boolean'"), "toggle", "toggle_invalid"),
        (format!("{TOGGLE} plpgsql AS 'BEGIN RAISE ''no''; END'"), "toggle", "toggle_error"),
        (format!("{TOGGLE} sql AS 'SELECT true WHERE 1 / 0 = 1'"), "toggle", "toggle_error"),
        (drop("fn_dot_iu_operator_runtime_enabled()"), "toggle", "toggle_unbound"),
        ("SELECT fn_dot_bind('toggle', NULL)".into(), "toggle", "toggle_unbound"),
        ("DELETE FROM dot_wrapper.port WHERE port = 'toggle'".into(), "toggle", "toggle_unbound"),
        (format!("{GUARD} plpgsql AS 'BEGIN RAISE ''no''; END'"), "guard", "guard_error"),
        (drop("fn_assert_safe_for_dot_action()"), "guard", "guard_unbound"),
        ("SELECT fn_dot_bind('guard', NULL)".into(), "guard", "guard_unbound"),
        ("UPDATE dot_config SET value = NULL WHERE key = 'fs_snapshot_present'".into(), "guard", "guard_error"),
        ("DELETE FROM dot_config WHERE key = 'fs_snapshot_present'".into(), "guard", "guard_error"),
        (format!("{ACQUIRE} plpgsql AS 'BEGIN RAISE ''no''; END'"), "lease", "lease_error"),
        (format!("{ACQUIRE} sql AS 'SELECT NULL::timestamptz'"), "lease", "lease_held"),
        ("SELECT fn_dot_bind('lease_acquire', NULL)".into(), "lease", "lease_unbound"),
        ("ALTER TABLE dot_iu_runtime_lease RENAME TO old".into(), "lease", "lease_error"),
    ]
}

#[test]
fn invariant_04_fail_closed_whatever_breaks_a_gate_refuses_the_request() {
    let bench = Bench::shared();
    for (sql, gate, reason) in breakages() {
        for mode in ["apply", "verify"] {
            let mut session = bench.connect();
            let mut transaction = session.transaction().unwrap();
            transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
            let run = Ask::new("DOT-1", mode).on(&mut transaction).unwrap();
            assert_eq!((run.status(), run.reason()), ("refused", reason), "{mode} after {sql}: {run:?}");
            assert_eq!(run.gate(gate).unwrap()["verdict"], "BLOCK");
            // Where the row stays, the run is not sent.
            transaction.rollback().unwrap();
        }
    }
    bench.drain();
    assert_eq!(bench.agent.count(), 0);
}

#[test]
fn invariant_04_fail_closed_whatever_breaks_a_gate_refuses_at_the_second_gate_too() {
    for (sql, gate, reason) in breakages().into_iter().step_by(3) {
        let bench = Bench::shared();
        let mut session = bench.connect();
        let mut transaction = session.transaction().unwrap();
        let run = Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
        assert_eq!(run.status(), "queued", "{run:?}");
        transaction.batch_execute(&sql).unwrap();
        transaction.commit().unwrap();
        let run = bench.until(&run, "refused");
        assert_eq!((run.reason(), bench.block(&run, "send")), (reason, (gate.to_owned(), reason.to_owned())), "{sql}");
        assert_eq!(bench.agent.count(), 0, "{sql}");
    }
}

//! Invariant 7: the gates are asked in the caller's transaction and again just before sending; both are recorded.

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, until};

const TOGGLE: &str = "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'";

/// What happens between the two gates, and the gate and reason that must refuse it. `REQUESTER` stands for who requested.
const CHANGES: [(&str, &str, &str); 9] = [
    (TOGGLE, "toggle", "toggle_off"),
    ("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'", "guard", "guard_error"),
    ("UPDATE dot_tools SET status = 'retired'", "tool", "inactive"),
    ("DELETE FROM dot_tools", "tool", "uncatalogued"),
    ("UPDATE dot_wrapper.policy SET modes = '{verify}' WHERE name = 'agent_api'", "mode", "mode_not_offered"),
    ("UPDATE dot_wrapper.endpoint SET path = '/v2/{code}'", "engine", "endpoint_changed"),
    ("DELETE FROM dot_wrapper.egress_rule", "egress", "no_egress_rule"),
    (
        "REVOKE EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) FROM REQUESTER",
        "requester",
        "privilege_revoked",
    ),
    ("DROP OWNED BY REQUESTER; DROP ROLE REQUESTER", "requester", "role_gone"),
];

/// Verdicts of a stage in their order, as `gate:verdict`.
fn verdicts(bench: &Bench, run: &Run, stage: &str) -> String {
    bench.one(
        "SELECT string_agg(gate || ':' || verdict, ' ' ORDER BY position) FROM dot_run_gate
         WHERE run_id = $1 AND stage = $2 AND gate <> 'worker'",
        &[&run.id(), &stage],
    )
}

#[test]
fn invariant_07_gated_twice_what_changes_after_the_request_refuses_it_before_it_is_sent() {
    for (change, gate, reason) in CHANGES {
        let bench = Bench::shared();
        let role = bench.caller("caller");
        let asked = bench.between_as(&role, &Ask::new("DOT-1", "apply"), change);
        let run = bench.until(&asked, "refused");
        assert_eq!(bench.block(&run, "send"), (gate.to_owned(), reason.to_owned()), "after {change}");
        assert_eq!(run.reason(), reason);
        let first = verdicts(&bench, &run, "request");
        assert_eq!(first, "tool:OK mode:OK engine:OK egress:OK toggle:OK guard:OK lease:OK", "after {change}");
        assert_eq!(bench.agent.count(), 0, "after {change}");
        assert_eq!(bench.events(&run), ["queued", "refused"]);
        let left: i64 = bench.one(
            "SELECT (SELECT count(*) FROM dot_iu_runtime_lease) + (SELECT count(*) FROM dot_wrapper.lease_grant)
                  + (SELECT count(*) FROM dot_wrapper.dot_run_attempt)",
            &[],
        );
        assert_eq!(left, 0, "no lease and no attempt is left after {change}");
    }
}

#[test]
fn invariant_07_gated_twice_what_passes_is_recorded_at_both_gates() {
    let bench = Bench::shared();
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    let gates = "tool:OK mode:OK engine:OK egress:OK toggle:OK guard:OK lease:OK";
    assert_eq!(verdicts(&bench, &run, "request"), gates);
    assert_eq!(verdicts(&bench, &run, "send"), format!("permit:OK requester:OK deadline:OK {gates}"));
}

#[test]
fn invariant_07_gated_twice_a_run_that_waited_too_long_expires() {
    let bench = Bench::shared();
    let role = bench.caller("caller");
    let past = "UPDATE dot_wrapper.dot_run SET start_by = requested_at WHERE run_status = 'queued'";
    let run = bench.until(&bench.between_as(&role, &Ask::new("DOT-1", "apply"), past), "expired");
    assert_eq!(bench.block(&run, "send"), ("deadline".to_owned(), "start_by_passed".to_owned()));
    assert_eq!(bench.agent.count(), 0);
    bench.until(&bench.apply("DOT-1"), "succeeded");
}

/// The same with a worker that is switched off, for as long as an operator likes.
#[test]
fn invariant_07_gated_twice_a_toggle_that_went_off_while_no_worker_ran_is_obeyed() {
    let bench = Bench::own(&[]);
    bench.worker();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let (one, two) = (bench.apply("DOT-1"), bench.apply("DOT-2"));
    assert_eq!((one.status(), two.status()), ("queued", "queued"));
    assert_eq!(one.gate("worker").unwrap()["reason"], "no_worker");
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-2'");
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    bench.until(&one, "succeeded");
    assert_eq!(bench.until(&two, "refused").reason(), "inactive");

    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let three = bench.apply("DOT-3");
    bench.exec(TOGGLE);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    assert_eq!(bench.until(&three, "refused").reason(), "toggle_off");
    assert_eq!(bench.agent.count(), 1);
}

//! D5: a refused run is returned as a status, is in the ledger when the caller commits, and is in the server's log in
//! every case. At the second gate there is no caller, and no case without a row.

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, figure};

/// A cause of refusal at the first gate.
struct Cause {
    /// What brings it about.
    before: &'static str,
    /// What undoes that.
    after: &'static str,
    code: &'static str,
    mode: &'static str,
    gate: &'static str,
    reason: &'static str,
}

const fn cause(
    before: &'static str,
    after: &'static str,
    asked: (&'static str, &'static str),
    gate: &'static str,
    reason: &'static str,
) -> Cause {
    Cause { before, after, code: asked.0, mode: asked.1, gate, reason }
}

const APPLY: (&str, &str) = ("DOT-1", "apply");
const VERIFY: (&str, &str) = ("DOT-1", "verify");
const ACTIVE: &str = "UPDATE dot_tools SET status = 'active', execution_engine = 'agent_api' WHERE code = 'DOT-1'";
const NO_POLICY: &str = "DELETE FROM dot_wrapper.policy WHERE name = 'DOT-1'";
const OPEN: &str = "UPDATE dot_config SET value = CASE key WHEN 'fs_snapshot_present' THEN '1' ELSE 'true' END";

const CAUSES: [Cause; 12] = [
    cause("", "", ("DOT-NONE", "apply"), "tool", "uncatalogued"),
    cause("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'", ACTIVE, APPLY, "tool", "inactive"),
    cause(
        "ALTER TABLE dot_tools DROP CONSTRAINT dot_tools_pkey; INSERT INTO dot_tools SELECT * FROM dot_tools WHERE code = 'DOT-1'",
        "DELETE FROM dot_tools t USING dot_tools u WHERE t.code = u.code AND t.ctid > u.ctid; ALTER TABLE dot_tools ADD PRIMARY KEY (code)",
        APPLY,
        "tool",
        "ambiguous",
    ),
    cause(
        "ALTER TABLE dot_tools RENAME TO tools_away",
        "ALTER TABLE tools_away RENAME TO dot_tools",
        APPLY,
        "tool",
        "catalogue_unreadable",
    ),
    cause(
        "INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-1', '{apply}')",
        NO_POLICY,
        VERIFY,
        "mode",
        "mode_not_offered",
    ),
    cause(
        "UPDATE dot_tools SET execution_engine = 'mail' WHERE code = 'DOT-1'",
        ACTIVE,
        APPLY,
        "engine",
        "engine_unsupported",
    ),
    cause(
        "UPDATE dot_wrapper.policy SET endpoint = NULL WHERE name = 'agent_api'",
        "UPDATE dot_wrapper.policy SET endpoint = 'agent' WHERE name = 'agent_api'",
        APPLY,
        "engine",
        "endpoint_missing",
    ),
    cause(
        "UPDATE dot_wrapper.egress_rule SET scheme = 'https'",
        "UPDATE dot_wrapper.egress_rule SET scheme = 'http'",
        APPLY,
        "egress",
        "no_egress_rule",
    ),
    cause("UPDATE dot_config SET value = 'false'", OPEN, APPLY, "toggle", "toggle_off"),
    cause("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'", OPEN, VERIFY, "guard", "guard_error"),
    cause(
        "INSERT INTO dot_iu_runtime_lease VALUES ('tool:DOT-1', 'somebody', now(), 'infinity')
         ON CONFLICT (lease_key) DO UPDATE SET holder = 'somebody'",
        "DELETE FROM dot_iu_runtime_lease",
        APPLY,
        "lease",
        "lease_held",
    ),
    cause(
        "SELECT fn_dot_bind('lease_acquire', NULL)",
        "SELECT fn_dot_bind('lease_acquire', 'fn_dot_iu_runtime_lease_acquire(text, text, interval)')",
        APPLY,
        "lease",
        "lease_unbound",
    ),
];

/// How many lines of the log tell of this refusal, by the run's id.
fn logged(log: &str, run: &Run, words: &str) -> usize {
    let id = run.id().to_string();
    log.lines().filter(|line| line.contains(&id) && line.contains(words) && !line.contains("STATEMENT")).count()
}

#[test]
fn d5_a_refusal_is_a_status_a_row_and_a_line_in_the_log() {
    let bench = Bench::shared();
    let (mut kept, mut undone) = (Vec::new(), Vec::new());
    for cause in &CAUSES {
        bench.exec(cause.before);
        for commits in [true, false] {
            let mut session = bench.connect();
            let mut transaction = session.transaction().unwrap();
            let run = Ask::new(cause.code, cause.mode).on(&mut transaction).expect("a refusal is no error");
            assert_eq!((run.status(), run.reason()), ("refused", cause.reason), "{run:?}");
            assert_eq!(run.gate(cause.gate).unwrap()["verdict"], "BLOCK", "{run:?}");
            if commits {
                transaction.commit().unwrap();
                kept.push(run);
            } else {
                transaction.rollback().unwrap();
                undone.push(run);
            }
        }
        bench.exec(cause.after);
    }
    let rows: Vec<String> = bench.all("SELECT reason FROM dot_wrapper.dot_run ORDER BY run_id", &[]);
    assert_eq!(rows, CAUSES.map(|cause| cause.reason));
    assert!(kept.iter().all(|run| bench.run(run.id()) == *run && bench.events(run) == ["refused"]));
    let log = bench.cluster.log();
    let lines: Vec<usize> = kept.iter().chain(&undone).map(|run| logged(&log, run, "refused by gate")).collect();
    assert_eq!(lines, [1; 24], "one line for each refusal");
    // All that was brought about is undone, or this would be refused too.
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!(bench.agent.count(), 1);
    let (rows, lines) = (rows.len(), lines.iter().sum::<usize>());
    figure(
        "D5",
        &format!("{} causes, committed and rolled back: {rows} rows, {lines} lines in the log, 0 errors", CAUSES.len()),
    );
}

/// What changes after a request, the state that follows, and the gate and the reason of it. REQUESTER asked for it.
const CHANGES: [(&str, &str, &str, &str, &str); 6] = [
    (
        "REVOKE EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) FROM REQUESTER",
        "",
        "refused",
        "requester",
        "privilege_revoked",
    ),
    (
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "refused",
        "requester",
        "privilege_revoked",
    ),
    ("DROP OWNED BY REQUESTER; DROP ROLE REQUESTER", "", "refused", "requester", "role_gone"),
    (
        "UPDATE dot_wrapper.dot_run SET start_by = requested_at WHERE run_id = RUN",
        "",
        "expired",
        "deadline",
        "start_by_passed",
    ),
    (
        "UPDATE dot_wrapper.endpoint SET path = '/v2/{code}'",
        "UPDATE dot_wrapper.endpoint SET path = '/v1/dots/{code}/runs'",
        "refused",
        "engine",
        "endpoint_changed",
    ),
    (
        "UPDATE dot_iu_runtime_lease SET holder = 'somebody', expires_at = 'infinity'",
        "DELETE FROM dot_iu_runtime_lease",
        "refused",
        "lease",
        "lease_held",
    ),
];

#[test]
fn d5_a_refusal_at_the_second_gate_is_a_row_an_event_and_a_line_in_the_log() {
    let bench = Bench::shared();
    let mut ended = 0;
    let mut check =
        |number: usize, before: &str, after: &str, (state, gate, reason): (&str, &str, &str), mode: &str| {
            let role = bench.caller(&format!("caller_{number}"));
            println!("{number}: {before}");
            let asked = bench.between_as(&role, &Ask::new("DOT-1", mode), before);
            let run = bench.until(&asked, state);
            bench.exec(after);
            assert_eq!(bench.block(&run, "send"), (gate.to_owned(), reason.to_owned()), "after {before}");
            assert_eq!((run.reason(), bench.events(&run)), (reason, vec!["queued".to_owned(), state.to_owned()]));
            assert_eq!(logged(&bench.cluster.log(), &run, "at the second gate"), 1, "{run:?}");
            ended += 1;
        };
    // The first one asks for a tool that is not there, which a second gate cannot be asked about.
    for (number, cause) in CAUSES.iter().enumerate().skip(1) {
        check(number, cause.before, cause.after, ("refused", cause.gate, cause.reason), cause.mode);
    }
    for (number, (before, after, state, gate, reason)) in CHANGES.into_iter().enumerate() {
        check(CAUSES.len() + number, before, after, (state, gate, reason), "apply");
    }
    assert_eq!(bench.agent.count(), 0);
    figure(
        "D5.second",
        &format!("{ended} causes between the gates: {ended} rows, events and lines in the log, 0 requests"),
    );
}

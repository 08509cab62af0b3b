//! Rows that can be: what the CHECK constraints of the ledger's and the queue's tables ask. A row that cannot be breaks a rule with
//! a name.
//!
//! Written here and not as expressions: PostgreSQL reads a table's CHECK expressions anew in every statement that writes to it, and
//! those of the ledger took four times as long as its row. Nothing here can panic; it is called across C.

use std::ffi::CStr;

/// The columns of `dot_run` that rules look at. `has_…`: it is not NULL. Lengths are in characters.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // they are columns
pub struct Run<'a> {
    /// `mode`.
    pub mode: &'a str,
    /// `run_status`.
    pub status: &'a str,
    /// `attempts`.
    pub attempts: i32,
    /// `admitted`.
    pub admitted: bool,
    /// `finished_at`.
    pub has_finished: bool,
    /// `started_at`.
    pub has_started: bool,
    /// `request`, `fingerprint` and `engine`, all of them.
    pub has_request: bool,
    /// `reason` and `message`, both.
    pub has_reason: bool,
    /// `fencing_token`.
    pub has_token: bool,
    /// `lease_key`.
    pub has_lease_key: bool,
    /// `start_by` and `finish_by`, both.
    pub has_limits: bool,
    /// `result` or `observations`.
    pub has_answer: bool,
    /// `args` is a JSON object.
    pub args_are_object: bool,
    /// `gates` is a JSON array.
    pub gates_are_array: bool,
    /// `code`, its length.
    pub code: usize,
    /// `source`.
    pub source: &'a str,
    /// `source_ref`, its length; 0 for NULL, as below.
    pub source_ref: usize,
    /// `actor`, its length.
    pub actor: usize,
    /// `idempotency_key`, its length.
    pub key: usize,
}

const OPEN: [&str; 3] = ["queued", "running", "in_doubt"];
const OVER: [&str; 6] = ["refused", "planned", "succeeded", "failed", "cancelled", "expired"];

/// The first rule that the row breaks.
pub fn run(row: &Run<'_>) -> Option<&'static CStr> {
    let is = |all: &[&str]| all.contains(&row.status);
    let plan = row.mode == "plan";
    let never_sent = if plan { is(&["refused", "planned"]) } else { row.status != "planned" };
    let rules = [
        (["plan", "verify", "apply"].contains(&row.mode), c"run_mode_known"),
        (is(&OPEN) || is(&OVER), c"run_status_known"),
        (never_sent, c"run_plan_is_never_sent"),
        (row.has_finished != is(&OPEN), c"run_finished_iff_terminal"),
        (!is(&["running", "succeeded", "failed", "in_doubt"]) || row.attempts >= 1, c"run_sent_has_attempt"),
        (row.has_started == (row.attempts != 0), c"run_started_iff_attempted"),
        (!plan || row.attempts == 0, c"run_plan_has_no_attempt"),
        (row.admitted != is(&["refused", "planned"]), c"run_admitted_holds_key"),
        (row.status == "refused" || row.has_request, c"run_request_is_kept"),
        (is(&["planned", "queued", "running", "succeeded"]) || row.has_reason, c"run_refusal_is_explained"),
        (!row.has_token || row.has_lease_key, c"run_token_with_lease"),
        (!row.admitted || row.attempts == 0 || row.has_lease_key == row.has_token, c"run_lease_has_token"),
        (!row.admitted || row.has_limits, c"run_start_by_iff_admitted"),
        (!row.has_answer || is(&["succeeded", "failed", "cancelled"]), c"run_result_only_after_answer"),
        (row.args_are_object, c"run_args_object"),
        (row.gates_are_array, c"run_gates_array"),
        (row.attempts >= 0, c"run_attempts_counted"),
        ((1..=200).contains(&row.code), c"run_code_bounded"),
        (["call", "schedule", "trigger", "job", "request"].contains(&row.source), c"run_source_known"),
        (row.source_ref <= 200 && row.actor <= 200, c"run_source_bounded"),
        (row.key <= 255, c"run_key_bounded"),
    ];
    broken(&rules)
}

/// As [`run`], for `dot_run_event`. NULL for a status is `None`, and for a mark's length.
pub fn event(
    from: Option<&str>,
    to: Option<&str>,
    detail_is_object: bool,
    mark: Option<usize>,
) -> Option<&'static CStr> {
    let known =
        from.is_none_or(|from| OPEN.contains(&from)) && to.is_none_or(|to| OPEN.contains(&to) || OVER.contains(&to));
    broken(&[
        (known, c"event_status_known"),
        (detail_is_object, c"event_detail_object"),
        (mark.is_none_or(|length| length == 24), c"event_mark_long"),
    ])
}

/// As [`run`], for `dot_queue`.
pub fn queued(state: &str, past: &str, has_worker: bool) -> Option<&'static CStr> {
    broken(&[
        (OPEN.contains(&state), c"queue_state_known"),
        (["none", "untaken", "unknown"].contains(&past), c"queue_past_known"),
        ((state == "running") == has_worker, c"queue_worker_iff_running"),
    ])
}

fn broken(rules: &[(bool, &'static CStr)]) -> Option<&'static CStr> {
    rules.iter().find(|(holds, _)| !holds).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUED: Run<'_> = Run {
        mode: "apply",
        status: "queued",
        attempts: 0,
        admitted: true,
        has_finished: false,
        has_started: false,
        has_request: true,
        has_reason: false,
        has_token: true,
        has_lease_key: true,
        has_limits: true,
        has_answer: false,
        args_are_object: true,
        gates_are_array: true,
        code: 5,
        source: "call",
        source_ref: 0,
        actor: 0,
        key: 0,
    };

    #[test]
    fn rows_that_can_be_break_no_rule() {
        let sent = Run { attempts: 1, has_started: true, ..QUEUED };
        let over = Run { status: "succeeded", has_finished: true, has_answer: true, ..sent };
        let refused = Run { status: "refused", admitted: false, has_finished: true, has_reason: true, ..QUEUED };
        let planned = Run { mode: "plan", status: "planned", admitted: false, has_finished: true, ..QUEUED };
        for row in [QUEUED, sent, Run { status: "running", ..sent }, over, refused, planned] {
            assert_eq!(run(&row), None, "{row:?}");
        }
        assert_eq!(event(None, Some("planned"), true, None), None);
        assert_eq!(event(Some("queued"), None, true, Some(24)), None);
        assert_eq!(queued("running", "none", true), None);
    }

    #[test]
    fn a_row_that_cannot_be_is_refused_by_the_first_rule_that_it_breaks() {
        for (row, rule) in [
            (Run { mode: "dance", ..QUEUED }, c"run_mode_known"),
            (Run { status: "paused", ..QUEUED }, c"run_status_known"),
            (Run { mode: "plan", ..QUEUED }, c"run_plan_is_never_sent"),
            (Run { has_finished: true, ..QUEUED }, c"run_finished_iff_terminal"),
            (Run { admitted: false, ..QUEUED }, c"run_admitted_holds_key"),
            (Run { has_lease_key: false, ..QUEUED }, c"run_token_with_lease"),
            (Run { has_answer: true, ..QUEUED }, c"run_result_only_after_answer"),
            (Run { code: 0, ..QUEUED }, c"run_code_bounded"),
            (Run { key: 256, ..QUEUED }, c"run_key_bounded"),
        ] {
            assert_eq!(run(&row), Some(rule), "{row:?}");
        }
        assert_eq!(event(Some("succeeded"), None, true, None), Some(c"event_status_known"));
        assert_eq!(event(None, None, true, Some(1)), Some(c"event_mark_long"));
        assert_eq!(queued("running", "none", false), Some(c"queue_worker_iff_running"));
        assert_eq!(queued("queued", "future", false), Some(c"queue_past_known"));
    }
}

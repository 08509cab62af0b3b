//! `fn_dot_cancel` and `fn_dot_resolve`: what people say about a run that is not over.

use serde_json::json;
use uuid::Uuid;

use super::settle;
use super::wait;
use crate::domain::call::shorten;
use crate::domain::decide::one_line;
use crate::domain::error::{DotError, SqlState};
use crate::domain::retry::{self, Past};
use crate::domain::state::{Cause, RunStatus, next};
use crate::error;
use crate::pg::rows::Row;
use crate::pg::user;
use crate::store::event::{self, Remark};
use crate::store::extension::{self, Extension};
use crate::store::ledger;
use crate::store::queue::{self, Waiting};
use crate::store::role;
use crate::store::transition::{self, Move};

/// Asks that a run is not executed, or not executed any further. The run's row as it then stands.
///
/// A queued run ends at once: as cancelled if nothing of it was ever sent. The call of a running one is closed, and it is in
/// doubt unless nothing had left yet. A run in doubt ends as soon as its agent says that it never saw it. One that is over
/// stays as it is.
///
/// # Errors
/// 22004 and 22023 for a missing run or reason; 42704 for a run that is not there or not the caller's to see; 42501 for one that
/// he may only see.
pub fn cancel(run_id: Uuid, reason: Option<String>) -> Result<Row, DotError> {
    let reason = words("reason", reason)?;
    on_run(run_id, |caller, waiting| {
        let Some(waiting) = waiting else { return Ok(()) };
        let detail = json!({"reason": retry::CANCELLED, "message": reason, "requested_by": caller});
        // What may have been done becomes a doubt by the worker's hand, which knows how long it keeps its lease.
        if waiting.status == RunStatus::Queued && waiting.past != Past::Unknown {
            let Some(to) = next(waiting.mode, Some(RunStatus::Queued), waiting.past.end(Cause::Cancelled)) else {
                return Err(error::internal("a queued run that cannot be cancelled"));
            };
            let step = Move { detail, ..Move::new(run_id, waiting.attempts, to, retry::CANCELLED, reason.clone()) };
            return settle::release(&transition::apply(RunStatus::Queued, None, &[step])?);
        }
        queue::withdraw(run_id)?;
        event::remark(&[Remark { run_id, attempt: Some(waiting.attempts), event: "cancel_requested", detail }])
    })
}

/// Says how a run in doubt ended: `succeeded`, `failed`, or `retry`, which sends it again whether or not its tool is
/// idempotent. The run's row as it then stands.
///
/// # Errors
/// 22004 and 22023 for a missing or unknown outcome and a missing note; 42704 as [`cancel`]; 55000 for a run that is not in
/// doubt.
pub fn resolve(run_id: Uuid, outcome: Option<String>, note: Option<String>) -> Result<Row, DotError> {
    let outcome = outcome.ok_or_else(|| DotError::new(SqlState::NullValueNotAllowed, "outcome must not be null"))?;
    let cause = match outcome.as_str() {
        "succeeded" => Cause::Succeeded,
        "failed" => Cause::Failed,
        "retry" => Cause::Requeued,
        other => {
            let message = format!("unknown outcome \"{}\"", shorten(other));
            return Err(DotError::new(SqlState::InvalidParameterValue, message)
                .hint("It is succeeded, failed, or retry, which sends the run again."));
        }
    };
    let note = words("note", note)?;
    on_run(run_id, |caller, waiting| {
        let doubtful = waiting.filter(|waiting| waiting.status == RunStatus::InDoubt);
        let Some(waiting) = doubtful else {
            return Err(DotError::new(SqlState::ObjectNotInPrerequisiteState, format!("run {run_id} is not in doubt"))
                .hint("Only a run whose outcome nobody knows can be resolved; fn_dot_cancel is for the others."));
        };
        let Some(to) = next(waiting.mode, Some(RunStatus::InDoubt), cause) else {
            return Err(error::internal("a run in doubt that cannot be resolved"));
        };
        let step = Move {
            fencing_token: waiting.fencing_token,
            detail: json!({"reason": "resolved", "message": note, "resolved_by": caller}),
            wait_ms: Some(0),
            past: Some(Past::Unknown),
            anew: true,
            ..Move::new(run_id, waiting.attempts, to, "resolved", note.clone())
        };
        settle::release(&transition::apply(RunStatus::InDoubt, None, &[step])?)
    })
}

/// Runs `body` as the extension's owner on the locked queue row, `None` when the run is over; gives the ledger row.
fn on_run(run_id: Uuid, body: impl FnOnce(&str, Option<Waiting>) -> Result<(), DotError>) -> Result<Row, DotError> {
    let caller = user::current();
    let extension = extension::for_writing()?;
    extension::as_owner(&extension, || {
        // The same words whether it is not there or not theirs.
        let standing = ledger::standing(run_id)?
            .filter(|standing| wait::may_see(caller, &standing.requested_by))
            .ok_or_else(|| wait::unknown(run_id))?;
        if !wait::may_end(caller, &standing.requested_by) && !is_operator(&extension, caller)? {
            return Err(DotError::new(SqlState::InsufficientPrivilege, format!("run {run_id} is not yours to end"))
                .detail(format!("It was requested by role {}.", standing.requested_by.1))
                .hint("Members of that role may end it, and operators: who has EXECUTE on fn_dot_resolve and pg_read_all_data."));
        }
        let waiting = queue::lock(run_id)?;
        body(&user::name_of(caller), waiting)?;
        ledger::whole(run_id)?.ok_or_else(|| error::internal("the run is gone"))
    })
}

/// True for who may end every run: superusers, the extension's owner, and those who see all runs and may resolve them.
fn is_operator(extension: &Extension, caller: pgrx::pg_sys::Oid) -> Result<bool, DotError> {
    let sees_all = user::has_privileges_of(caller, pgrx::pg_sys::ROLE_PG_READ_ALL_DATA.into());
    Ok(user::has_privileges_of(caller, extension.owner) || (sees_all && role::may_resolve(extension, caller)?))
}

fn words(name: &str, text: Option<String>) -> Result<String, DotError> {
    let text = text.ok_or_else(|| DotError::new(SqlState::NullValueNotAllowed, format!("{name} must not be null")))?;
    let line = one_line(&text);
    if line.is_empty() {
        return Err(DotError::new(SqlState::InvalidParameterValue, format!("{name} must not be empty"))
            .hint("Say in a few words why; it is kept in the ledger."));
    }
    Ok(line)
}

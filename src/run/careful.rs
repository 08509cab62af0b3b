//! Quarantine: a run that brings the worker down again and again is set aside, and the others go on.
//!
//! Nothing can be written once a process has died, so a worker whose predecessor died takes up one run at a time for a
//! while, and notes each before it does. The first death is nobody's; two more over the same run are its own.

use serde_json::json;
use uuid::Uuid;

use super::pick::{self, Memory};
use crate::domain::error::DotError;
use crate::domain::state::RunStatus;
use crate::store::attempt;
use crate::store::candidate;
use crate::store::event::{self, Remark};
use crate::store::queue;
use crate::store::transition::{self, Move};

/// Deaths over one run, after the first that nobody could tell the cause of.
const PROOFS: i16 = 2;

/// What is to be taken up alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This one.
    This(Uuid),
    /// What waits has to wait for room.
    Later,
    /// Nothing waits.
    Nothing,
}

/// Notes the call of a dead worker that is taken over next; `None` when there is none. One that has proved fatal is in doubt,
/// without anything else being done for it.
///
/// # Errors
/// XX000 only.
pub fn next_orphan(worker: Uuid) -> Result<Option<Uuid>, DotError> {
    loop {
        let Some(orphan) = attempt::orphans(worker, 1)?.into_iter().next() else { return Ok(None) };
        let run_id = orphan.run_id;
        if orphan.crashes < PROOFS {
            queue::mark(run_id)?;
            return Ok(Some(run_id));
        }
        let message = "the worker died three times over this run; whether it was executed is not known";
        pgrx::warning!("dot_wrapper: run {run_id} is set aside: {message}");
        attempt::adopt(worker, &[run_id])?;
        let step = Move {
            fencing_token: orphan.fencing_token,
            detail: json!({"reason": "quarantined", "message": message}),
            // Asking is not taking up: where the agent can be asked, it ends the doubt.
            wait_ms: Some(1_000),
            ..Move::new(run_id, orphan.attempt, RunStatus::InDoubt, "quarantined", message)
        };
        transition::apply(RunStatus::Running, Some(worker), &[step])?;
    }
}

/// Notes the run that is taken up next, and sets aside those that have proved fatal.
///
/// # Errors
/// XX000 only.
pub fn next(memory: &mut Memory) -> Result<Next, DotError> {
    loop {
        let sight = pick::pick(memory, 1, pick::Order::Careful)?;
        let Some(candidate) = candidate::take(&sight.run_ids)?.into_iter().next() else {
            return Ok(if sight.has_any() { Next::Later } else { Next::Nothing });
        };
        let run_id = candidate.run_id;
        if candidate.run.is_none_or(|run| run.crashes < PROOFS) {
            queue::mark(run_id)?;
            return Ok(Next::This(run_id));
        }
        let message =
            "the worker died three times when it took this run up; fn_dot_cancel ends it, fn_dot_resume lets it go on";
        pgrx::warning!("dot_wrapper: run {run_id} is set aside: {message}");
        queue::hold(&[run_id])?;
        queue::explain(run_id, "quarantined", message)?;
        let detail = json!({"message": message});
        event::remark(&[Remark { run_id, attempt: None, event: "quarantined", detail }])?;
    }
}

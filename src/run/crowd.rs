//! Other runs of the same tool: the one that will do instead of a new one, and the one that is in a new one's way.
//! Only for runs that ask for it (`domain::via`).

use pgrx::pg_sys::Oid;
use serde_json::{Value, json};

use super::request::Requested;
use crate::domain::call::Call;
use crate::domain::decide;
use crate::domain::error::DotError;
use crate::domain::gate::Decision;
use crate::domain::mode::Mode;
use crate::domain::state::RunStatus;
use crate::domain::via::{Overlap, Via};
use crate::pg::settings;
use crate::store::event::{self, Remark};
use crate::store::{crowd, ledger};

/// A queued run of the same role, tool, mode and arguments that was not started yet, for a call that would have one and names
/// no process run of its own. It is held until this transaction
/// ends, so that it starts when everything that this transaction did is there to be seen.
///
/// # Errors
/// XX000 only.
pub(super) fn coalesce(requester: Oid, via: &Via, call: &Call) -> Result<Option<Requested>, DotError> {
    if !via.coalesce || call.process_run_id.is_some() || !call.mode.calls_engine() {
        return Ok(None);
    }
    let find = if settings::has_one_snapshot() { crowd::own_queued } else { crowd::hold_queued };
    let found = find(requester, call)?;
    let Some(run_id) = found else { return Ok(None) };
    let Some(row) = ledger::whole(run_id)? else { return Ok(None) };
    let detail = json!({"source": via.source, "source_ref": via.source_ref, "actor": via.actor});
    event::remark(&[Remark { run_id, attempt: None, event: "coalesced", detail }])?;
    Ok(Some(Requested { row, run_id, status: RunStatus::Queued, admitted: false }))
}

/// The decision that refuses a run that gives way to others of its tool; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub(super) fn in_the_way(via: &Via, code: &str, mode: Mode, args: &Value) -> Result<Option<Decision>, DotError> {
    let (overlapping, since) = match via.overlap {
        Overlap::Allow => return Ok(None),
        Overlap::Skip { since } => (crowd::unfinished(code)?, since),
        Overlap::Covered { since } => (None, Some(since)),
    };
    // What does this one's work says more than what is not over.
    let since = since.map(|moment| crowd::event_since(code, mode, args, moment)).transpose()?.flatten();
    let covered = since.map(|way| decide::covered(code, &way));
    Ok(covered.or_else(|| overlapping.map(|way| decide::overlapping(code, &way))))
}

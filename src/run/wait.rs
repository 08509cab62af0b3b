//! `fn_dot_wait`: until a run is over, in doubt, or the time is up.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::domain::error::{DotError, SqlState};
use crate::domain::state::RunStatus;
use crate::error;
use crate::pg::rows::Row;
use crate::pg::{latch, settings, user};
use crate::store::extension;
use crate::store::ledger;

/// Longest wait: an hour. Who waits holds a snapshot, and with it back vacuum.
pub const MAX: Duration = Duration::from_secs(3600);

/// Waits, and returns the run's row as it then stands.
///
/// # Errors
/// 42704 for a run that is not there or not the caller's to see; 25001 for a run that this very transaction made, and
/// where this transaction cannot see what others commit.
pub fn wait(run_id: Uuid, limit: Duration) -> Result<Row, DotError> {
    let caller = user::current();
    let extension = extension::current()?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let standing = extension::as_owner(&extension, || ledger::standing(run_id))?
            .filter(|standing| may_see(caller, &standing.requested_by))
            .ok_or_else(|| unknown(run_id))?;
        let over = standing.status.is_terminal() || standing.status == RunStatus::InDoubt;
        if over || started.elapsed() >= limit {
            break;
        }
        refuse_endless(standing.is_own, "fn_dot_wait")?;
        latch::pause(pause.min(limit.saturating_sub(started.elapsed())));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    extension::as_owner(&extension, || ledger::whole(run_id))?.ok_or_else(|| error::internal("the run is gone"))
}

/// True when the caller may see the runs of that role: it is him or one of his, under the name of then, or he reads all.
pub(super) fn may_see(caller: pgrx::pg_sys::Oid, requested_by: &(pgrx::pg_sys::Oid, String)) -> bool {
    may_end(caller, requested_by) || user::has_privileges_of(caller, pgrx::pg_sys::ROLE_PG_READ_ALL_DATA.into())
}

/// True when the caller may end the runs of that role: it is him or one of his. To read all is not enough.
pub(super) fn may_end(caller: pgrx::pg_sys::Oid, (role, name): &(pgrx::pg_sys::Oid, String)) -> bool {
    user::name_of(*role) == *name && user::has_privileges_of(caller, *role)
}

/// The same words for a run that does not exist and for one that is somebody else's.
pub(super) fn unknown(run_id: Uuid) -> DotError {
    DotError::new(SqlState::UndefinedObject, format!("there is no run {run_id}"))
        .detail("Either it does not exist, or it was requested by a role whose runs you may not see.")
}

/// A wait that could never end, because of the transaction that it is called in.
pub(super) fn refuse_endless(is_own: bool, function: &str) -> Result<(), DotError> {
    if is_own {
        return Err(DotError::new(SqlState::ActiveSqlTransaction, "cannot wait for a run of this transaction")
            .detail("Nothing is sent before the transaction that requested it has committed.")
            .hint(format!("Commit first, then call {function}.")));
    }
    if settings::has_one_snapshot() {
        return Err(DotError::new(SqlState::ActiveSqlTransaction, "cannot wait in this isolation level")
            .detail("In REPEATABLE READ and SERIALIZABLE nothing that others commit becomes visible.")
            .hint(format!("Call {function} in READ COMMITTED.")));
    }
    Ok(())
}

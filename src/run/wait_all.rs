//! `fn_dot_wait_all`: until no run of a process run is queued or running, or the time is up.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::wait::{may_see, refuse_endless};
use crate::domain::error::{DotError, SqlState};
use crate::error;
use crate::pg::rows::Row;
use crate::pg::{latch, user};
use crate::store::extension::{self, Extension};
use crate::store::process_run::{self, Share};

/// Waits, and returns the process run's row as it then stands. Only the runs that the caller may see count.
///
/// # Errors
/// 42704 for a process run of which he may see no run; 25001 as for one run; 42501 for who may not read the view.
pub fn wait(process_run_id: Uuid, limit: Duration) -> Result<Row, DotError> {
    let caller = user::current();
    let extension = extension::current()?;
    must_read_summaries(&extension, caller)?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let asked = Instant::now();
        let seen = shares(&extension, caller, process_run_id)?;
        if seen.iter().all(|share| share.unfinished == 0) || started.elapsed() >= limit {
            break;
        }
        refuse_endless(seen.iter().any(|share| share.is_own), "fn_dot_wait_all")?;
        // A look at a hundred thousand runs takes a while; waiting must not be all that the server does.
        let rest = pause.max(asked.elapsed() * 4);
        latch::pause(rest.min(limit.saturating_sub(started.elapsed())));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    process_run::summary(&extension, process_run_id)?.ok_or_else(|| error::internal("the process run is gone"))
}

/// Who may not read what this is going to return is told now, and not in five minutes. Reading it now would do as well, and
/// would keep tables of others locked for as long as the wait lasts.
fn must_read_summaries(extension: &Extension, caller: pgrx::pg_sys::Oid) -> Result<(), DotError> {
    if extension::as_owner(extension, || process_run::may_summarize(extension, caller))? {
        return Ok(());
    }
    Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for view dot_process_run")
        .detail("fn_dot_wait_all returns its row.")
        .hint("GRANT SELECT ON dot_process_run, and EXECUTE ON FUNCTION fn_dot_iu_commands, to that role."))
}

/// The runs of a process run that the caller may see, by who requested them.
///
/// # Errors
/// 42704 when there is none.
pub fn shares(extension: &Extension, caller: pgrx::pg_sys::Oid, process_run_id: Uuid) -> Result<Vec<Share>, DotError> {
    let mut shares = extension::as_owner(extension, || process_run::shares(process_run_id))?;
    shares.retain(|share| may_see(caller, &share.requested_by));
    if shares.is_empty() {
        return Err(DotError::new(SqlState::UndefinedObject, format!("there is no process run {process_run_id}"))
            .detail("Either it has no runs, or they were requested by roles whose runs you may not see."));
    }
    Ok(shares)
}

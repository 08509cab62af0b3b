//! Running statements on somebody's table with that somebody's rights: his triggers, rules and casts run as he, never as
//! us, and no longer than a moment.
//!
//! Does not live here: which tables, and whom to trust (`store::catalogue`, `store::job`).

use std::time::Duration;

use pgrx::pg_sys;

use crate::domain::error::DotError;
use crate::pg::caught::{Caught, QUERY_CANCELED};
use crate::pg::user::{self, Trust};
use crate::pg::{limit, session, settings, xact};

/// Code of others that takes longer is stopped.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a worker's transaction needs besides, to record what came of it.
const RESERVE: Duration = Duration::from_secs(1);

/// Why a statement on somebody's table came to nothing. What it had written is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Somebody's lock or change was in the way, or there is no time left: not now.
    NotNow(String),
    /// It does not work.
    Failed(String),
}

impl Refused {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Refused::NotNow(text) | Refused::Failed(text) => text,
        }
    }
}

/// Whether the transaction has time left for one more of these.
pub fn has_time() -> bool {
    session::time_left().is_none_or(|left| left >= PATIENCE + RESERVE)
}

/// Runs `body` as `owner`, in a subtransaction and a security-restricted context, with `schema` (quoted) as search_path.
///
/// # Errors
/// See [`Refused`]. Errors that ask for the end of the whole transaction go on.
pub fn as_owner<T>(owner: pg_sys::Oid, schema: &str, body: impl FnOnce() -> Result<T, DotError>) -> Result<T, Refused> {
    if !has_time() {
        return Err(Refused::NotNow("was not asked: others took too long".to_owned()));
    }
    let late = || Refused::Failed(format!("took longer than {} s", PATIENCE.as_secs()));
    let path = format!("{schema}, pg_temp");
    let limit = limit::start(PATIENCE);
    let outcome = xact::subtransaction_or_rollback(|| {
        let value = user::run_as(owner, Trust::Foreign, &path, body);
        if limit.is_over() { Err(late()) } else { value.map_err(|error| Refused::Failed(error.message)) }
    });
    let is_late = limit.is_over();
    drop(limit);
    match outcome {
        Ok(result) => result,
        Err(caught) if is_late && caught.sqlstate == QUERY_CANCELED => Err(late()),
        Err(caught) if is_for_a_moment(&caught) => Err(Refused::NotNow(caught.message)),
        Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
        Err(caught) => Err(Refused::Failed(caught.message)),
    }
}

/// Whether what was rolled back may work in a moment: a lock that was not had in time, a deadlock, a serialization failure.
/// The last two are anybody's to raise, and say nothing about the rest of a transaction that takes a new snapshot for
/// every statement; with one snapshot for all of it there is no use in going on.
pub fn is_for_a_moment(caught: &Caught) -> bool {
    caught.is_lock_timeout() || (caught.is_conflict() && !settings::has_one_snapshot())
}

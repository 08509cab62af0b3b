//! A row of the request table: the run that it asks for, and what the row then shows.

use std::cell::RefCell;

use serde_json::{Value, json};
use uuid::Uuid;

use super::request::{self, Requested, WorkerFacts};
use crate::domain::call::Raw;
use crate::domain::error::{DotError, SqlState};
use crate::domain::request_row::{self, Words};
use crate::domain::via::{Source, Via};
use crate::error;
use crate::pg::user;
use crate::store::request as table;
pub use crate::store::request::Shown;
use crate::store::{extension, mirror, queue, role};

/// What a row asks for.
pub struct Asked {
    /// The row's id.
    pub id: Uuid,
    /// What the client said.
    pub words: Words,
    /// Process run.
    pub process_run_id: Option<Uuid>,
    /// Arguments, or why they are none; `None` for SQL NULL.
    pub args: Option<Result<Value, DotError>>,
    /// True when it brings an outcome along, as a row that is put back does.
    pub is_complete: bool,
}

/// What becomes of a row.
pub enum Taken {
    /// It is put back, and stays as it is.
    Back,
    /// Another row has its id; PostgreSQL will find that out.
    Twice,
    /// It asked for something that cannot be a run.
    Misuse {
        /// The row's message.
        message: String,
    },
    /// It has a run.
    Run {
        /// The run.
        requested: Requested,
        /// What it shows of it.
        shown: Shown,
    },
}

thread_local! {
    /// Requests of this statement that made a run, with it. Those of statements that failed stay here until the next one: their
    /// runs are gone.
    static MADE: RefCell<Vec<(Uuid, Uuid)>> = const { RefCell::new(Vec::new()) };
}

/// Requests the run of a row that is about to be inserted, as the current user.
///
/// A row that comes with its outcome, by the hand of somebody who has the rights of the extension's owner, is put back: a
/// restore. One whose id is taken will not be inserted. Neither makes a run.
///
/// # Errors
/// 42501 for who may insert only because he may write every table; 55000 without the extension; XX000 for defects. Misuse is
/// no error.
pub fn take(asked: Asked, worker: WorkerFacts) -> Result<Taken, DotError> {
    let extension = extension::current()?;
    let caller = user::current();
    if asked.is_complete && user::has_privileges_of(caller, extension.owner) {
        return Ok(Taken::Back);
    }
    if extension::as_owner(&extension, || table::exists(&extension, asked.id))? {
        return Ok(Taken::Twice);
    }
    if user::has_privileges_of(caller, pgrx::pg_sys::ROLE_PG_WRITE_ALL_DATA.into()) {
        let roles = extension::as_owner(&extension, || role::requesters(&extension, &[caller]))?;
        if !roles.iter().any(|role| role.may_request) {
            return Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for table dot_run_request")
                .detail("To be allowed to write every table is not to be allowed to run tools.")
                .hint("GRANT INSERT ON dot_run_request to that role."));
        }
    }
    match ask(&asked, worker) {
        Ok(requested) => {
            let shown = extension::as_owner(&extension, || show(asked.id, &requested))?;
            Ok(Taken::Run { requested, shown })
        }
        Err(error) => match request_row::refusal(&error) {
            Some(message) => Ok(Taken::Misuse { message }),
            None => Err(error),
        },
    }
}

fn ask(asked: &Asked, worker: WorkerFacts) -> Result<Requested, DotError> {
    let words = &asked.words;
    let raw = Raw {
        code: Some(words.code.clone()),
        mode: Some(words.mode.clone()),
        process_run_id: asked.process_run_id,
        args: Some(asked.args.clone().transpose()?.unwrap_or_else(|| json!({}))),
        idempotency_key: words.idempotency_key.clone(),
    };
    let via = Via {
        source: Source::Request,
        source_ref: Some(asked.id.to_string()),
        actor: words.actor.clone(),
        ..Via::call()
    };
    request::one_via(raw, via, worker)
}

/// What the ledger has of the run; from now on it does not move before this transaction has ended, and then with the row.
fn show(id: Uuid, requested: &Requested) -> Result<Shown, DotError> {
    MADE.with_borrow_mut(|made| made.push((id, requested.run_id)));
    if !requested.admitted && !requested.status.is_terminal() {
        queue::follow_from_now(requested.run_id)?;
    }
    table::shown(requested.run_id)?.ok_or_else(|| error::internal("the run of a request is gone"))
}

/// Sees to it that every run that the statement has requested has its row: where another session inserted a row of the same
/// id meanwhile, or another trigger took the row away, the statement fails, and its runs with it.
///
/// # Errors
/// 40001 and 55000, as said.
pub fn check() -> Result<(), DotError> {
    let made = MADE.take();
    if made.is_empty() {
        return Ok(());
    }
    let extension = extension::current()?;
    match extension::as_owner(&extension, || table::without_row(&extension, &made))? {
        None => Ok(()),
        Some((id, true)) => Err(DotError::new(SqlState::SerializationFailure, format!("request {id} was made twice"))
            .detail("Another session inserted a row of the same id at the same time.")
            .hint("Try again; then the other row is there to be seen.")),
        Some((id, false)) => Err(DotError::new(
            SqlState::ObjectNotInPrerequisiteState,
            format!("request {id} did not become a row"),
        )
        .detail("Another trigger on dot_run_request took the row away or changed it.")
        .hint(
            "Let no other BEFORE INSERT trigger do that; a request without its row would be a run that nobody sees.",
        )),
    }
}

/// The error of whoever would change a row.
///
/// # Errors
/// 55000, unless it is dot_wrapper itself that does it.
pub fn keep() -> Result<(), DotError> {
    if mirror::is_ours() {
        return Ok(());
    }
    Err(DotError::new(SqlState::ObjectNotInPrerequisiteState, "a request cannot be changed")
        .detail("The row shows what was asked for and what became of it; the ledger is the truth.")
        .hint("Insert another row; fn_dot_cancel ends a run."))
}

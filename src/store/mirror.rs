//! `dot_run_request` kept up with the ledger.
//!
//! It is a table that users lock, and that others may have put triggers on. So nothing here waits for anybody's lock or fails
//! with anybody's trigger, and nobody's trigger takes long: what cannot be written now is caught up with later. Whatever runs
//! with the UPDATE has the rights of [`ROLE`], which may do nothing but this, and that only while no trigger of somebody who is
//! not trusted is there.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::pg_sys;
use uuid::Uuid;

use super::extension::{self, Extension, as_owner};
use super::foreign::{self, Refused};
use super::spi;
use crate::domain::error::{DotError, SqlState};
use crate::pg::caught::QUERY_CANCELED;
use crate::pg::object::{self, Use};
use crate::pg::user::{self, Trust};
use crate::pg::{hung, role, session, xact};

/// The role that writes: it sees and changes the outcome of requests, by a view, and has nothing else. sql/00_schema.sql
/// makes it.
pub const ROLE: &str = "dot_wrapper_mirror";
const TABLE: &std::ffi::CStr = c"dot_run_request";
/// What our statements are read under.
const PATH: &str = "pg_catalog";
/// Rows that are caught up with at a time.
const BATCH: i64 = 200;
/// Who writes slower than this writes no more with the runs, but afterwards.
const SLOW: Duration = Duration::from_secs(1);

thread_local! {
    /// The change that goes on is ours, and comes from so deep in triggers.
    static OURS: Cell<Option<i32>> = const { Cell::new(None) };
    /// Some rows could not be written.
    static MISSED: Cell<bool> = const { Cell::new(false) };
    /// Rows are not written with their runs' moves: it took too long the last time.
    static SLOWED: Cell<bool> = const { Cell::new(false) };
}

/// True in the trigger of a change that dot_wrapper itself makes; not in that of one which somebody's trigger adds to it.
pub fn is_ours() -> bool {
    OURS.get().is_some_and(|depth| hung::depth() == depth + 1)
}

/// True when rows of this process's runs are behind the ledger.
pub fn has_missed() -> bool {
    MISSED.get()
}

/// Ends with the statement that it is made for, also when that raises an error.
struct Ours;

impl Ours {
    fn begin() -> Ours {
        OURS.set(Some(hung::depth()));
        Ours
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.set(None);
    }
}

/// Lets the rows of these runs show what the ledger says now.
///
/// # Errors
/// XX000 only.
pub(super) fn follow(run_ids: impl IntoIterator<Item = Uuid>) -> Result<(), DotError> {
    let run_ids: Vec<_> = run_ids.into_iter().map(spi::uuid).collect();
    if run_ids.is_empty() {
        return Ok(());
    }
    if SLOWED.get() {
        MISSED.set(true);
        return Ok(());
    }
    match write("w.run_id = ANY ($1)", &[run_ids.into()], put)? {
        Ok(0) => {}
        Ok(_) | Err(Refused::NotNow(_)) => MISSED.set(true),
        // The run goes on.
        Err(Refused::Failed(why)) => {
            MISSED.set(true);
            pgrx::warning!("dot_wrapper: dot_run_request is not kept up: {why}");
        }
    }
    Ok(())
}

/// The same for all rows that are behind the ledger: what was locked when their runs moved. What a trigger on the table said
/// against it, if any did; the rows without it are written.
///
/// # Errors
/// XX000 only.
pub fn catch_up() -> Result<Option<String>, DotError> {
    let behind = "(w.run_status, w.reason, w.message) IS DISTINCT FROM (r.run_status, r.reason, r.message)";
    let written = match write(behind, &[], put)? {
        // Some row is the trouble, and not that of the others.
        Err(Refused::Failed(why)) => {
            if !SLOWED.get() {
                write(behind, &[], put_each)?.ok();
            }
            MISSED.set(true);
            return Ok(Some(why));
        }
        written => written,
    };
    MISSED.set(written.map_or(true, |left| left > 0));
    Ok(None)
}

/// Gives the unfinished rows of these runs to the roles that have the requesters' names here.
///
/// # Errors
/// 55000 when a trigger of somebody who is not trusted is in the way; what a trusted one raises.
pub fn adopt(run_ids: &[Uuid]) -> Result<(), DotError> {
    let run_ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    let Some(extension) = extension::find()?.filter(|_| !run_ids.is_empty()) else { return Ok(()) };
    let Some(table) = object::lock_relation(TABLE, extension.schema_oid, Use::Write) else { return Ok(()) };
    let sql = format!(
        "SELECT w.id, o.oid FROM {}.dot_run_request w JOIN pg_catalog.pg_roles o ON o.rolname = w.requested_by
         WHERE w.run_id = ANY ($1) AND w.finished_at IS NULL AND o.oid <> w.requested_by_oid",
        extension.schema
    );
    let found = spi::rows(&sql, &[run_ids.into()], |row| {
        Ok((spi::need::<pgrx::Uuid>(row, 1)?, spi::need::<pg_sys::Oid>(row, 2)?))
    })?;
    let (ids, roles): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    if ids.is_empty() {
        return Ok(());
    }
    if let Some(trigger) = stranger(&extension, table.oid) {
        return Err(DotError::new(
            SqlState::ObjectNotInPrerequisiteState,
            format!("a trigger on dot_run_request is in the way: {trigger}"),
        )
        .detail("It is of a role that is not trusted, or has a WHEN clause; the rows of what is resumed have to be changed.")
        .hint("Drop it, and revoke TRIGGER on the table."));
    }
    let sql = "UPDATE dot_wrapper.request_outcome w SET requested_by_oid = x.role
               FROM unnest($1::uuid[], $2::oid[]) AS x (id, role) WHERE w.id = x.id AND w.finished_at IS NULL";
    let _ours = Ours::begin();
    user::run_as(writer()?, Trust::Foreign, PATH, || spi::run(sql, &[ids.into(), roles.into()])).map(drop)
}

/// Writes rows as this role; how many were not locked.
type Put = fn(pg_sys::Oid, Vec<Outcome>) -> Result<i64, Refused>;

/// Writes the rows `w` of runs `r` that are not finished and fit; how many could not be written now.
fn write(which: &str, args: &[DatumWithOid<'_>], put: Put) -> Result<Result<i64, Refused>, DotError> {
    let Some(extension) = extension::find()? else { return Ok(Ok(0)) };
    let Some(table) = object::lock_relation_now(TABLE, extension.schema_oid) else { return Ok(Ok(1)) };
    if let Some(trigger) = stranger(&extension, table) {
        pgrx::warning!(
            "dot_wrapper: dot_run_request is not kept up, since its trigger {trigger} is somebody's who is not trusted, or has a WHEN clause"
        );
        return Ok(Ok(0));
    }
    // A row whose role did not request the run is told nothing of it, however it came by the run's id.
    let sql = format!(
        "SELECT w.id, r.run_status, r.reason, r.message, r.result::text, r.finished_at
         FROM {}.dot_run_request w JOIN dot_wrapper.dot_run r ON r.run_id = w.run_id
         WHERE w.finished_at IS NULL AND w.requested_by_oid = r.requested_by_oid AND {which} LIMIT {BATCH}",
        extension.schema
    );
    let rows = as_owner(&extension, || spi::rows(&sql, args, Outcome::read))?;
    let fitting = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if fitting == 0 {
        return Ok(Ok(0));
    }
    let writer = match writer() {
        Ok(writer) => writer,
        Err(gone) => return Ok(Err(Refused::Failed(gone.message))),
    };
    let began = Instant::now();
    let written = put(writer, rows);
    SLOWED.set(session::time_left().is_some() && began.elapsed() >= SLOW);
    Ok(written.map(|written| if fitting == BATCH { 1 } else { fitting - written }))
}

/// All of them or none.
fn put(writer: pg_sys::Oid, rows: Vec<Outcome>) -> Result<i64, Refused> {
    let mut columns = Outcomes::default();
    rows.into_iter().for_each(|row| columns.push(row));
    match xact::subtransaction(|| foreign::as_owner(writer, PATH, || columns.write())) {
        Ok(written) => written,
        // Somebody's own cancel, or his statement_timeout.
        Err(caught) if caught.sqlstate == QUERY_CANCELED && session::time_left().is_none() => caught.raise(),
        // Whatever else it says about the transaction, a trigger may have chosen it; the end of the process is no ERROR, and
        // a transaction that cannot be serialized fails at its end.
        Err(caught) => Err(Refused::Failed(caught.to_string())),
    }
}

/// Those that can be, one after the other, while there is time.
fn put_each(writer: pg_sys::Oid, rows: Vec<Outcome>) -> Result<i64, Refused> {
    Ok(rows.into_iter().filter_map(|row| put(writer, vec![row]).ok()).sum())
}

/// One row's outcome.
struct Outcome {
    id: pgrx::Uuid,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    /// As text, so that its numbers stay as they are.
    result: Option<String>,
    finished_at: Option<TimestampWithTimeZone>,
}

impl Outcome {
    fn read(row: &pgrx::spi::SpiHeapTupleData<'_>) -> pgrx::spi::Result<Outcome> {
        Ok(Outcome {
            id: spi::need(row, 1)?,
            status: spi::need(row, 2)?,
            reason: row.get(3)?,
            message: row.get(4)?,
            result: row.get(5)?,
            finished_at: row.get(6)?,
        })
    }
}

/// The same, by columns.
#[derive(Default)]
struct Outcomes {
    ids: Vec<pgrx::Uuid>,
    status: Vec<String>,
    reason: Vec<Option<String>>,
    message: Vec<Option<String>>,
    result: Vec<Option<String>>,
    finished_at: Vec<Option<TimestampWithTimeZone>>,
}

impl Outcomes {
    fn push(&mut self, outcome: Outcome) {
        self.ids.push(outcome.id);
        self.status.push(outcome.status);
        self.reason.push(outcome.reason);
        self.message.push(outcome.message);
        self.result.push(outcome.result);
        self.finished_at.push(outcome.finished_at);
    }

    /// As [`ROLE`]; how many rows were not locked.
    fn write(self) -> Result<i64, DotError> {
        let sql = "WITH mine AS MATERIALIZED (
                SELECT w.id FROM dot_wrapper.request_outcome w WHERE w.id = ANY ($1) AND w.finished_at IS NULL
                FOR NO KEY UPDATE SKIP LOCKED
            ), done AS (
                UPDATE dot_wrapper.request_outcome w
                SET run_status = x.run_status, reason = x.reason, message = x.message, result = x.result::jsonb,
                    finished_at = x.finished_at
                FROM mine m, unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                             AS x (id, run_status, reason, message, result, finished_at)
                WHERE w.id = m.id AND x.id = m.id
                RETURNING w.id
            )
            SELECT count(*) FROM done";
        let args = [
            self.ids.into(),
            self.status.into(),
            self.reason.into(),
            self.message.into(),
            self.result.into(),
            self.finished_at.into(),
        ];
        let _ours = Ours::begin();
        Ok(spi::row(sql, &args, |row| spi::need(row, 1))?.unwrap_or(0))
    }
}

fn writer() -> Result<pg_sys::Oid, DotError> {
    role::lookup(ROLE).ok_or_else(|| {
        DotError::new(SqlState::ObjectNotInPrerequisiteState, format!("the role {ROLE} is gone"))
            .hint(format!("CREATE ROLE {ROLE}; and give it what sql/56_request.sql does."))
    })
}

/// A trigger that keeps the table from being written, if there is one.
pub fn hindrance(extension: &Extension) -> Option<String> {
    let table = object::lock_relation(TABLE, extension.schema_oid, Use::Read)?;
    stranger(extension, table.oid)
}

/// A trigger of the table that would run code of somebody who is not trusted: its function, or the expression that is asked
/// before it, of which nobody can say who wrote it. Rules, policies, defaults and the like are the table's owner's.
fn stranger(extension: &Extension, table: pg_sys::Oid) -> Option<String> {
    let is_strange = |trigger: &hung::Hung| {
        trigger.asks_on_update || !trigger.function_owner.is_some_and(|owner| extension.trusts(owner))
    };
    hung::triggers(table).into_iter().find(is_strange).map(|trigger| trigger.name)
}

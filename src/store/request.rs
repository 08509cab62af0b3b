//! `dot_run_request`: whether a row is there, what of the ledger it shows, and keeping it up with the ledger.
//!
//! It is a table that users lock, and that others may have put triggers on. So nothing here waits for anybody's lock or fails
//! with anybody's trigger: what cannot be written now is caught up with later. And nothing is written while a trigger of
//! somebody who is not trusted would run with the owner's rights.

use std::cell::Cell;

use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::{JsonB, pg_sys};
use uuid::Uuid;

use super::extension::{self, Extension, as_owner};
use super::spi;
use crate::domain::error::DotError;
use crate::pg::{object, xact};

/// Rows that are caught up with at a time.
const BATCH: i64 = 1000;

/// What a row shows of its run.
pub struct Shown {
    /// The process run.
    pub process_run_id: Uuid,
    /// Where the run stands.
    pub run_status: String,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// What the engine gave back.
    pub result: Option<JsonB>,
    /// When it was over.
    pub finished_at: Option<TimestampWithTimeZone>,
}

/// What the ledger has of a run; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub fn shown(run_id: Uuid) -> Result<Option<Shown>, DotError> {
    let sql = "SELECT r.process_run_id, r.run_status, r.reason, r.message, r.result, r.finished_at
               FROM dot_wrapper.dot_run r WHERE r.run_id = $1";
    spi::row(sql, &[spi::uuid(run_id).into()], |row| {
        Ok(Shown {
            process_run_id: spi::need_uuid(row, 1)?,
            run_status: spi::need(row, 2)?,
            reason: row.get(3)?,
            message: row.get(4)?,
            result: row.get(5)?,
            finished_at: row.get(6)?,
        })
    })
}

/// True when a row of this id is there, whoever's it is.
///
/// # Errors
/// XX000 only.
pub fn exists(extension: &Extension, id: Uuid) -> Result<bool, DotError> {
    let sql = format!("SELECT true FROM {}.dot_run_request w WHERE w.id = $1", extension.schema);
    Ok(spi::row(&sql, &[spi::uuid(id).into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// The first of these requests whose run is in the ledger and whose row is not in the table, and whether another row has its
/// id. Runs that were rolled back are not looked for.
///
/// # Errors
/// XX000 only.
pub fn without_row(extension: &Extension, made: &[(Uuid, Uuid)]) -> Result<Option<(Uuid, bool)>, DotError> {
    let sql = format!(
        "SELECT x.id, EXISTS (SELECT FROM {0}.dot_run_request w WHERE w.id = x.id)
         FROM unnest($1::uuid[], $2::uuid[]) AS x (id, run_id)
         JOIN dot_wrapper.dot_run r ON r.run_id = x.run_id AND r.source = 'request' AND r.source_ref = x.id::text
         WHERE NOT EXISTS (SELECT FROM {0}.dot_run_request w WHERE w.id = x.id AND w.run_id = x.run_id)
         LIMIT 1",
        extension.schema
    );
    let (ids, runs): (Vec<_>, Vec<_>) = made.iter().map(|(id, run)| (spi::uuid(*id), spi::uuid(*run))).unzip();
    spi::row(&sql, &[ids.into(), runs.into()], |row| Ok((spi::need_uuid(row, 1)?, spi::need(row, 2)?)))
}

thread_local! {
    /// The change that goes on is ours.
    static OURS: Cell<bool> = const { Cell::new(false) };
    /// Some rows could not be written.
    static MISSED: Cell<bool> = const { Cell::new(false) };
}

/// True while dot_wrapper itself changes rows.
pub fn is_ours() -> bool {
    OURS.get()
}

/// True when rows of this process's runs are behind the ledger.
pub fn has_missed() -> bool {
    MISSED.get()
}

/// Ends with the statement that it is made for, also when that raises an error.
struct Ours;

impl Ours {
    fn begin() -> Ours {
        OURS.set(true);
        Ours
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.set(false);
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
    let left = write("w.run_id = ANY ($1)", &[run_ids.into()])?;
    if left > 0 {
        MISSED.set(true);
    }
    Ok(())
}

/// The same for all rows that are behind the ledger: what was locked when their runs moved.
///
/// # Errors
/// XX000 only.
pub fn catch_up() -> Result<(), DotError> {
    let behind = "(w.run_status, w.reason, w.message) IS DISTINCT FROM (r.run_status, r.reason, r.message)";
    MISSED.set(write(behind, &[])? > 0);
    Ok(())
}

/// Gives the unfinished rows of these runs to the roles that have the requesters' names here.
///
/// # Errors
/// XX000 only.
pub fn adopt(run_ids: &[Uuid]) -> Result<(), DotError> {
    let run_ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    let Some(extension) = extension::find()?.filter(|_| !run_ids.is_empty()) else { return Ok(()) };
    let sql = format!(
        "UPDATE {}.dot_run_request w SET requested_by_oid = o.oid FROM pg_catalog.pg_roles o
         WHERE w.run_id = ANY ($1) AND w.finished_at IS NULL AND o.rolname = w.requested_by AND o.oid <> w.requested_by_oid",
        extension.schema
    );
    let _ours = Ours::begin();
    spi::run(&sql, &[run_ids.into()]).map(drop)
}

/// Writes the rows `w` of runs `r` that are not finished and fit; how many could not be written now.
fn write(which: &str, args: &[DatumWithOid<'_>]) -> Result<i64, DotError> {
    let Some(extension) = extension::find()? else { return Ok(0) };
    let Some(table) = object::lock_relation_now(c"dot_run_request", extension.schema_oid) else { return Ok(1) };
    if let Some(trigger) = stranger(&extension, table)? {
        pgrx::warning!(
            "dot_wrapper: dot_run_request is not kept up, since its trigger {trigger} is somebody's who is not trusted"
        );
        return Ok(0);
    }
    let sql = format!(
        "WITH fits AS MATERIALIZED (
            SELECT w.id FROM {0}.dot_run_request w JOIN dot_wrapper.dot_run r ON r.run_id = w.run_id
            WHERE w.finished_at IS NULL AND w.requested_by_oid = r.requested_by_oid AND {which} LIMIT {BATCH}
        ), mine AS MATERIALIZED (
            SELECT w.id FROM {0}.dot_run_request w WHERE w.id IN (SELECT f.id FROM fits f) FOR NO KEY UPDATE SKIP LOCKED
        ), done AS (
            UPDATE {0}.dot_run_request w
            SET run_status = r.run_status, reason = r.reason, message = r.message, result = r.result,
                finished_at = r.finished_at
            FROM mine m, dot_wrapper.dot_run r
            WHERE w.id = m.id AND r.run_id = w.run_id
            RETURNING w.id
        )
        SELECT CASE (SELECT count(*) FROM fits) WHEN {BATCH} THEN 1
               ELSE (SELECT count(*) FROM fits f WHERE f.id NOT IN (SELECT d.id FROM done d)) END",
        extension.schema
    );
    let written = xact::subtransaction(|| {
        let _ours = Ours::begin();
        as_owner(&extension, || spi::row(&sql, args, |row| spi::need(row, 1)))
    });
    match written {
        Ok(left) => Ok(left?.unwrap_or(0)),
        Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
        Err(caught) => {
            // An administrator's trigger; the run goes on.
            pgrx::warning!("dot_wrapper: dot_run_request is not kept up: {caught}");
            Ok(0)
        }
    }
}

/// A trigger that keeps the table from being written, if there is one.
///
/// # Errors
/// XX000 only.
pub fn hindrance(extension: &Extension) -> Result<Option<String>, DotError> {
    let sql = "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = $1 AND c.relname = 'dot_run_request'";
    let table = spi::row(sql, &[extension.schema_oid.into()], |row| spi::need(row, 1))?;
    table.map_or(Ok(None), |table| stranger(extension, table))
}

/// A trigger of the table whose function belongs to nobody who is trusted.
fn stranger(extension: &Extension, table: pg_sys::Oid) -> Result<Option<String>, DotError> {
    let sql = "SELECT t.tgname::text, f.proowner FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid
               WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D'";
    let found =
        spi::rows(sql, &[table.into()], |row| Ok((spi::need::<String>(row, 1)?, spi::need::<pg_sys::Oid>(row, 2)?)))?;
    Ok(found.into_iter().find(|(_, owner)| !extension.trusts(*owner)).map(|(name, _)| name))
}

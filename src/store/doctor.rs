//! Counts for `fn_dot_doctor`.

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;
use crate::error;

/// What is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Waiting for the worker.
    pub queued: i64,
    /// Set aside for want of a permit.
    pub held: i64,
    /// Set aside because the worker died over them.
    pub quarantined: i64,
    /// Sent.
    pub running: i64,
    /// Sent, outcome unknown.
    pub in_doubt: i64,
    /// Tools whose counters are behind.
    pub owed: i64,
}

/// Counts what is not finished.
///
/// # Errors
/// XX000 only.
pub fn unfinished() -> Result<Unfinished, DotError> {
    let sql = "SELECT count(*) FILTER (WHERE q.state = 'queued' AND q.available_at < 'infinity'),
                      count(*) FILTER (WHERE q.state = 'queued' AND q.available_at = 'infinity' AND q.crashes = 0),
                      count(*) FILTER (WHERE q.state = 'queued' AND q.available_at = 'infinity' AND q.crashes > 0),
                      count(*) FILTER (WHERE q.state = 'running'),
                      count(*) FILTER (WHERE q.state = 'in_doubt'),
                      (SELECT count(*) FROM dot_wrapper.usage_debt)
               FROM dot_wrapper.dot_queue q";
    spi::row(sql, &[], |row| {
        Ok(Unfinished {
            queued: spi::need(row, 1)?,
            held: spi::need(row, 2)?,
            quarantined: spi::need(row, 3)?,
            running: spi::need(row, 4)?,
            in_doubt: spi::need(row, 5)?,
            owed: spi::need(row, 6)?,
        })
    })?
    .ok_or_else(|| error::internal("no count"))
}

/// Roles that are members of the worker's role and are not the worker: they can do what it can.
///
/// # Errors
/// XX000 only.
pub fn worker_members(worker_role: &str) -> Result<Vec<String>, DotError> {
    let sql = "SELECT m.rolname::text FROM pg_catalog.pg_auth_members a
               JOIN pg_catalog.pg_roles g ON g.oid = a.roleid AND g.rolname = 'dot_wrapper_worker'
               JOIN pg_catalog.pg_roles m ON m.oid = a.member
               WHERE m.rolname <> $1 ORDER BY 1";
    spi::rows(sql, &[worker_role.into()], |row| spi::need(row, 1))
}

/// Triggers on tables of the schema dot_wrapper whose functions are not the extension's: `name on table`.
///
/// # Errors
/// XX000 only.
pub fn foreign_triggers(extension: &Extension) -> Result<Vec<String>, DotError> {
    let sql = "SELECT format('%I ON dot_wrapper.%I', t.tgname, c.relname)
               FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'dot_wrapper'
               WHERE NOT t.tgisinternal AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = t.tgfoid AND d.deptype = 'e'
                     AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = $1)
               ORDER BY 1";
    spi::rows(sql, &[extension.oid.into()], |row| spi::need(row, 1))
}

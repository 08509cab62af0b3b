//! pg_cron, with the rights of whoever calls: whether it is really there, its jobs of ours, and its functions.
//!
//! Anybody may make a schema `cron` where the extension is not; so nothing in it is called that the extension does not own.

use super::spi;
use crate::domain::error::DotError;
use crate::domain::tick;
use crate::pg::caught::Caught;
use crate::pg::xact;

/// How far the extension has been made out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// It is installed in this database.
    pub is_installed: bool,
    /// What is used of it belongs to it.
    pub is_genuine: bool,
    /// The caller may look into its schema.
    pub may_use: bool,
    /// This database.
    pub database: String,
}

/// Looks for it in this database.
///
/// # Errors
/// XX000 only.
pub fn find() -> Result<Found, DotError> {
    let sql = "SELECT x.oid IS NOT NULL, coalesce(o.count = 4, false),
                      coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), pg_catalog.current_database()::text
               FROM (SELECT) one
               LEFT JOIN pg_catalog.pg_extension x ON x.extname = 'pg_cron'
               LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'cron'
               LEFT JOIN LATERAL (
                   SELECT count(*) FROM pg_catalog.pg_depend d
                   WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = x.oid AND d.deptype = 'e'
                     AND ((d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid)
                          OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                              AND d.objid = (SELECT c.oid FROM pg_catalog.pg_class c
                                             WHERE c.relnamespace = n.oid AND c.relname = 'job'))
                          OR (d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                              AND d.objid IN (SELECT f.oid FROM pg_catalog.pg_proc f WHERE f.pronamespace = n.oid
                                              AND ((f.proname = 'schedule' AND f.pronargs = 3)
                                                   OR (f.proname = 'unschedule' AND f.pronargs = 1
                                                       AND f.proargtypes[0] = 'pg_catalog.int8'::pg_catalog.regtype)))))
               ) o ON true";
    let found = spi::row(sql, &[], |row| {
        Ok(Found {
            is_installed: spi::need(row, 1)?,
            is_genuine: spi::need(row, 2)?,
            may_use: spi::need(row, 3)?,
            database: spi::need(row, 4)?,
        })
    })?;
    found.ok_or_else(|| crate::error::internal("no answer about pg_cron"))
}

/// A job that has one of our names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// When.
    pub schedule: String,
    /// What.
    pub command: String,
    /// As whom.
    pub role: String,
    /// Whether it is the caller's own.
    pub is_own: bool,
    /// Whether it is run at all.
    pub is_active: bool,
}

/// The jobs of this database that have one of our names, as far as the caller may see them.
///
/// # Errors
/// XX000 only.
pub fn jobs() -> Result<Vec<Job>, DotError> {
    let sql = "SELECT j.jobid, j.jobname::text, j.schedule, j.command, j.username::text, j.username::text = current_user::text,
                      j.active
               FROM cron.job j
               WHERE j.database = pg_catalog.current_database()::text AND pg_catalog.starts_with(j.jobname::text, $1)
               ORDER BY j.jobid";
    spi::rows(sql, &[tick::PREFIX.into()], |row| {
        Ok(Job {
            id: spi::need(row, 1)?,
            name: spi::need(row, 2)?,
            schedule: spi::need(row, 3)?,
            command: spi::need(row, 4)?,
            role: spi::need(row, 5)?,
            is_own: spi::need(row, 6)?,
            is_active: spi::need(row, 7)?,
        })
    })
}

/// The command of the job for a tool.
///
/// # Errors
/// XX000 only.
pub fn command(schema: &str, code: &str) -> Result<String, DotError> {
    let sql = "SELECT $1 || pg_catalog.quote_literal($2) || ')'";
    let found = spi::row(sql, &[opening(schema).into(), code.into()], |row| spi::need(row, 1))?;
    found.ok_or_else(|| crate::error::internal("no command"))
}

/// What the commands of all our jobs begin with.
pub fn opening(schema: &str) -> String {
    format!("SELECT {schema}.fn_dot_tick(")
}

/// Makes the caller's job of that name, or changes it.
///
/// # Errors
/// What pg_cron says against it, as a value inside.
pub fn schedule(name: &str, schedule: &str, command: &str) -> Result<Result<(), Caught>, DotError> {
    attempt("SELECT cron.schedule($1, $2, $3)::text", &[name.into(), schedule.into(), command.into()])
}

/// Removes a job.
///
/// # Errors
/// What pg_cron says against it, as a value inside.
pub fn unschedule(id: i64) -> Result<Result<(), Caught>, DotError> {
    attempt("SELECT cron.unschedule($1)::text", &[id.into()])
}

fn attempt(sql: &str, args: &[pgrx::datum::DatumWithOid<'_>]) -> Result<Result<(), Caught>, DotError> {
    match xact::subtransaction(|| spi::row(sql, args, |row| row.get::<String>(1))) {
        Ok(done) => done.map(|_| Ok(())),
        Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
        Err(caught) => Ok(Err(caught)),
    }
}

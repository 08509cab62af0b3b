//! `dot_wrapper.job_link`: which job waits for which run, and jobs that could not be taken. That a run has moved is noted
//! by `store::transition`, in the statement that moves it.

use std::time::Duration;

use uuid::Uuid;

use super::spi;
use crate::domain::error::DotError;
use crate::domain::job::{self, Standing};
use crate::domain::state::RunStatus;
use crate::error;

/// The most jobs that are passed over because something is wrong with them. Where so many rest, none is taken.
pub const PASSED_OVER: usize = 1_000;

/// Notes that a job waits for a run. `changed`: the run may have moved before anybody knew of the job.
///
/// # Errors
/// XX000 only.
pub fn link(relation: &str, job_id: &str, run_id: Uuid, changed: bool) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.job_link AS l (relation, job_id, run_id, changed) VALUES ($1, $2, $3, $4)
               ON CONFLICT (relation, job_id) DO UPDATE
               SET run_id = excluded.run_id, changed = excluded.changed, due = '-infinity', trouble = NULL";
    spi::run(sql, &[relation.into(), job_id.into(), spi::uuid(run_id).into(), changed.into()]).map(drop)
}

/// Forgets a job.
///
/// # Errors
/// XX000 only.
pub fn unlink(relation: &str, job_id: &str) -> Result<(), DotError> {
    let sql = "DELETE FROM dot_wrapper.job_link l WHERE l.relation = $1 AND l.job_id = $2";
    spi::run(sql, &[relation.into(), job_id.into()]).map(drop)
}

/// Locks jobs whose runs have moved. Whoever moves such a run from here on waits for this transaction; so what is read of
/// the runs after this, in a statement of its own, is what the jobs are told.
///
/// # Errors
/// XX000 only.
pub fn changed(relation: &str, limit: i64) -> Result<Vec<(String, Uuid)>, DotError> {
    let sql = "SELECT l.job_id, l.run_id FROM dot_wrapper.job_link l
               WHERE l.changed AND l.relation = $1 AND l.due <= clock_timestamp() AND l.run_id IS NOT NULL
               ORDER BY l.due LIMIT $2 FOR UPDATE OF l SKIP LOCKED";
    spi::rows(sql, &[relation.into(), limit.into()], |row| Ok((spi::need(row, 1)?, spi::need_uuid(row, 2)?)))
}

/// Whether a run was refused before any attempt of it, for a reason that lets its job wait.
///
/// # Errors
/// XX000 only.
pub fn is_put_off(run_id: Uuid, standing: &Standing) -> Result<bool, DotError> {
    let reason = standing.reason.as_deref().filter(|_| standing.status == RunStatus::Refused);
    if !reason.is_some_and(job::is_put_off) {
        return Ok(false);
    }
    let sql = "SELECT r.attempts = 0 FROM dot_wrapper.dot_run r WHERE r.run_id = $1";
    Ok(spi::row(sql, &[spi::uuid(run_id).into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// Where a run stands, and its tool.
///
/// # Errors
/// XX000 when there is no such run.
pub fn standing(run_id: Uuid) -> Result<(Standing, String), DotError> {
    let sql =
        "SELECT r.run_status, r.reason, r.message, r.result, r.code FROM dot_wrapper.dot_run r WHERE r.run_id = $1";
    let found = spi::row(sql, &[spi::uuid(run_id).into()], |row| {
        let status = spi::need::<String>(row, 1)?;
        let standing = Standing {
            run_id: Some(run_id),
            status: RunStatus::parse(&status).ok_or(pgrx::spi::Error::InvalidPosition)?,
            reason: row.get(2)?,
            message: row.get(3)?,
            result: row.get::<pgrx::JsonB>(4)?.map(|json| json.0),
        };
        Ok((standing, spi::need(row, 5)?))
    })?;
    found.ok_or_else(|| error::internal(format_args!("there is no run {run_id}")))
}

/// Notes that a job shows where its run stands, which is not over.
///
/// # Errors
/// XX000 only.
pub fn shown(relation: &str, job_id: &str) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.job_link l SET changed = false, due = '-infinity', trouble = NULL
               WHERE l.relation = $1 AND l.job_id = $2";
    spi::run(sql, &[relation.into(), job_id.into()]).map(drop)
}

/// Notes that a job could not be read or written, and leaves it alone for a while. With a run or without.
///
/// # Errors
/// XX000 only.
pub fn trouble(relation: &str, job_id: &str, pause: Duration, what: &str) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.job_link AS l (relation, job_id, due, trouble)
               VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4)
               ON CONFLICT (relation, job_id) DO UPDATE SET due = excluded.due, trouble = excluded.trouble";
    spi::run(sql, &[relation.into(), job_id.into(), pause.as_secs_f64().into(), what.into()]).map(drop)
}

/// Jobs that are not to be taken yet, at most [`PASSED_OVER`]. Forgets those whose time has come.
///
/// # Errors
/// XX000 only.
pub fn passed_over(relation: &str) -> Result<Vec<String>, DotError> {
    let sql = "DELETE FROM dot_wrapper.job_link l WHERE l.run_id IS NULL AND l.due <= clock_timestamp()";
    spi::run(sql, &[])?;
    let sql = "SELECT l.job_id FROM dot_wrapper.job_link l
               WHERE l.trouble IS NOT NULL AND l.relation = $1 AND l.due > clock_timestamp() LIMIT $2";
    let most = i64::try_from(PASSED_OVER).unwrap_or(i64::MAX);
    spi::rows(sql, &[relation.into(), most.into()], |row| spi::need(row, 1))
}

/// How long until the first of the jobs that rest is to be touched again; `None` when none rests.
///
/// # Errors
/// XX000 only.
pub fn next_due(relation: &str) -> Result<Option<Duration>, DotError> {
    let sql = "SELECT extract(epoch FROM min(l.due) - clock_timestamp())::float8 FROM dot_wrapper.job_link l
               WHERE l.trouble IS NOT NULL AND l.relation = $1 AND l.due > clock_timestamp()";
    let seconds = spi::row(sql, &[relation.into()], |row| row.get::<f64>(1))?.flatten();
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}

/// For the doctor: how many jobs are in trouble, an example, and how many wait that another table had.
///
/// # Errors
/// XX000 only.
pub fn troubles(relation: Option<&str>) -> Result<(i64, Option<String>, i64), DotError> {
    let sql = "SELECT count(l.trouble), min(l.job_id || ': ' || l.trouble), count(*) FILTER (WHERE l.relation IS DISTINCT FROM $1)
               FROM dot_wrapper.job_link l";
    spi::row(sql, &[relation.into()], |row| Ok((spi::need(row, 1)?, row.get(2)?, spi::need(row, 3)?)))?
        .ok_or_else(|| error::internal("no count"))
}

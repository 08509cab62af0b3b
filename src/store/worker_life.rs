//! `dot_wrapper.worker_life`: whether the last worker of this database left of its own accord.

use uuid::Uuid;

use super::spi;
use crate::domain::error::DotError;

/// Notes that this worker begins. True when the one before it, under the same postmaster, did not say that it left: it was
/// killed, or it crashed, perhaps over a run.
///
/// # Errors
/// XX000 only.
pub fn begin(worker: Uuid) -> Result<bool, DotError> {
    let sql = "WITH before AS (
            SELECT w.left_at IS NULL AND w.started_at >= pg_catalog.pg_postmaster_start_time() AS unclean
            FROM dot_wrapper.worker_life w
        ), now AS (
            INSERT INTO dot_wrapper.worker_life AS w (worker, started_at) VALUES ($1, clock_timestamp())
            ON CONFLICT (only_row) DO UPDATE SET worker = excluded.worker, started_at = excluded.started_at, left_at = NULL
        )
        SELECT coalesce((SELECT b.unclean FROM before b), false)";
    Ok(spi::row(sql, &[spi::uuid(worker).into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// Notes that this worker leaves.
///
/// # Errors
/// XX000 only.
pub fn end(worker: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.worker_life w SET left_at = clock_timestamp() WHERE w.worker = $1";
    spi::run(sql, &[spi::uuid(worker).into()]).map(drop)
}

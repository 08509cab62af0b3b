//! Counts for `fn_dot_doctor`.

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
                      count(*) FILTER (WHERE q.state = 'queued' AND q.available_at = 'infinity'),
                      count(*) FILTER (WHERE q.state = 'running'),
                      count(*) FILTER (WHERE q.state = 'in_doubt'),
                      (SELECT count(*) FROM dot_wrapper.usage_debt)
               FROM dot_wrapper.dot_queue q";
    spi::row(sql, &[], |row| {
        Ok(Unfinished {
            queued: spi::need(row, 1)?,
            held: spi::need(row, 2)?,
            running: spi::need(row, 3)?,
            in_doubt: spi::need(row, 4)?,
            owed: spi::need(row, 5)?,
        })
    })?
    .ok_or_else(|| error::internal("no count"))
}

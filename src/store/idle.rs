//! What a worker looks for that nobody has told of anything, as after COMMIT PREPARED: all of it in one statement.
//!
//! Does not live here: what is done about it; each step looks for itself.

use super::spi;
use crate::domain::error::DotError;

/// What there may be to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Runs that are not over.
    pub runs: bool,
    /// Events that are not sealed, or a chain that somebody has changed.
    pub unsealed: bool,
}

/// Looks.
///
/// # Errors
/// XX000 only.
pub fn look() -> Result<Seen, DotError> {
    let sql = "SELECT EXISTS (SELECT FROM dot_wrapper.dot_queue),
                      CASE WHEN h.seal_id IS NULL THEN e.newest > 0
                           ELSE h.low <> h.high OR e.newest > h.high OR s.seal_id IS DISTINCT FROM h.seal_id
                                OR s.hash IS DISTINCT FROM h.hash END
               FROM (SELECT coalesce((SELECT e.event_id FROM dot_wrapper.dot_run_event e ORDER BY e.event_id DESC LIMIT 1), 0)
                            AS newest) e
               LEFT JOIN dot_wrapper.seal_head h ON true
               LEFT JOIN (SELECT n.seal_id, n.hash FROM dot_wrapper.dot_seal n ORDER BY n.seal_id DESC LIMIT 1) s ON true";
    let read =
        |row: &pgrx::spi::SpiHeapTupleData<'_>| Ok(Seen { runs: spi::need(row, 1)?, unsealed: spi::need(row, 2)? });
    Ok(spi::in_index_order(|| spi::steady_row(sql, &[], read))?.unwrap_or_default())
}

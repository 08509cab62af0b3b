//! How many runs wait in `dot_wrapper.dot_queue`, counted up to a limit. When to count is `domain::depth`'s.

use super::spi;
use crate::domain::error::DotError;
use crate::error;
use crate::pg::object;

/// Which of the waiting runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// All of the database.
    All,
    /// Those of a tool.
    Tool(&'a str),
    /// Those in a range of lanes.
    Lanes(i64, i64),
}

/// How many rows were ever put into the queue. Reads a sequence: costs nothing, sees everybody, waits for nobody.
///
/// # Errors
/// XX000 only.
pub fn pushed() -> Result<i64, DotError> {
    let sequence = object::find_relation(c"dot_queue_seq_seq", c"dot_wrapper");
    sequence.map(object::last_value).ok_or_else(|| error::internal("no sequence dot_queue_seq_seq"))
}

/// How many wait, counting no further than `limit`: what has been committed, and what this transaction has put in.
///
/// # Errors
/// XX000 only.
pub fn count(of: Of<'_>, limit: i64) -> Result<i64, DotError> {
    let all = "SELECT count(*) FROM (SELECT FROM dot_wrapper.dot_queue q WHERE q.state = 'queued' LIMIT $1) x";
    let tool = "SELECT count(*) FROM (SELECT FROM dot_wrapper.dot_queue q
                                      WHERE q.state = 'queued' AND q.code = $2 LIMIT $1) x";
    let lanes = "SELECT count(*) FROM (SELECT FROM dot_wrapper.dot_queue q
                                       WHERE q.state = 'queued' AND q.lane BETWEEN $2 AND $3 LIMIT $1) x";
    let found = match of {
        Of::All => spi::row(all, &[limit.into()], |row| spi::need(row, 1)),
        Of::Tool(code) => spi::row(tool, &[limit.into(), code.into()], |row| spi::need(row, 1)),
        Of::Lanes(first, last) => spi::row(lanes, &[limit.into(), first.into(), last.into()], |row| spi::need(row, 1)),
    };
    Ok(found?.unwrap_or(0))
}

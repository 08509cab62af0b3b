//! The chain of seals, link by link, for `fn_dot_verify` and `fn_dot_seal_head`.

use super::spi;
use super::verify::{Finding, MOST, Scope};
use crate::domain::error::DotError;
use crate::domain::seal::chain::Link;

/// The hash that a seal `s` has: `domain::seal::chain::Seal::hash`, in SQL.
const HASH: &str = "sha256(s.prev || convert_to(concat_ws(E'\\n', 'seal 1', s.seal_id,
    trunc(extract(epoch FROM s.sealed_at) * 1000000), s.process_run_id, s.run_id, array_to_string(s.event_ids, ','),
    array_to_string(s.attempts, ','), encode(s.digests, 'hex'), s.origins), 'UTF8'))";

/// Seals after `after` and up to `last`, in order, at most `limit`.
///
/// # Errors
/// XX000 only.
pub fn after(after: i64, last: i64, limit: i64) -> Result<Vec<Link>, DotError> {
    let sql = format!(
        "SELECT s.seal_id, s.run_id, s.prev, s.hash, {HASH} FROM dot_wrapper.dot_seal s
         WHERE s.seal_id > $1 AND s.seal_id <= $2 ORDER BY s.seal_id LIMIT $3"
    );
    spi::rows(&sql, &[after.into(), last.into(), limit.into()], |row| {
        Ok(Link {
            seal_id: spi::need(row, 1)?,
            run_id: spi::need_uuid(row, 2)?,
            prev: spi::need(row, 3)?,
            hash: spi::need(row, 4)?,
            computed: spi::need(row, 5)?,
        })
    })
}

/// Seals of the scope up to `last` that are not what they were, or do not follow on what is beside them.
///
/// # Errors
/// XX000 only.
pub fn loose(scope: &Scope, last: i64) -> Result<Vec<Finding>, DotError> {
    let sql = format!(
        "SELECT s.run_id, s.seal_id, CASE WHEN {HASH} <> s.hash THEN 'changed' ELSE 'chain_broken' END,
                CASE WHEN {HASH} <> s.hash THEN 'its hash is another' ELSE 'it does not follow on the one before it, or the next not on it' END
         FROM dot_wrapper.dot_seal s
         LEFT JOIN dot_wrapper.dot_seal p ON p.seal_id = s.seal_id - 1
         LEFT JOIN dot_wrapper.dot_seal n ON n.seal_id = s.seal_id + 1
         WHERE {{s}} AND s.seal_id <= $3
           AND ({HASH} <> s.hash OR coalesce(p.hash <> s.prev, s.seal_id > 1 OR s.prev <> decode(repeat('00', 32), 'hex'))
                OR coalesce(n.prev <> s.hash, s.seal_id < (SELECT max(x.seal_id) FROM dot_wrapper.dot_seal x)))
         ORDER BY s.seal_id LIMIT {MOST}"
    );
    let mut args = scope.args();
    args.push(last.into());
    spi::rows(&scope.statement(&sql), &args, |row| {
        Ok(Finding {
            kind: "seal",
            run_id: Some(spi::need_uuid(row, 1)?),
            item: Some(spi::need(row, 2)?),
            verdict: spi::need(row, 3)?,
            detail: spi::need(row, 4)?,
        })
    })
}

/// The newest seal: its number, its hash, and when it was made, as PostgreSQL's; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub fn newest() -> Result<Option<(i64, Vec<u8>, pgrx::datum::TimestampWithTimeZone)>, DotError> {
    let sql = "SELECT s.seal_id, s.hash, s.sealed_at FROM dot_wrapper.dot_seal s ORDER BY s.seal_id DESC LIMIT 1";
    spi::row(sql, &[], |row| Ok((spi::need(row, 1)?, spi::need(row, 2)?, spi::need(row, 3)?)))
}

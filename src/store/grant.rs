//! `dot_wrapper.lease_grant`: which run was granted which lease last, and its fencing token.

use uuid::Uuid;

use super::spi;
use crate::domain::error::DotError;

/// Records a new grant; its token, larger than any before.
///
/// # Errors
/// XX000 only.
pub fn record(key: &str, run_id: Uuid, ttl_s: i64) -> Result<Option<i64>, DotError> {
    let sql = "INSERT INTO dot_wrapper.lease_grant AS g (lease_key, run_id, fencing_token, ttl_s, expires_at)
               VALUES ($1, $2, pg_catalog.nextval('dot_wrapper.fencing_token_seq'), $3::integer,
                       clock_timestamp() + make_interval(secs => $3))
               ON CONFLICT (lease_key) DO UPDATE
               SET run_id = excluded.run_id, fencing_token = excluded.fencing_token, ttl_s = excluded.ttl_s,
                   expires_at = excluded.expires_at, release_due = false
               RETURNING g.fencing_token";
    spi::row(sql, &[key.into(), spi::uuid(run_id).into(), seconds(ttl_s).into()], |row| spi::need(row, 1))
}

/// Prolongs a grant that is still this run's and has not run out; its token.
///
/// # Errors
/// XX000 only.
pub fn prolong(key: &str, run_id: Uuid, ttl_s: i64) -> Result<Option<i64>, DotError> {
    let sql = "UPDATE dot_wrapper.lease_grant g SET expires_at = clock_timestamp() + make_interval(secs => $3)
               WHERE g.lease_key = $1 AND g.run_id = $2 AND NOT g.release_due AND g.expires_at > clock_timestamp()
               RETURNING g.fencing_token";
    spi::row(sql, &[key.into(), spi::uuid(run_id).into(), seconds(ttl_s).into()], |row| spi::need(row, 1))
}

/// A grant that wants something done.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The key.
    pub key: String,
    /// The run.
    pub run_id: Uuid,
    /// Seconds.
    pub ttl_s: i32,
}

/// Grants of unfinished runs that have used up a third of their time, oldest first.
///
/// # Errors
/// XX000 only.
pub fn to_renew(limit: i64) -> Result<Vec<Grant>, DotError> {
    grants(
        "SELECT g.lease_key, g.run_id, g.ttl_s FROM dot_wrapper.lease_grant g
         WHERE NOT g.release_due AND g.expires_at < clock_timestamp() + make_interval(secs => g.ttl_s * 2 / 3)
         ORDER BY g.expires_at LIMIT $1",
        limit,
    )
}

/// Grants whose runs are over and whose leases the substrate has not let go.
///
/// # Errors
/// XX000 only.
pub fn to_release(limit: i64) -> Result<Vec<Grant>, DotError> {
    grants(
        "SELECT g.lease_key, g.run_id, g.ttl_s FROM dot_wrapper.lease_grant g WHERE g.release_due
         ORDER BY g.expires_at LIMIT $1",
        limit,
    )
}

fn grants(sql: &str, limit: i64) -> Result<Vec<Grant>, DotError> {
    spi::rows(sql, &[limit.into()], |row| {
        Ok(Grant { key: spi::need(row, 1)?, run_id: spi::need_uuid(row, 2)?, ttl_s: spi::need(row, 3)? })
    })
}

/// Forgets a grant, if it is still this run's.
///
/// # Errors
/// XX000 only.
pub fn forget(key: &str, run_id: Uuid) -> Result<(), DotError> {
    let sql = "DELETE FROM dot_wrapper.lease_grant g WHERE g.lease_key = $1 AND g.run_id = $2";
    spi::run(sql, &[key.into(), spi::uuid(run_id).into()]).map(drop)
}

/// Marks a grant whose lease could not be let go.
///
/// # Errors
/// XX000 only.
pub fn release_later(key: &str, run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.lease_grant g SET release_due = true WHERE g.lease_key = $1 AND g.run_id = $2";
    spi::run(sql, &[key.into(), spi::uuid(run_id).into()]).map(drop)
}

/// How soon the next grant wants renewing or releasing, in milliseconds; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub fn due_in_ms() -> Result<Option<f64>, DotError> {
    let sql = "SELECT min(CASE WHEN g.release_due THEN 0
                      ELSE (extract(epoch FROM g.expires_at - clock_timestamp()) - g.ttl_s * 2 / 3) * 1000 END)::float8
               FROM dot_wrapper.lease_grant g";
    Ok(spi::row(sql, &[], |row| row.get::<f64>(1))?.flatten())
}

/// True when somebody else's lease on this key is live, as far as the lease table can be read; `None` when it has not
/// the columns that we know.
///
/// # Errors
/// XX000 only.
pub fn is_held(schema: &str, key: &str) -> Result<Option<bool>, DotError> {
    let known = "SELECT count(*) = 2 FROM pg_catalog.pg_attribute a
                 JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
                 WHERE a.attrelid = to_regclass($1 || '.dot_iu_runtime_lease') AND NOT a.attisdropped
                   AND a.attname IN ('lease_key', 'expires_at')";
    if spi::row(known, &[schema.into()], |row| row.get::<bool>(1))?.flatten() != Some(true) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {schema}.dot_iu_runtime_lease l
                        WHERE l.lease_key = $1 AND l.expires_at > clock_timestamp())"
    );
    spi::row(&sql, &[key.into()], |row| spi::need(row, 1))
}

fn seconds(ttl_s: i64) -> f64 {
    f64::from(i32::try_from(ttl_s).unwrap_or(i32::MAX))
}

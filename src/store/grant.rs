//! `dot_wrapper.lease_grant`: which run was granted which lease last, and its fencing token.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys;
use uuid::Uuid;

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;
use crate::error;
use crate::pg::object::{self, Use};
use crate::pg::user::{self, Trust};
use crate::pg::xact;

/// Records a new grant; its token, larger than any before.
///
/// # Errors
/// XX000 only.
pub fn record(key: &str, run_id: Uuid, ttl_s: i64) -> Result<Option<i64>, DotError> {
    let sql = "INSERT INTO dot_wrapper.lease_grant AS g (lease_key, run_id, fencing_token, ttl_s, expires_at, renew_at)
               VALUES ($1, $2, pg_catalog.nextval('dot_wrapper.fencing_token_seq'), $3::integer,
                       clock_timestamp() + make_interval(secs => $3), clock_timestamp() + make_interval(secs => $3 / 3))
               ON CONFLICT (lease_key) DO UPDATE
               SET run_id = excluded.run_id, fencing_token = excluded.fencing_token, ttl_s = excluded.ttl_s,
                   expires_at = excluded.expires_at, renew_at = excluded.renew_at
               RETURNING g.fencing_token";
    spi::row(sql, &[key.into(), spi::uuid(run_id).into(), seconds(ttl_s).into()], |row| spi::need(row, 1))
}

/// Prolongs a grant that is still this run's and has not run out; its token.
///
/// # Errors
/// XX000 only.
pub fn prolong(key: &str, run_id: Uuid, ttl_s: i64) -> Result<Option<i64>, DotError> {
    let sql = "UPDATE dot_wrapper.lease_grant g
               SET expires_at = clock_timestamp() + make_interval(secs => $3),
                   renew_at = clock_timestamp() + make_interval(secs => $3 / 3)
               WHERE g.lease_key = $1 AND g.run_id = $2 AND g.expires_at > clock_timestamp()
               RETURNING g.fencing_token";
    spi::row(sql, &[key.into(), spi::uuid(run_id).into(), seconds(ttl_s).into()], |row| spi::need(row, 1))
}

/// As [`prolong`], for many: key, run, seconds. The tokens of those whose grants are still theirs. One that is not yet to be
/// renewed is left as it is, unless it would outlive the lease, as where the time to live was shortened.
///
/// # Errors
/// XX000 only.
pub fn prolong_all(grants: &[(&str, Uuid, i64)]) -> Result<HashMap<Uuid, i64>, DotError> {
    let sql = "WITH x AS MATERIALIZED (
            SELECT x.ttl_s, g.place, x.run_id, g.fencing_token,
                   g.renew_at <= clock_timestamp() OR g.expires_at > clock_timestamp() + make_interval(secs => x.ttl_s)
                       AS is_due
            FROM unnest($1::text[], $2::uuid[], $3::float8[]) AS x (lease_key, run_id, ttl_s)
            CROSS JOIN LATERAL (SELECT g.ctid AS place, g.run_id, g.fencing_token, g.renew_at, g.expires_at
                                FROM dot_wrapper.lease_grant g WHERE g.lease_key = x.lease_key OFFSET 0) g
            WHERE g.run_id = x.run_id AND g.expires_at > clock_timestamp()
        ), due AS (
            UPDATE dot_wrapper.lease_grant g
            SET expires_at = clock_timestamp() + make_interval(secs => x.ttl_s),
                renew_at = clock_timestamp() + make_interval(secs => x.ttl_s / 3)
            FROM x WHERE x.is_due AND g.ctid = x.place AND g.run_id = x.run_id
            RETURNING g.run_id, g.fencing_token
        )
        SELECT x.run_id, x.fencing_token FROM x WHERE NOT x.is_due UNION ALL SELECT d.run_id, d.fencing_token FROM due d";
    let keys: Vec<&str> = grants.iter().map(|(key, ..)| *key).collect();
    let runs: Vec<_> = grants.iter().map(|(_, run_id, _)| spi::uuid(*run_id)).collect();
    let ttls: Vec<f64> = grants.iter().map(|(.., ttl_s)| seconds(*ttl_s)).collect();
    let tokens = spi::rows_by_index(sql, &[keys.into(), runs.into(), ttls.into()], |row| {
        Ok((spi::need_uuid(row, 1)?, spi::need(row, 2)?))
    })?;
    Ok(tokens.into_iter().collect())
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

/// Grants that it is time to look after, of those from `from` on (see [`next_due`]), the longest due first, each with whether its run is over, or has been in doubt for
/// longer than its policy lets it keep a lease; and whether there may be more. Rows that somebody else has locked are left for the next time: nobody's open
/// transaction may hold the others up.
///
/// # Errors
/// XX000 only.
pub fn due(limit: i64, from: f64) -> Result<(Vec<(Grant, bool)>, bool), DotError> {
    let sql = "SELECT g.lease_key, g.run_id, g.ttl_s,
                      r.run_id IS NULL OR r.finished_at IS NOT NULL OR coalesce(q.lease_until <= clock_timestamp(), false)
               FROM (SELECT g.lease_key, g.run_id, g.ttl_s FROM dot_wrapper.lease_grant g
                     WHERE g.renew_at <= now() AND g.renew_at >= to_timestamp($2)
                     ORDER BY g.renew_at LIMIT $1 FOR UPDATE SKIP LOCKED) g
               LEFT JOIN LATERAL (SELECT r.run_id, r.finished_at FROM dot_wrapper.dot_run r
                                  WHERE r.run_id = g.run_id OFFSET 0) r ON true
               LEFT JOIN LATERAL (SELECT q.lease_until FROM dot_wrapper.dot_queue q
                                  WHERE q.run_id = g.run_id OFFSET 0) q ON true";
    let mut found = spi::rows_by_index(sql, &[limit.into(), from.into()], |row| Ok((read(row)?, spi::need(row, 4)?)))?;
    let more = i64::try_from(found.len()).is_ok_and(|found| found >= limit);
    let sql = "SELECT g.lease_key, q.run_id, g.ttl_s
               FROM (SELECT q.run_id FROM dot_wrapper.dot_queue q
                     WHERE q.state = 'in_doubt' AND q.lease_until <= clock_timestamp() OFFSET 0) q
               CROSS JOIN LATERAL (SELECT r.lease_key FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id OFFSET 0) r
               CROSS JOIN LATERAL (SELECT g.lease_key, g.ttl_s FROM dot_wrapper.lease_grant g
                   WHERE g.lease_key = r.lease_key AND g.run_id = q.run_id AND g.renew_at > now()
                   FOR UPDATE SKIP LOCKED) g
               LIMIT $1";
    found.extend(spi::rows_by_index(sql, &[limit.into()], read)?.into_iter().map(|grant| (grant, true)));
    Ok((found, more))
}

/// Has a grant looked after a second later: the substrate did not answer, and others wait. One that somebody has locked is
/// being given away.
///
/// # Errors
/// XX000 only.
pub fn later(key: &str, run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.lease_grant g SET renew_at = clock_timestamp() + interval '1 s'
               FROM (SELECT l.lease_key FROM dot_wrapper.lease_grant l
                     WHERE l.lease_key = $1 AND l.run_id = $2 FOR UPDATE SKIP LOCKED) x
               WHERE g.lease_key = x.lease_key";
    spi::run(sql, &[key.into(), spi::uuid(run_id).into()]).map(drop)
}

fn read(row: &pgrx::spi::SpiHeapTupleData<'_>) -> pgrx::spi::Result<Grant> {
    Ok(Grant { key: spi::need(row, 1)?, run_id: spi::need_uuid(row, 2)?, ttl_s: spi::need(row, 3)? })
}

/// Grants of these runs that have run out. Who has one of the rows locked is taking it over, and has not yet.
///
/// # Errors
/// XX000 only.
pub fn lapsed(run_ids: &[Uuid]) -> Result<Vec<Grant>, DotError> {
    let sql = "SELECT g.lease_key, r.run_id, g.ttl_s
               FROM unnest($1::uuid[]) AS x (run_id)
               CROSS JOIN LATERAL (SELECT r.run_id, r.lease_key FROM dot_wrapper.dot_run r
                                   WHERE r.run_id = x.run_id OFFSET 0) r
               CROSS JOIN LATERAL (SELECT g.lease_key, g.ttl_s FROM dot_wrapper.lease_grant g
                   WHERE g.lease_key = r.lease_key AND g.run_id = r.run_id AND g.expires_at <= clock_timestamp()
                   FOR UPDATE SKIP LOCKED) g";
    spi::rows_by_index(sql, &[run_ids.iter().copied().map(spi::uuid).collect::<Vec<_>>().into()], read)
}

/// Prolongs a grant that is still this run's, also one that has run out while nobody else was granted it. Not that of a run which
/// has ended meanwhile: it stays due, and its lease is let go the next time.
///
/// # Errors
/// XX000 only.
pub fn revive(grant: &Grant) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.lease_grant g
               SET expires_at = clock_timestamp() + make_interval(secs => $3),
                   renew_at = clock_timestamp() + make_interval(secs => $3 / 3)
               WHERE g.lease_key = $1 AND g.run_id = $2
                 AND EXISTS (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = $2 AND r.finished_at IS NULL)";
    spi::run(sql, &[grant.key.as_str().into(), spi::uuid(grant.run_id).into(), f64::from(grant.ttl_s).into()]).map(drop)
}

/// Forgets grants that are still these runs' and that nobody has locked; else `to_release` finds them again.
///
/// # Errors
/// XX000 only.
pub fn forget_all(grants: &[(&str, Uuid)]) -> Result<(), DotError> {
    let sql = "DELETE FROM dot_wrapper.lease_grant d USING (
                   SELECT l.place, x.run_id FROM unnest($1::text[], $2::uuid[]) AS x (lease_key, run_id)
                   CROSS JOIN LATERAL (SELECT g.ctid AS place FROM dot_wrapper.lease_grant g
                       WHERE g.lease_key = x.lease_key AND g.run_id = x.run_id FOR UPDATE SKIP LOCKED) l) x
               WHERE d.ctid = x.place AND d.run_id = x.run_id";
    let keys: Vec<&str> = grants.iter().map(|(key, _)| *key).collect();
    let runs: Vec<_> = grants.iter().map(|(_, run_id)| spi::uuid(*run_id)).collect();
    spi::rows_by_index(sql, &[keys.into(), runs.into()], |_| Ok(())).map(drop)
}

/// When the next grants want something, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// The first that is to be renewed or released.
    pub first: Option<f64>,
    /// The first that a run in doubt gives up.
    pub given_up: Option<f64>,
    /// Now.
    pub now: f64,
}

impl Due {
    /// How soon that is, in milliseconds; `None` when there is none.
    pub fn in_ms(&self) -> Option<f64> {
        let soonest = self.first.into_iter().chain(self.given_up).min_by(f64::total_cmp)?;
        Some((soonest - self.now) * 1000.0)
    }
}

/// When the next grants want renewing or releasing, of those that want it no sooner than `from`. Before that there may be more of
/// them that are over, and still in the index while somebody has an old snapshot, than there are grants.
///
/// # Errors
/// XX000 only.
pub fn next_due(from: f64) -> Result<Due, DotError> {
    let sql = "SELECT extract(epoch FROM (SELECT greatest(g.renew_at, 'epoch') FROM dot_wrapper.lease_grant g
                                          WHERE g.renew_at >= to_timestamp($1) ORDER BY g.renew_at LIMIT 1))::float8,
                      extract(epoch FROM (SELECT min(q.lease_until)
                    FROM (SELECT q.run_id, q.lease_until FROM dot_wrapper.dot_queue q
                          WHERE q.state = 'in_doubt' AND q.lease_until IS NOT NULL OFFSET 0) q
                    CROSS JOIN LATERAL (SELECT r.lease_key FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id OFFSET 0) r
                    CROSS JOIN LATERAL (SELECT FROM dot_wrapper.lease_grant g
                                        WHERE g.lease_key = r.lease_key AND g.run_id = q.run_id OFFSET 0) g))::float8,
                      extract(epoch FROM clock_timestamp())::float8";
    let read = |row: &pgrx::spi::SpiHeapTupleData<'_>| {
        Ok(Due { first: row.get(1)?, given_up: row.get(2)?, now: spi::need(row, 3)? })
    };
    spi::rows_by_index(sql, &[from.into()], read)?.pop().ok_or_else(|| error::internal("no row"))
}

/// True when a lease on this key is live: see [`held`].
///
/// # Errors
/// XX000 only.
pub fn is_held(extension: &Extension, key: &str) -> Result<Option<bool>, DotError> {
    let held = held(extension, std::slice::from_ref(&key.to_owned()))?;
    Ok(held.map(|held| !held.is_empty()))
}

/// The keys among these whose leases are live, as far as the lease table can be read; `None` when it is not a table of a
/// trusted owner with the columns, of built-in types, that we know. Read as its owner.
///
/// # Errors
/// XX000 only.
pub fn held(extension: &Extension, keys: &[String]) -> Result<Option<HashSet<String>>, DotError> {
    let Some(table) = object::lock_relation(c"dot_iu_runtime_lease", extension.schema_oid, Use::Read) else {
        return Ok(None);
    };
    let fits = object::column_type(table.oid, c"lease_key") == Some(pg_sys::TEXTOID)
        && object::column_type(table.oid, c"expires_at") == Some(pg_sys::TIMESTAMPTZOID);
    if !fits || !matches!(table.kind, 'r' | 'p') || !extension.trusts(table.owner) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT l.lease_key FROM {0}.dot_iu_runtime_lease l
         WHERE pg_catalog.to_regclass('{1}.dot_iu_runtime_lease') OPERATOR(pg_catalog.=) $2
           AND l.lease_key OPERATOR(pg_catalog.=) ANY ($1)
           AND l.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
        extension.schema,
        extension.schema.replace('\'', "''")
    );
    let path = format!("{}, pg_temp", extension.schema);
    let looked = xact::subtransaction(|| {
        user::run_as(table.owner, Trust::Foreign, &path, || {
            spi::steady_rows(&sql, &[keys.to_vec().into(), table.oid.into()], |row| spi::need::<String>(row, 1))
        })
    });
    match looked {
        Ok(held) => Ok(Some(held?.into_iter().collect())),
        Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
        Err(_) => Ok(None),
    }
}

fn seconds(ttl_s: i64) -> f64 {
    f64::from(i32::try_from(ttl_s).unwrap_or(i32::MAX))
}

//! `dot_wrapper.dot_seal` and `dot_wrapper.seal_head`: what is to be sealed, with the digests of it, and the seals.
//!
//! The digest of a row is the SHA-256 of a JSON array of its columns, made by PostgreSQL: times in UTC, so that no
//! setting of a session changes it, and jsonb as jsonb writes it, so that dump and restore do not.

use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::list;
use super::spi;
use crate::domain::canonical::hex;
use crate::domain::error::DotError;
use crate::domain::seal::chain::{Hash, Head, Seal};
use crate::domain::seal::holes::{Range, Snapshot};
use crate::error;

/// An SQL expression for the digest of a JSON array.
macro_rules! digest {
    ($columns:literal) => {
        concat!("sha256(convert_to(json_build_array(", $columns, ")::text, 'UTF8'))")
    };
}

/// The digest of an event `e`.
pub(super) const EVENT: &str = digest!(
    "'event 1', e.event_id, e.run_id, e.event, e.attempt, e.from_status, e.to_status, e.at AT TIME ZONE 'UTC', e.detail,
     encode(e.mark, 'hex')"
);
/// The digest of an attempt `a`.
pub(super) const ATTEMPT: &str = digest!(
    "'attempt 1', a.run_id, a.attempt, a.intent_at AT TIME ZONE 'UTC', a.deadline AT TIME ZONE 'UTC', a.worker,
     a.fencing_token"
);
/// The digest of what a run `r` keeps for good: what was requested.
pub(super) const BIRTH: &str = digest!(
    "'request 1', r.run_id, r.process_run_id, r.code, r.mode, r.requested_by::text, r.requested_at AT TIME ZONE 'UTC',
     r.idempotency_key, r.args, r.engine, r.fingerprint, r.request, r.gates, r.lease_key,
     r.start_by AT TIME ZONE 'UTC', r.finish_by AT TIME ZONE 'UTC', r.source, r.source_ref, r.actor"
);
/// The digest of what changes with a run `r`, each time with an event.
pub(super) const STATE: &str = digest!(
    "'state 1', r.run_id, r.run_status, r.reason, r.message, r.attempts, r.started_at AT TIME ZONE 'UTC',
     r.finished_at AT TIME ZONE 'UTC', r.fencing_token, r.result, r.observations, r.admitted, r.requested_by_oid::bigint"
);

/// Where the sealing stands as the tables have it, and what runs beside it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The head row.
    pub head: Option<Head>,
    /// The highest seal; 0 for none.
    pub newest: i64,
    /// Its hash.
    pub newest_hash: Option<Vec<u8>>,
    /// The transactions that are running.
    pub snapshot: Snapshot,
    /// Now, in microseconds since 1970.
    pub now: i64,
    /// The database's name.
    pub database: String,
}

/// Reads where the sealing stands.
///
/// # Errors
/// XX000 only.
pub fn standing() -> Result<Standing, DotError> {
    let sql = "SELECT h.seal_id, h.hash, h.low, h.high, h.since, h.foreign_to, h.key_id, coalesce(s.seal_id, 0), s.hash,
                      pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
                      current_database()::text
               FROM (VALUES (1)) one
               LEFT JOIN dot_wrapper.seal_head h ON true
               LEFT JOIN (SELECT n.seal_id, n.hash FROM dot_wrapper.dot_seal n ORDER BY n.seal_id DESC LIMIT 1) s ON true";
    let found = spi::row(sql, &[], |row| {
        let head = match row.get(1)? {
            None => None,
            Some(seal_id) => Some(Head {
                seal_id,
                hash: hash(spi::need(row, 2)?),
                low: spi::need(row, 3)?,
                high: spi::need(row, 4)?,
                since: spi::need(row, 5)?,
                foreign_to: spi::need(row, 6)?,
                key_id: spi::need(row, 7)?,
            }),
        };
        let snapshot = Snapshot::parse(&spi::need::<String>(row, 10)?).unwrap_or_default();
        Ok(Standing {
            head,
            newest: spi::need(row, 8)?,
            newest_hash: row.get(9)?,
            snapshot,
            now: spi::need(row, 11)?,
            database: spi::need(row, 12)?,
        })
    })?;
    found.ok_or_else(|| error::internal("no row"))
}

/// Anything but 32 bytes becomes something that no seal has.
pub fn hash(bytes: Vec<u8>) -> Hash {
    bytes.try_into().unwrap_or([0xff; 32])
}

/// An event to be sealed, with what goes into its run's seal.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Its number.
    pub event_id: i64,
    /// The run.
    pub run_id: Uuid,
    /// The run's process run; `None` where there is no such run.
    pub process_run_id: Option<Uuid>,
    /// What happened.
    pub event: String,
    /// The attempt.
    pub attempt: Option<i32>,
    /// The state that it left.
    pub from_status: Option<String>,
    /// The state that it led to.
    pub to_status: Option<String>,
    /// The facts.
    pub detail: Value,
    /// The mark.
    pub mark: Option<Vec<u8>>,
    /// The event's digest.
    pub digest: Vec<u8>,
    /// The digest of the attempt that it began.
    pub begun: Option<Vec<u8>>,
    /// The digest of the run's state; with the last event of each run.
    pub state: Option<Vec<u8>>,
    /// The digest of what was requested; with the first event of a run.
    pub birth: Option<Vec<u8>>,
}

/// What a look at the events gave.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The events, in order.
    pub events: Vec<Fresh>,
    /// True when that was all.
    pub all: bool,
    /// What the look saw; `None` when it saw nothing.
    pub snapshot: Option<Snapshot>,
}

/// So many bytes of details are read at once; one event is read whatever its size.
const BYTES: i64 = 8 << 20;

/// Events above `after`, at most `limit`.
///
/// # Errors
/// XX000 only.
pub fn above(after: i64, limit: i64) -> Result<Look, DotError> {
    let sql = look("FROM dot_wrapper.dot_run_event x WHERE x.event_id > $3");
    read(&sql, &[limit.into(), BYTES.into(), after.into()], limit)
}

/// Events in these ranges, at most `limit`.
///
/// # Errors
/// XX000 only.
pub fn within(ranges: &[Range], limit: i64) -> Result<Look, DotError> {
    if ranges.is_empty() {
        return Ok(Look { all: true, ..Look::default() });
    }
    let sql = look(
        // A probe of the index for each range, whatever the planner thinks of how many there are.
        "FROM unnest($3::bigint[], $4::bigint[]) AS h (first, last)
         CROSS JOIN LATERAL (SELECT z.* FROM dot_wrapper.dot_run_event z WHERE z.event_id BETWEEN h.first AND h.last
                             ORDER BY z.event_id LIMIT $1) x",
    );
    let (first, last): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
    read(&sql, &[limit.into(), BYTES.into(), first.into(), last.into()], limit)
}

/// One statement, and so one snapshot: the events, their runs as they are with them, and who is still running.
fn look(from: &str) -> String {
    format!(
        "WITH x AS MATERIALIZED (
            SELECT x.* {from} ORDER BY x.event_id LIMIT $1
        ), y AS (
            SELECT x.*, count(*) OVER () AS found,
                   sum(pg_column_size(x.detail)) OVER (ORDER BY x.event_id) - pg_column_size(x.detail) AS before
            FROM x
        ), e AS (
            SELECT y.*, row_number() OVER (PARTITION BY y.run_id ORDER BY y.event_id DESC) AS back FROM y WHERE y.before < $2
        )
        SELECT e.event_id, e.run_id, r.process_run_id, coalesce(e.event, ''), e.attempt, e.from_status, e.to_status,
               coalesce(e.detail, 'null'), e.mark,
               {EVENT},
               CASE WHEN e.to_status = 'running' THEN
                   (SELECT {ATTEMPT} FROM dot_wrapper.dot_run_attempt a WHERE a.run_id = e.run_id AND a.attempt = e.attempt)
               END,
               CASE WHEN e.back = 1 THEN {STATE} END,
               CASE WHEN e.from_status IS NULL AND e.to_status IS NOT NULL THEN {BIRTH} END,
               e.found, pg_current_snapshot()::text
        FROM e LEFT JOIN LATERAL (SELECT z.* FROM dot_wrapper.dot_run z WHERE z.run_id = e.run_id LIMIT 1) r ON true
        ORDER BY e.event_id"
    )
}

fn read(sql: &str, args: &[pgrx::datum::DatumWithOid<'_>], limit: i64) -> Result<Look, DotError> {
    let rows = spi::rows(sql, args, |row| {
        let process = row.get::<pgrx::Uuid>(3)?;
        let fresh = Fresh {
            event_id: spi::need(row, 1)?,
            run_id: spi::need_uuid(row, 2)?,
            process_run_id: process.map(|id| Uuid::from_bytes(*id.as_bytes())),
            event: spi::need(row, 4)?,
            attempt: row.get(5)?,
            from_status: row.get(6)?,
            to_status: row.get(7)?,
            detail: spi::need_json(row, 8)?,
            mark: row.get(9)?,
            digest: spi::need(row, 10)?,
            begun: row.get(11)?,
            state: row.get(12)?,
            birth: row.get(13)?,
        };
        Ok((fresh, spi::need::<i64>(row, 14)?, spi::need::<String>(row, 15)?))
    })?;
    let found = rows.first().map_or(0, |(_, found, _)| *found);
    let snapshot = rows.first().and_then(|(_, _, snapshot)| Snapshot::parse(snapshot));
    let events: Vec<Fresh> = rows.into_iter().map(|(fresh, ..)| fresh).collect();
    let all = found < limit && i64::try_from(events.len()).is_ok_and(|n| n == found);
    Ok(Look { events, all, snapshot })
}

/// The events above `low` that seals after `since` cover.
///
/// # Errors
/// XX000 only.
pub fn sealed_above(low: i64, since: i64) -> Result<Vec<i64>, DotError> {
    let sql =
        "SELECT u.id FROM dot_wrapper.dot_seal s, unnest(s.event_ids) AS u (id) WHERE s.seal_id > $1 AND u.id > $2";
    spi::rows(sql, &[since.into(), low.into()], |row| spi::need(row, 1))
}

/// The highest event that is to be seen; 0 for none.
///
/// # Errors
/// XX000 only.
pub fn highest_event() -> Result<i64, DotError> {
    let sql = "SELECT coalesce(max(e.event_id), 0) FROM dot_wrapper.dot_run_event e";
    Ok(spi::row(sql, &[], |row| spi::need(row, 1))?.unwrap_or(0))
}

/// Records seals, with their hashes, and the head after them.
///
/// # Errors
/// XX000 only; 23505 when there is a seal of such a number already.
pub fn record(seals: &[(Seal, Hash)], head: &Head, mark: &[u8]) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_seal
                   (seal_id, sealed_at, process_run_id, run_id, event_ids, attempts, digests, origins, prev, hash)
               SELECT x.seal_id, timestamptz 'epoch' + x.sealed_at * interval '1 microsecond', x.process_run_id, x.run_id,
                      x.event_ids, x.attempts, decode(x.digests, 'hex'), x.origins, decode(x.prev, 'hex'), decode(x.hash, 'hex')
               FROM jsonb_to_recordset($1) AS x (seal_id bigint, sealed_at bigint, process_run_id uuid, run_id uuid,
                   event_ids bigint[], attempts integer[], digests text, origins text, prev text, hash text)
               ORDER BY x.seal_id";
    let items = seals.iter().map(|(seal, hash)| {
        json!({"seal_id": seal.seal_id, "sealed_at": seal.sealed_at, "process_run_id": seal.process_run_id,
               "run_id": seal.run_id, "event_ids": seal.event_ids, "attempts": seal.attempts,
               "digests": hex(&seal.digests), "origins": seal.origins, "prev": hex(&seal.prev), "hash": hex(hash)})
    });
    if !seals.is_empty() {
        spi::run(sql, &[list(items.collect()).into()])?;
    }
    let sql = "INSERT INTO dot_wrapper.seal_head AS h (seal_id, hash, low, high, since, foreign_to, key_id, mark)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (only_row) DO UPDATE
               SET seal_id = excluded.seal_id, hash = excluded.hash, low = excluded.low, high = excluded.high,
                   since = excluded.since, foreign_to = excluded.foreign_to, key_id = excluded.key_id, mark = excluded.mark";
    let args = [
        head.seal_id.into(),
        head.hash.to_vec().into(),
        head.low.into(),
        head.high.into(),
        head.since.into(),
        head.foreign_to.into(),
        head.key_id.clone().into(),
        mark.to_vec().into(),
    ];
    spi::run(sql, &args).map(drop)
}

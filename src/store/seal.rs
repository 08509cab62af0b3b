//! `dot_wrapper.dot_seal` and `dot_wrapper.seal_head`: what is to be sealed, with the digests of it, and the seals.
//!
//! The digest of a row is the SHA-256 of a JSON array of its columns, made by PostgreSQL: times in UTC, so that no
//! setting of a session changes it, and jsonb as jsonb writes it, so that dump and restore do not.

use pgrx::datum::DatumWithOid;
use uuid::Uuid;

use super::spi;
use crate::domain::error::DotError;
use crate::domain::seal::chain::{Hash, Head, Seal};
use crate::domain::seal::holes::{Range, Snapshot};
use crate::domain::seal::row::{self, Row};
use crate::error;

/// An SQL expression for the text of a JSON array.
macro_rules! text {
    ($($columns:tt)*) => {
        concat!("convert_to(json_build_array(", $($columns)*, ")::text, 'UTF8')")
    };
}

/// An SQL expression for the digest of a JSON array.
macro_rules! digest {
    ($($columns:tt)*) => {
        concat!("sha256(", text!($($columns)*), ")")
    };
}

/// What is kept of an event `e`: `domain::seal::row` reads the text of it.
macro_rules! event_columns {
    () => {
        "'event 1', e.event_id, e.run_id, e.event, e.attempt, e.from_status, e.to_status, e.at AT TIME ZONE 'UTC',
         e.detail, encode(e.mark, 'hex')"
    };
}

/// The digest of an event `e`.
pub(super) const EVENT: &str = digest!(event_columns!());
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
    let found = spi::in_index_order(|| {
        spi::row(sql, &[], |row| {
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
        })
    })?;
    found.ok_or_else(|| error::internal("no row"))
}

/// Anything but 32 bytes becomes something that no seal has.
pub fn hash(bytes: Vec<u8>) -> Hash {
    bytes.try_into().unwrap_or([0xff; 32])
}

/// What a look at the events gave.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The events, in order.
    pub events: Vec<Row>,
    /// True when that was all.
    pub all: bool,
    /// What the look saw; `None` when it saw nothing.
    pub snapshot: Option<Snapshot>,
}

/// What is larger, as it is stored, is read by itself.
const LARGE: i64 = 8 << 10;
/// Bytes of such texts that are read for one batch; one is read whatever its size.
const BYTES: usize = 8 << 20;

/// Events above `after`, at most `limit`; marks are held against the key.
///
/// # Errors
/// XX000 only.
pub fn above(after: i64, limit: i64, key: &[u8]) -> Result<Look, DotError> {
    let sql = look("FROM dot_wrapper.dot_run_event e WHERE e.event_id > $3");
    read(&sql, &[limit.into(), LARGE.into(), after.into()], limit, key)
}

/// Events in these ranges, at most `limit`; marks are held against the key.
///
/// # Errors
/// XX000 only.
pub fn within(ranges: &[Range], limit: i64, key: &[u8]) -> Result<Look, DotError> {
    if ranges.is_empty() {
        return Ok(Look { all: true, ..Look::default() });
    }
    let sql = look(
        // A probe of the index for each range, whatever the planner thinks of how many there are.
        "FROM unnest($3::bigint[], $4::bigint[]) AS h (first, last)
         CROSS JOIN LATERAL (SELECT z.* FROM dot_wrapper.dot_run_event z WHERE z.event_id BETWEEN h.first AND h.last
                             ORDER BY z.event_id LIMIT $1) e",
    );
    let (first, last): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
    read(&sql, &[limit.into(), LARGE.into(), first.into(), last.into()], limit, key)
}

/// The events and who is still running, in one statement and so in one snapshot. The text has all that is needed.
fn look(from: &str) -> String {
    format!(
        "SELECT e.event_id, CASE WHEN pg_column_size(e.detail) > $2 THEN NULL ELSE {} END,
                (SELECT pg_current_snapshot()::text)
         {from} ORDER BY e.event_id LIMIT $1",
        text!(event_columns!())
    )
}

/// The text of one event, of whatever size. Events do not change, so it may be read later.
fn one(event_id: i64) -> Result<Vec<u8>, DotError> {
    let sql = concat!("SELECT ", text!(event_columns!()), " FROM dot_wrapper.dot_run_event e WHERE e.event_id = $1");
    let found = spi::row(sql, &[event_id.into()], |row| spi::need(row, 1))?;
    found.ok_or_else(|| error::internal("an event is gone while it is sealed"))
}

fn read(sql: &str, args: &[DatumWithOid<'_>], limit: i64, key: &[u8]) -> Result<Look, DotError> {
    let saw = std::cell::OnceCell::new();
    let rows = spi::in_index_order(|| {
        spi::rows(sql, args, |row| {
            if saw.get().is_none() {
                let _ = saw.set(spi::need::<String>(row, 3)?);
            }
            let event_id: i64 = spi::need(row, 1)?;
            Ok((event_id, row.get::<&[u8]>(2)?.map(|text| parsed(text, key))))
        })
    })?;
    let all = i64::try_from(rows.len()).is_ok_and(|found| found < limit);
    let mut look = Look {
        events: Vec::with_capacity(rows.len()),
        all,
        snapshot: saw.get().and_then(|text| Snapshot::parse(text)),
    };
    let mut bytes = 0;
    for (event_id, event) in rows {
        if bytes > BYTES {
            look.all = false;
            break;
        }
        let event = match event {
            Some(event) => event,
            None => {
                let text = one(event_id)?;
                bytes += text.len();
                parsed(&text, key)
            }
        };
        look.events.push(event.ok_or_else(|| error::internal(format_args!("event {event_id} cannot be read")))?);
    }
    Ok(look)
}

fn parsed(text: &[u8], key: &[u8]) -> Option<Row> {
    row::read(std::str::from_utf8(text).ok()?, key)
}

/// What goes into the seal of a run beside its events.
#[derive(Clone, Debug)]
pub struct Around {
    /// The run's process run.
    pub process_run_id: Uuid,
    /// The digest of the run's state: that with the events or, where more has happened since, a later one. The seal of what
    /// has happened since then has another.
    pub state: Vec<u8>,
    /// The digest of what was requested, if it was asked for.
    pub birth: Option<Vec<u8>>,
}

/// What goes into the seals of these runs, in their order; `true` asks for what was requested. `None`: there is no such run.
///
/// # Errors
/// XX000 only.
pub fn around(runs: &[(Uuid, bool)]) -> Result<Vec<Option<Around>>, DotError> {
    // A probe of the index for each.
    let sql = format!(
        "SELECT x.n, r.process_run_id, {STATE}, CASE WHEN x.birth THEN {BIRTH} END
         FROM unnest($1::uuid[], $2::boolean[]) WITH ORDINALITY AS x (run_id, birth, n)
         CROSS JOIN LATERAL (SELECT z.* FROM dot_wrapper.dot_run z WHERE z.run_id = x.run_id LIMIT 1) r"
    );
    let (ids, births): (Vec<pgrx::Uuid>, Vec<bool>) = runs.iter().map(|(id, birth)| (spi::uuid(*id), *birth)).unzip();
    let rows = spi::in_index_order(|| {
        spi::rows(&sql, &[ids.into(), births.into()], |row| {
            let process_run_id = spi::need_uuid(row, 2)?;
            Ok((spi::need(row, 1)?, Around { process_run_id, state: spi::need(row, 3)?, birth: row.get(4)? }))
        })
    })?;
    Ok(in_order(runs.len(), rows))
}

/// The digests of these attempts, in their order; `None`: there is no such attempt.
///
/// # Errors
/// XX000 only.
pub fn attempts(attempts: &[(Uuid, i32)]) -> Result<Vec<Option<Vec<u8>>>, DotError> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT x.n, {ATTEMPT}
         FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS x (run_id, attempt, n)
         CROSS JOIN LATERAL (SELECT z.* FROM dot_wrapper.dot_run_attempt z
                             WHERE z.run_id = x.run_id AND z.attempt = x.attempt LIMIT 1) a"
    );
    let (ids, numbers): (Vec<pgrx::Uuid>, Vec<i32>) = attempts.iter().map(|(id, n)| (spi::uuid(*id), *n)).unzip();
    let rows = spi::in_index_order(|| {
        spi::rows(&sql, &[ids.into(), numbers.into()], |row| Ok((spi::need(row, 1)?, spi::need(row, 2)?)))
    })?;
    Ok(in_order(attempts.len(), rows))
}

/// Numbered from 1; `None` for what is missing.
fn in_order<T>(count: usize, rows: Vec<(i64, T)>) -> Vec<Option<T>> {
    let mut found: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    for (n, item) in rows {
        if let Some(place) = usize::try_from(n - 1).ok().and_then(|n| found.get_mut(n)) {
            *place = Some(item);
        }
    }
    found
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
    if let Some((first, _)) = seals.first() {
        insert(first, seals)?;
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

/// Lists of lists go as one list and where each begins.
fn insert(first: &Seal, seals: &[(Seal, Hash)]) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_seal
                   (seal_id, sealed_at, process_run_id, run_id, event_ids, attempts, digests, origins, prev, hash)
               SELECT $1 + x.n - 1, (SELECT timestamptz 'epoch' + $2 * interval '1 microsecond'), x.process_run_id, x.run_id,
                      ($3::bigint[])[x.event_at + 1 : x.event_at + x.events],
                      ($4::integer[])[x.attempt_at + 1 : x.attempt_at + x.attempts],
                      substring($5::bytea FROM x.digest_at + 1 FOR x.digests), x.origins,
                      substring($6::bytea FROM 32 * x.n::integer - 31 FOR 32), substring($6::bytea FROM 32 * x.n::integer + 1 FOR 32)
               FROM unnest($7::uuid[], $8::uuid[], $9::integer[], $10::integer[], $11::integer[], $12::integer[],
                           $13::integer[], $14::integer[], $15::text[])
                   WITH ORDINALITY AS x (process_run_id, run_id, event_at, events, attempt_at, attempts, digest_at, digests,
                                         origins, n)";
    let all = || seals.iter().map(|(seal, _)| seal);
    let (event_ids, event_at, events) = joined(all().map(|seal| seal.event_ids.as_slice()))?;
    let (attempts, attempt_at, attempt_n) = joined(all().map(|seal| seal.attempts.as_slice()))?;
    let (digests, digest_at, digest_n) = joined(all().map(|seal| seal.digests.as_slice()))?;
    let hashes: Vec<u8> =
        std::iter::once(&first.prev).chain(seals.iter().map(|(_, hash)| hash)).flatten().copied().collect();
    let args = [
        first.seal_id.into(),
        first.sealed_at.into(),
        event_ids.into(),
        attempts.into(),
        digests.into(),
        hashes.into(),
        all().map(|seal| spi::uuid(seal.process_run_id)).collect::<Vec<_>>().into(),
        all().map(|seal| spi::uuid(seal.run_id)).collect::<Vec<_>>().into(),
        event_at.into(),
        events.into(),
        attempt_at.into(),
        attempt_n.into(),
        digest_at.into(),
        digest_n.into(),
        all().map(|seal| seal.origins.clone()).collect::<Vec<_>>().into(),
    ];
    spi::run(sql, &args).map(drop)
}

/// Lists one after the other; where each begins, and how long it is.
type Joined<T> = (Vec<T>, Vec<i32>, Vec<i32>);

fn joined<'a, T: Copy + 'a>(lists: impl Iterator<Item = &'a [T]>) -> Result<Joined<T>, DotError> {
    let (mut all, mut starts, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for list in lists {
        starts.push(i32::try_from(all.len()).map_err(error::internal)?);
        lengths.push(i32::try_from(list.len()).map_err(error::internal)?);
        all.extend_from_slice(list);
    }
    Ok((all, starts, lengths))
}

//! Attempts that are out: those whose worker is gone, those that somebody wants closed, and those of which nobody knows the
//! end. Intents are written by `queue::start`; ends by `transition`.

use std::time::Duration;

use pgrx::spi::{Result as SpiResult, SpiHeapTupleData};
use serde_json::Value;
use uuid::Uuid;

use super::queue::millis;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::retry::Past;
use crate::domain::via::Source;

/// The last attempt of a run that is running or in doubt.
#[derive(Clone, Debug)]
pub struct Open {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// Mode.
    pub mode: Mode,
    /// Tool code.
    pub code: String,
    /// The token that it ran under.
    pub fencing_token: Option<i64>,
    /// Where to ask, when the agent had said 202.
    pub status_url: Option<String>,
    /// Milliseconds until its deadline; negative when past.
    pub left_ms: f64,
    /// The permit.
    pub permit: Vec<u8>,
    /// What is in the queue of what the first gates said: see `domain::decided`.
    pub decided: Option<Vec<u8>>,
    /// The process run.
    pub process_run_id: Uuid,
    /// The arguments.
    pub args: Value,
    /// The requesting role.
    pub requested_by_oid: pgrx::pg_sys::Oid,
    /// By which way it was requested.
    pub source: Source,
    /// The lease.
    pub lease_key: Option<String>,
    /// What the attempts before it did.
    pub past: Past,
    /// Somebody has asked to cancel the run.
    pub withdrawn: bool,
    /// How often the worker died over it.
    pub crashes: i16,
    /// The agent has answered 202 to one of its attempts.
    pub was_accepted: bool,
    /// Since the run was requested.
    pub age: Duration,
    /// Since the intent of its first attempt.
    pub key_age: Duration,
}

/// The columns of an open attempt, of `q` (queue), `r` (ledger) and `a` (attempt).
macro_rules! open {
    () => {
        "SELECT q.run_id, r.attempts, r.mode, r.code, r.fencing_token,
                (SELECT e.detail ->> 'status_url' FROM dot_wrapper.dot_run_event e
                 WHERE e.run_id = r.run_id AND e.attempt = r.attempts AND e.event = 'accepted'
                 ORDER BY e.event_id DESC LIMIT 1),
                (extract(epoch FROM a.deadline - clock_timestamp()) * 1000)::float8,
                q.permit, r.process_run_id, r.args, r.requested_by_oid, r.lease_key, q.past, q.cancel_requested,
                (extract(epoch FROM clock_timestamp() - r.requested_at) * 1000)::bigint,
                (extract(epoch FROM clock_timestamp() - r.started_at) * 1000)::bigint, q.crashes,
                EXISTS (SELECT FROM dot_wrapper.dot_run_event e WHERE e.run_id = r.run_id AND e.event = 'accepted'),
                r.source, q.decided
         FROM dot_wrapper.dot_queue q
         JOIN dot_wrapper.dot_run r ON r.run_id = q.run_id
         JOIN dot_wrapper.dot_run_attempt a ON a.run_id = r.run_id AND a.attempt = r.attempts
         "
    };
}
/// Takes over attempts that another worker recorded. Call it only while holding the database's worker lock, which
/// proves that no such worker lives. Locked for this transaction; at most `limit`.
///
/// # Errors
/// XX000 only.
pub fn orphans(worker: Uuid, limit: i64) -> Result<Vec<Open>, DotError> {
    let sql = concat!(
        open!(),
        "WHERE q.state = 'running' AND q.worker <> $1 AND r.run_status = 'running'
         ORDER BY q.seq LIMIT $2 FOR UPDATE OF q SKIP LOCKED"
    );
    let found = spi::rows(sql, &[spi::uuid(worker).into(), limit.into()], read)?;
    Ok(found.into_iter().flatten().collect())
}

/// One of them, as [`orphans`].
///
/// # Errors
/// XX000 only.
pub fn orphan(worker: Uuid, run_id: Uuid) -> Result<Vec<Open>, DotError> {
    let sql = concat!(
        open!(),
        "WHERE q.state = 'running' AND q.worker <> $1 AND r.run_status = 'running' AND q.run_id = $2
         FOR UPDATE OF q SKIP LOCKED"
    );
    let found = spi::rows(sql, &[spi::uuid(worker).into(), spi::uuid(run_id).into()], read)?;
    Ok(found.into_iter().flatten().collect())
}

/// Runs in doubt that it is time to ask the agent about, at most `limit`. Locked; the next question about each is due after
/// half of the time that has passed since its last attempt began, at least a second and at most ten minutes.
///
/// # Errors
/// XX000 only.
pub fn doubts(limit: i64) -> Result<Vec<Open>, DotError> {
    let sql = concat!(
        open!(),
        "WHERE q.state = 'in_doubt' AND q.available_at <= clock_timestamp() AND r.run_status = 'in_doubt'
         ORDER BY q.available_at LIMIT $1 FOR UPDATE OF q SKIP LOCKED"
    );
    let found: Vec<Open> = spi::rows(sql, &[limit.into()], read)?.into_iter().flatten().collect();
    let later = "UPDATE dot_wrapper.dot_queue q
                 SET available_at = clock_timestamp() + least(greatest((clock_timestamp() - a.intent_at) / 2, '1 s'), '10 min')
                 FROM dot_wrapper.dot_run r JOIN dot_wrapper.dot_run_attempt a ON a.run_id = r.run_id AND a.attempt = r.attempts
                 WHERE q.run_id = ANY ($1) AND r.run_id = q.run_id AND q.state = 'in_doubt'";
    if !found.is_empty() {
        spi::run(later, &[ids(&found.iter().map(|open| open.run_id).collect::<Vec<_>>()).into()])?;
    }
    Ok(found)
}

/// Runs in doubt that nobody can be asked about, or not before this many milliseconds.
///
/// # Errors
/// XX000 only.
pub fn ask_later(run_ids: &[Uuid], wait_ms: Option<i64>) -> Result<(), DotError> {
    if run_ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE dot_wrapper.dot_queue q
               SET available_at = coalesce(clock_timestamp() + $2 * interval '1 millisecond', 'infinity')
               WHERE q.run_id = ANY ($1) AND q.state = 'in_doubt'";
    spi::run(sql, &[ids(run_ids).into(), wait_ms.into()]).map(drop)
}

fn read(row: &SpiHeapTupleData<'_>) -> SpiResult<Option<Open>> {
    let Some(mode) = Mode::parse(&spi::need::<String>(row, 3)?) else { return Ok(None) };
    Ok(Some(Open {
        run_id: spi::need_uuid(row, 1)?,
        attempt: spi::need(row, 2)?,
        mode,
        code: spi::need(row, 4)?,
        fencing_token: row.get(5)?,
        status_url: row.get(6)?,
        left_ms: spi::need(row, 7)?,
        permit: spi::need(row, 8)?,
        process_run_id: spi::need_uuid(row, 9)?,
        args: spi::need_json(row, 10)?,
        requested_by_oid: spi::need(row, 11)?,
        lease_key: row.get(12)?,
        past: Past::parse(&spi::need::<String>(row, 13)?),
        withdrawn: spi::need(row, 14)?,
        age: millis(row.get(15)?),
        key_age: millis(row.get(16)?),
        crashes: spi::need(row, 17)?,
        was_accepted: spi::need(row, 18)?,
        source: Source::parse(&spi::need::<String>(row, 19)?).unwrap_or_default(),
        decided: row.get(20)?,
    }))
}

/// True when there are attempts that another worker recorded.
///
/// # Errors
/// XX000 only.
pub fn has_orphans(worker: Uuid) -> Result<bool, DotError> {
    let sql = "SELECT EXISTS (SELECT FROM dot_wrapper.dot_queue q WHERE q.state = 'running' AND q.worker <> $1)";
    let found = spi::rows_by_index(sql, &[spi::uuid(worker).into()], |row| spi::need(row, 1))?;
    Ok(found.into_iter().next().unwrap_or(false))
}

/// True when there are runs in doubt that it is time to ask about.
///
/// # Errors
/// XX000 only.
pub fn has_doubts() -> Result<bool, DotError> {
    let sql = "SELECT EXISTS (SELECT FROM dot_wrapper.dot_queue q
                              WHERE q.state = 'in_doubt' AND q.available_at <= clock_timestamp())";
    Ok(spi::rows_by_index(sql, &[], |row| spi::need(row, 1))?.into_iter().next().unwrap_or(false))
}

/// Makes these attempts ours.
///
/// # Errors
/// XX000 only.
pub fn adopt(worker: Uuid, run_ids: &[Uuid]) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q SET worker = $1 WHERE q.run_id = ANY ($2) AND q.state = 'running'";
    spi::run(sql, &[spi::uuid(worker).into(), ids(run_ids).into()]).map(drop)
}

/// This worker's calls that somebody wants closed.
///
/// # Errors
/// XX000 only.
pub fn withdrawn(worker: Uuid) -> Result<Vec<(Uuid, i32)>, DotError> {
    let sql = "SELECT q.run_id, r.attempts
               FROM (SELECT q.run_id, q.state, q.worker FROM dot_wrapper.dot_queue q WHERE q.cancel_requested OFFSET 0) q
               CROSS JOIN LATERAL (SELECT r.attempts FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id OFFSET 0) r
               WHERE q.state = 'running' AND q.worker = $1";
    spi::rows_by_index(sql, &[spi::uuid(worker).into()], |row| Ok((spi::need_uuid(row, 1)?, spi::need(row, 2)?)))
}

fn ids(run_ids: &[Uuid]) -> Vec<pgrx::Uuid> {
    run_ids.iter().copied().map(spi::uuid).collect()
}

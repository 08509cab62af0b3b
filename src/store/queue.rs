//! `dot_wrapper.dot_queue`: what waits, what is next, and the intents of what is taken. How runs leave it is
//! `transition`'s.

use std::collections::HashSet;
use std::time::Duration;

use pgrx::pg_sys;
use uuid::Uuid;

use super::event::{self, Step};
use super::mirror;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::retry::Past;
use crate::domain::state::RunStatus;

/// What the queue is told of an admitted run, besides its permit.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// See `domain::lane`.
    pub lane: i64,
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// Without its lease, for which it waits.
    pub lease_wait: bool,
    /// Rows of the request table show what becomes of it.
    pub followed: bool,
    /// What others like it find it by; `None`: it stands for itself.
    pub alike: Option<i64>,
}

/// Notes that the worker takes up this run and nothing else, until `transition` says how that went.
///
/// # Errors
/// XX000 only.
pub fn mark(run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q SET crashes = q.crashes + 1
               WHERE q.run_id = $1 AND q.state IN ('queued', 'running')";
    spi::run(sql, &[spi::uuid(run_id).into()]).map(drop)
}

/// Takes the note back for a run that was taken up and is still in the queue: the worker lives.
///
/// # Errors
/// XX000 only.
pub fn unmark(run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q SET crashes = q.crashes - 1
               WHERE q.run_id = $1 AND q.state = 'queued' AND q.crashes > 0";
    spi::run(sql, &[spi::uuid(run_id).into()]).map(drop)
}

/// A run that is not over, as its queue row has it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Queued, running or in doubt.
    pub status: RunStatus,
    /// Mode.
    pub mode: Mode,
    /// Deliveries so far.
    pub attempts: i32,
    /// Fencing token.
    pub fencing_token: Option<i64>,
    /// What the deliveries did.
    pub past: Past,
}

/// Locks the queue row of a run, waiting for whoever has it; `None` when the run is over.
///
/// # Errors
/// XX000 only.
pub fn lock(run_id: Uuid) -> Result<Option<Waiting>, DotError> {
    let locked = "SELECT q.run_id FROM dot_wrapper.dot_queue q WHERE q.run_id = $1 FOR UPDATE";
    // Two statements: what the first has waited for is seen by the second.
    let sql = "SELECT q.state, r.mode, r.attempts, r.fencing_token, q.past
               FROM dot_wrapper.dot_queue q JOIN dot_wrapper.dot_run r USING (run_id) WHERE q.run_id = $1";
    spi::run(locked, &[spi::uuid(run_id).into()])?;
    let found = spi::row(sql, &[spi::uuid(run_id).into()], |row| {
        let (state, mode) = (spi::need::<String>(row, 1)?, spi::need::<String>(row, 2)?);
        let Some((status, mode)) = RunStatus::parse(&state).zip(Mode::parse(&mode)) else { return Ok(None) };
        Ok(Some(Waiting {
            status,
            mode,
            attempts: spi::need(row, 3)?,
            fencing_token: row.get(4)?,
            past: Past::parse(&spi::need::<String>(row, 5)?),
        }))
    })?;
    Ok(found.flatten())
}

/// Locks the queue rows of these runs, and says which of them somebody else has locked.
///
/// # Errors
/// XX000 only.
pub fn busy(run_ids: &[Uuid]) -> Result<Vec<Uuid>, DotError> {
    let sql = "WITH mine AS MATERIALIZED (
            SELECT q.run_id FROM dot_wrapper.dot_queue q WHERE q.run_id = ANY ($1) FOR UPDATE SKIP LOCKED
        )
        SELECT q.run_id FROM dot_wrapper.dot_queue q
        WHERE q.run_id = ANY ($1) AND q.run_id NOT IN (SELECT m.run_id FROM mine m)";
    let ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    spi::rows_by_index(sql, &[ids.into()], |row| spi::need_uuid(row, 1))
}

/// Those of these runs that are in the queue and wait to be claimed, whoever has them locked.
///
/// # Errors
/// XX000 only.
pub fn still_queued(run_ids: &[Uuid]) -> Result<HashSet<Uuid>, DotError> {
    if run_ids.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = "SELECT q.run_id FROM dot_wrapper.dot_queue q WHERE q.run_id = ANY ($1) AND q.state = 'queued'";
    let ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    Ok(spi::rows(sql, &[ids.into()], |row| spi::need_uuid(row, 1))?.into_iter().collect())
}

/// Notes that somebody wants a run not to go on. One in doubt has its agent asked, and one that was queued is taken up, at once.
///
/// # Errors
/// XX000 only.
pub fn withdraw(run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q
               SET cancel_requested = true,
                   available_at = CASE q.state WHEN 'running' THEN q.available_at ELSE '-infinity' END
               WHERE q.run_id = $1";
    spi::run(sql, &[spi::uuid(run_id).into()]).map(drop)
}

/// A run that passed the second gates.
#[derive(Clone, Debug)]
pub struct Start {
    /// The run.
    pub run_id: Uuid,
    /// The attempt that begins.
    pub attempt: i32,
    /// Milliseconds until the attempt's deadline.
    pub deadline_ms: i64,
    /// The token in force.
    pub fencing_token: Option<i64>,
    /// The second gates' decisions: see `decided::detail`.
    pub detail: String,
}

/// Records the intents: queued -> running, with an attempt row each. The runs that moved, with their deadlines.
///
/// # Errors
/// XX000 only.
pub fn start(worker: Uuid, starts: &[Start]) -> Result<Vec<(Uuid, String)>, DotError> {
    // By an index from one row to the next, whatever the planner believes of the tables: see `spi::rows_by_index`.
    let sql = "WITH q AS (
            -- The gates may have taken a while: one whose time is up by now stays, and the next claim ends it.
            UPDATE dot_wrapper.dot_queue q SET state = 'running', worker = $2, lease_until = NULL
            FROM (SELECT x.*, l.place, clock_timestamp() AS now
                  FROM unnest($1::uuid[], $3::integer[], $4::bigint[], $5::bigint[])
                      AS x (run_id, attempt, deadline_ms, token)
                  CROSS JOIN LATERAL (SELECT q.ctid AS place, q.state FROM dot_wrapper.dot_queue q
                                      WHERE q.run_id = x.run_id OFFSET 0) l
                  CROSS JOIN LATERAL (SELECT f.finish_by FROM dot_wrapper.dot_run f
                                      WHERE f.run_id = x.run_id OFFSET 0) f
                  WHERE l.state = 'queued' AND f.finish_by > clock_timestamp()) x
            WHERE q.ctid = x.place AND (q.run_id = x.run_id) IS TRUE
            RETURNING x.run_id, x.attempt, x.deadline_ms, x.token, x.now, q.followed
        ), r AS (
            UPDATE dot_wrapper.dot_run r
            SET run_status = 'running', attempts = q.attempt, started_at = coalesce(r.started_at, q.now),
                fencing_token = q.token, reason = NULL, message = NULL
            FROM (SELECT q.*, l.place FROM q CROSS JOIN LATERAL (
                      SELECT r.ctid AS place FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id OFFSET 0) l) q
            WHERE r.ctid = q.place AND (r.run_id = q.run_id) IS TRUE AND r.run_status = 'queued' AND r.attempts = q.attempt - 1
            RETURNING q.run_id, q.attempt, q.token, q.now, q.followed,
                      least(q.now + q.deadline_ms * interval '1 millisecond', r.finish_by) AS deadline
        ), a AS (
            INSERT INTO dot_wrapper.dot_run_attempt (run_id, attempt, intent_at, deadline, worker, fencing_token)
            SELECT r.run_id, r.attempt, r.now, r.deadline, $2, r.token FROM r
        )
        SELECT r.run_id, to_char(r.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), r.followed FROM r";
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let args = [
        starts.iter().map(|s| spi::uuid(s.run_id)).collect::<Vec<_>>().into(),
        spi::uuid(worker).into(),
        starts.iter().map(|s| s.attempt).collect::<Vec<_>>().into(),
        starts.iter().map(|s| s.deadline_ms).collect::<Vec<_>>().into(),
        starts.iter().map(|s| s.fencing_token).collect::<Vec<_>>().into(),
    ];
    let started = spi::rows_by_index(sql, &args, |row| {
        Ok((spi::need_uuid(row, 1)?, spi::need::<String>(row, 2)?, spi::need::<bool>(row, 3)?))
    })?;
    let moved: HashSet<Uuid> = started.iter().map(|(run_id, ..)| *run_id).collect();
    let events: Vec<_> = starts
        .iter()
        .filter(|start| moved.contains(&start.run_id))
        .map(|start| Step {
            run_id: start.run_id,
            attempt: Some(start.attempt),
            from: "queued",
            to: "running",
            detail: start.detail.clone(),
        })
        .collect();
    event::steps(&events)?;
    mirror::follow(started.iter().filter(|(_, _, followed)| *followed).map(|(run_id, ..)| *run_id))?;
    Ok(started.into_iter().map(|(run_id, deadline, _)| (run_id, deadline)).collect())
}

/// Says in the ledger why a queued run is set aside.
///
/// # Errors
/// XX000 only.
pub fn explain(run_id: Uuid, reason: &str, message: &str) -> Result<(), DotError> {
    let sql =
        "UPDATE dot_wrapper.dot_run r SET reason = $2, message = $3 WHERE r.run_id = $1 AND r.run_status = 'queued'";
    spi::run(sql, &[spi::uuid(run_id).into(), reason.into(), message.into()])?;
    follow_one(run_id)
}

/// Lets the rows of the request table show a run that is in the queue, if there are any.
fn follow_one(run_id: Uuid) -> Result<(), DotError> {
    let sql = "SELECT q.followed FROM dot_wrapper.dot_queue q WHERE q.run_id = $1";
    let followed = spi::row(sql, &[spi::uuid(run_id).into()], |row| spi::need(row, 1))?.unwrap_or(false);
    mirror::follow(followed.then_some(run_id))
}

/// Notes that rows of the request table show this run; it is not moved before this transaction has ended.
///
/// # Errors
/// XX000 only.
pub fn follow_from_now(run_id: Uuid) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q SET followed = true WHERE q.run_id = $1";
    spi::run(sql, &[spi::uuid(run_id).into()]).map(drop)
}

/// Sets queue rows aside that nobody may execute as they are: they wait for `fn_dot_resume`.
///
/// # Errors
/// XX000 only.
pub fn hold(run_ids: &[Uuid]) -> Result<usize, DotError> {
    if run_ids.is_empty() {
        return Ok(0);
    }
    let sql = "UPDATE dot_wrapper.dot_queue q SET available_at = 'infinity'
               WHERE q.run_id = ANY ($1) AND q.state = 'queued'";
    spi::run(sql, &[run_ids.iter().copied().map(spi::uuid).collect::<Vec<_>>().into()])
}

/// Lets queued runs wait for a moment, because a gate could not be asked now, or because there is no room for them; not longer
/// than they may wait at all, so that they expire in time.
///
/// # Errors
/// XX000 only.
pub fn postpone(run_ids: &[Uuid], wait: Duration) -> Result<(), DotError> {
    if run_ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE dot_wrapper.dot_queue q
               SET available_at = least(clock_timestamp() + $2 * interval '1 second',
                                        CASE r.attempts WHEN 0 THEN r.start_by END)
               FROM dot_wrapper.dot_run r
               WHERE q.run_id = ANY ($1) AND q.state = 'queued' AND r.run_id = q.run_id";
    let ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    spi::run(sql, &[ids.into(), wait.as_secs_f64().into()]).map(drop)
}

/// Gives a queued run a new permit, for the requesting role as it is known here, and lets it go on. Nobody vouches for what the
/// row says of the first gates, so that is dropped.
///
/// # Errors
/// XX000 only.
pub fn permit(run_id: Uuid, permit: &[u8], requested_by: pg_sys::Oid) -> Result<(), DotError> {
    let sql = "WITH q AS (UPDATE dot_wrapper.dot_queue q SET permit = $2, decided = NULL, available_at = '-infinity', crashes = 0,
                              requested_in = pg_catalog.pg_current_xact_id()
                          WHERE q.run_id = $1 AND q.state = 'queued' RETURNING q.run_id)
               UPDATE dot_wrapper.dot_run r SET requested_by_oid = $3 FROM q
               WHERE r.run_id = q.run_id AND r.run_status = 'queued'";
    spi::run(sql, &[spi::uuid(run_id).into(), permit.into(), requested_by.into()]).map(drop)
}

/// How soon the next question about a run in doubt is due, in milliseconds; `None` for never.
///
/// # Errors
/// XX000 only.
pub fn due_in_ms() -> Result<Option<f64>, DotError> {
    let sql = "SELECT CASE WHEN x.at = '-infinity' THEN 0
                      ELSE (extract(epoch FROM x.at - clock_timestamp()) * 1000)::float8 END
               FROM (SELECT q.available_at AS at FROM dot_wrapper.dot_queue q WHERE q.state = 'in_doubt'
                     ORDER BY q.available_at LIMIT 1) x
               WHERE x.at < 'infinity'";
    Ok(spi::rows_by_index(sql, &[], |row| spi::need(row, 1))?.into_iter().next())
}

/// How long the next queued run waits that is not due yet, at most a day; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub fn waits() -> Result<Option<Duration>, DotError> {
    let sql = "SELECT least(extract(epoch FROM q.available_at - clock_timestamp()) * 1000, 86400000)::bigint
               FROM dot_wrapper.dot_queue q
               WHERE q.state = 'queued' AND q.available_at > '-infinity' AND q.available_at > now()
                 AND q.available_at < 'infinity'
               ORDER BY q.available_at LIMIT 1";
    Ok(spi::rows_by_index(sql, &[], |row| row.get::<i64>(1))?.into_iter().next().map(millis))
}

/// A time that the server gave in milliseconds; one that a stepped clock made negative is none.
pub(super) fn millis(ms: Option<i64>) -> Duration {
    Duration::from_millis(u64::try_from(ms.unwrap_or(0)).unwrap_or(0))
}

//! `dot_wrapper.dot_queue`, and the set-based moves of runs that are in it. Each move is one statement that changes
//! queue, ledger and events together, names the state it leaves, and says which runs it really moved.

use pgrx::pg_sys;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::list;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::state::RunStatus;

/// Puts an admitted run into the queue.
///
/// # Errors
/// XX000 only.
pub fn push(run_id: Uuid, permit: &[u8]) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_queue (run_id, state, permit) VALUES ($1, 'queued', $2)";
    spi::run(sql, &[spi::uuid(run_id).into(), permit.into()]).map(drop)
}

/// A queued run, locked for this transaction. `run` is `None` when the ledger has no queued run of that id.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The run.
    pub run_id: Uuid,
    /// Its permit.
    pub permit: Vec<u8>,
    /// What the ledger says of it.
    pub run: Option<QueuedRun>,
}

/// What the ledger says of a queued run.
#[derive(Clone, Debug)]
pub struct QueuedRun {
    /// The process run.
    pub process_run_id: Uuid,
    /// Tool code.
    pub code: String,
    /// Mode.
    pub mode: Mode,
    /// Arguments.
    pub args: Value,
    /// The role that requested it.
    pub requested_by: String,
    /// Its OID.
    pub requested_by_oid: pg_sys::Oid,
    /// Lease key.
    pub lease_key: Option<String>,
    /// Fencing token.
    pub fencing_token: Option<i64>,
    /// Deliveries so far.
    pub attempts: i32,
    /// The URL that was rendered when it was requested.
    pub url: Option<String>,
    /// The fingerprint of then.
    pub fingerprint: Option<String>,
    /// True when it waited past its start-by time.
    pub is_late: bool,
}

/// Locks the next runs that are due, oldest first, skipping those that others hold.
///
/// # Errors
/// XX000 only.
pub fn next(limit: usize) -> Result<Vec<Candidate>, DotError> {
    let sql = "SELECT q.run_id, q.permit, r.process_run_id, r.code, r.mode, r.args, r.requested_by::text,
                      r.requested_by_oid, r.lease_key, r.fencing_token, r.attempts, r.request ->> 'url', r.fingerprint,
                      r.start_by < clock_timestamp()
               FROM dot_wrapper.dot_queue q
               LEFT JOIN dot_wrapper.dot_run r ON r.run_id = q.run_id AND r.run_status = 'queued'
               WHERE q.state = 'queued' AND q.available_at <= now()
               ORDER BY q.available_at, q.seq
               LIMIT $1
               FOR UPDATE OF q SKIP LOCKED";
    spi::rows(sql, &[i64::try_from(limit).unwrap_or(i64::MAX).into()], |row| {
        let mode = row.get::<String>(5)?.and_then(|mode| Mode::parse(&mode));
        let run = match mode {
            None => None,
            Some(mode) => Some(QueuedRun {
                process_run_id: spi::need_uuid(row, 3)?,
                code: spi::need(row, 4)?,
                mode,
                args: spi::need_json(row, 6)?,
                requested_by: spi::need(row, 7)?,
                requested_by_oid: spi::need(row, 8)?,
                lease_key: row.get(9)?,
                fencing_token: row.get(10)?,
                attempts: spi::need(row, 11)?,
                url: row.get(12)?,
                fingerprint: row.get(13)?,
                is_late: row.get(14)?.unwrap_or(true),
            }),
        };
        Ok(Candidate { run_id: spi::need_uuid(row, 1)?, permit: spi::need(row, 2)?, run })
    })
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
    /// The second gates' decisions.
    pub gates: Value,
}

/// Records the intents: queued -> running, with an attempt row each. The runs that moved, with their deadlines.
///
/// # Errors
/// XX000 only.
pub fn start(worker: Uuid, starts: &[Start]) -> Result<Vec<(Uuid, String)>, DotError> {
    let sql = "WITH x AS MATERIALIZED (
            SELECT x.*, clock_timestamp() AS now
            FROM jsonb_to_recordset($1) AS x (run_id uuid, attempt integer, deadline_ms bigint, token bigint, gates jsonb)
        ), q AS (
            UPDATE dot_wrapper.dot_queue q SET state = 'running', worker = $2
            FROM x WHERE q.run_id = x.run_id AND q.state = 'queued' RETURNING q.run_id
        ), r AS (
            UPDATE dot_wrapper.dot_run r
            SET run_status = 'running', attempts = x.attempt, started_at = coalesce(r.started_at, x.now),
                fencing_token = x.token, reason = NULL, message = NULL
            FROM x JOIN q USING (run_id)
            WHERE r.run_id = x.run_id AND r.run_status = 'queued' AND r.attempts = x.attempt - 1
            RETURNING r.run_id
        ), a AS (
            INSERT INTO dot_wrapper.dot_run_attempt (run_id, attempt, intent_at, deadline, worker, fencing_token)
            SELECT x.run_id, x.attempt, x.now, x.now + x.deadline_ms * interval '1 millisecond', $2, x.token
            FROM x JOIN r USING (run_id)
            RETURNING run_id, deadline
        ), e AS (
            INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, detail)
            SELECT x.run_id, 'running', x.attempt, 'queued', 'running', jsonb_build_object('gates', x.gates)
            FROM x JOIN r USING (run_id)
        )
        SELECT a.run_id, to_char(a.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM a";
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let items = starts
        .iter()
        .map(|s| {
            json!({"run_id": s.run_id, "attempt": s.attempt, "deadline_ms": s.deadline_ms,
                   "token": s.fencing_token, "gates": s.gates})
        })
        .collect();
    spi::rows(sql, &[list(items).into(), spi::uuid(worker).into()], |row| {
        Ok((spi::need_uuid(row, 1)?, spi::need(row, 2)?))
    })
}

/// A queued run that ends without being sent.
#[derive(Clone, Debug)]
pub struct Drop {
    /// The run.
    pub run_id: Uuid,
    /// Refused, expired or cancelled.
    pub status: RunStatus,
    /// Why, for machines.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The second gates' decisions.
    pub gates: Value,
}

/// Ends queued runs without sending them; the ids of those that moved.
///
/// # Errors
/// XX000 only.
pub fn drop_queued(drops: &[Drop]) -> Result<Vec<Uuid>, DotError> {
    let sql = "WITH x AS MATERIALIZED (
            SELECT * FROM jsonb_to_recordset($1) AS x (run_id uuid, status text, reason text, message text, gates jsonb)
        ), q AS (
            DELETE FROM dot_wrapper.dot_queue q USING x
            WHERE q.run_id = x.run_id AND q.state = 'queued' RETURNING q.run_id
        ), r AS (
            UPDATE dot_wrapper.dot_run r
            SET run_status = x.status, reason = x.reason, message = x.message, finished_at = clock_timestamp(),
                admitted = x.status <> 'refused'
            FROM x JOIN q USING (run_id) WHERE r.run_id = x.run_id AND r.run_status = 'queued'
            RETURNING r.run_id
        ), e AS (
            INSERT INTO dot_wrapper.dot_run_event (run_id, event, from_status, to_status, detail)
            SELECT x.run_id, x.status, 'queued', x.status,
                   jsonb_build_object('reason', x.reason, 'message', x.message, 'gates', x.gates)
            FROM x JOIN r USING (run_id)
        )
        SELECT r.run_id FROM r";
    if drops.is_empty() {
        return Ok(Vec::new());
    }
    let items = drops
        .iter()
        .map(|d| {
            json!({"run_id": d.run_id, "status": d.status.as_str(), "reason": d.reason, "message": d.message,
                   "gates": d.gates})
        })
        .collect();
    spi::rows(sql, &[list(items).into()], |row| spi::need_uuid(row, 1))
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

/// Lets queued runs wait for a moment, because a gate could not be asked now.
///
/// # Errors
/// XX000 only.
pub fn postpone(run_ids: &[Uuid]) -> Result<(), DotError> {
    if run_ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE dot_wrapper.dot_queue q SET available_at = clock_timestamp() + interval '3 s'
               WHERE q.run_id = ANY ($1) AND q.state = 'queued'";
    spi::run(sql, &[run_ids.iter().copied().map(spi::uuid).collect::<Vec<_>>().into()]).map(drop)
}

/// Queued runs of the ledger (`None`: all), for new permits. Locked.
///
/// # Errors
/// XX000 only.
pub fn to_resume(run_ids: Option<Vec<Uuid>>) -> Result<Vec<(Uuid, QueuedRun)>, DotError> {
    let sql = "SELECT q.run_id, r.process_run_id, r.code, r.mode, r.args, r.requested_by::text,
                      coalesce((SELECT o.oid FROM pg_catalog.pg_roles o WHERE o.rolname = r.requested_by), r.requested_by_oid),
                      r.lease_key, r.fencing_token, r.attempts
               FROM dot_wrapper.dot_queue q
               JOIN dot_wrapper.dot_run r ON r.run_id = q.run_id AND r.run_status = 'queued'
               WHERE q.state = 'queued' AND ($1::uuid[] IS NULL OR q.run_id = ANY ($1))
               FOR UPDATE OF q";
    let ids = run_ids.map(|ids| ids.into_iter().map(spi::uuid).collect::<Vec<_>>());
    let found = spi::rows(sql, &[ids.into()], |row| {
        let Some(mode) = Mode::parse(&spi::need::<String>(row, 4)?) else { return Ok(None) };
        Ok(Some((
            spi::need_uuid(row, 1)?,
            QueuedRun {
                process_run_id: spi::need_uuid(row, 2)?,
                code: spi::need(row, 3)?,
                mode,
                args: spi::need_json(row, 5)?,
                requested_by: spi::need(row, 6)?,
                requested_by_oid: spi::need(row, 7)?,
                lease_key: row.get(8)?,
                fencing_token: row.get(9)?,
                attempts: spi::need(row, 10)?,
                url: None,
                fingerprint: None,
                is_late: false,
            },
        )))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Gives a queued run a new permit, for the requesting role as it is known here, and lets it go on.
///
/// # Errors
/// XX000 only.
pub fn permit(run_id: Uuid, permit: &[u8], requested_by: pg_sys::Oid) -> Result<(), DotError> {
    let sql = "WITH q AS (UPDATE dot_wrapper.dot_queue q SET permit = $2, available_at = clock_timestamp()
                          WHERE q.run_id = $1 AND q.state = 'queued' RETURNING q.run_id)
               UPDATE dot_wrapper.dot_run r SET requested_by_oid = $3 FROM q
               WHERE r.run_id = q.run_id AND r.run_status = 'queued'";
    spi::run(sql, &[spi::uuid(run_id).into(), permit.into(), requested_by.into()]).map(drop)
}

/// How soon the next queued run is due, in milliseconds; `None` when nothing is queued for a time that comes.
///
/// # Errors
/// XX000 only.
pub fn due_in_ms() -> Result<Option<f64>, DotError> {
    let sql = "SELECT (extract(epoch FROM q.available_at - clock_timestamp()) * 1000)::float8
               FROM dot_wrapper.dot_queue q WHERE q.state = 'queued' AND q.available_at < 'infinity'
               ORDER BY q.available_at LIMIT 1";
    spi::row(sql, &[], |row| spi::need(row, 1))
}

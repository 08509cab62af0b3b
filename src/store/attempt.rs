//! The end of attempts: running -> what came of it, in queue, ledger and events at once; and attempts whose worker is
//! gone. Intents themselves are written by `queue::start`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::list;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::state::RunStatus;

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct End {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// The token that it ran under.
    pub fencing_token: Option<i64>,
    /// The state that follows.
    pub status: RunStatus,
    /// Why, for machines; `None` for a success.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// The agent's result.
    pub result: Option<Value>,
    /// The agent's observations.
    pub observations: Option<Value>,
    /// The detail of the event.
    pub detail: Value,
}

/// A run whose attempt has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The run.
    pub run_id: Uuid,
    /// Its tool.
    pub code: String,
    /// Its lease.
    pub lease_key: Option<String>,
}

/// Ends attempts: compare and set on state, worker, attempt and token, and on the lease still being granted to this
/// very run and token when `lease_needed`. The runs that moved; for the others nothing has changed.
///
/// # Errors
/// XX000 only.
pub fn settle(worker: Uuid, ends: &[End], lease_needed: bool) -> Result<Vec<Ended>, DotError> {
    let sql = "WITH x AS MATERIALIZED (
            SELECT * FROM jsonb_to_recordset($1) AS x (run_id uuid, attempt integer, token bigint, status text,
                reason text, message text, result jsonb, observations jsonb, detail jsonb)
        ), r AS (
            UPDATE dot_wrapper.dot_run r
            SET run_status = x.status, reason = x.reason, message = x.message,
                result = x.result, observations = x.observations,
                finished_at = CASE WHEN x.status = 'in_doubt' THEN NULL ELSE clock_timestamp() END
            FROM x, dot_wrapper.dot_queue q
            WHERE q.run_id = x.run_id AND q.state = 'running' AND q.worker = $2
              AND r.run_id = x.run_id AND r.run_status = 'running' AND r.attempts = x.attempt
              AND r.fencing_token IS NOT DISTINCT FROM x.token
              AND (NOT $3 OR r.lease_key IS NULL OR EXISTS (
                    SELECT FROM dot_wrapper.lease_grant g
                    WHERE g.lease_key = r.lease_key AND g.run_id = r.run_id AND g.fencing_token = r.fencing_token))
            RETURNING r.run_id, r.run_status, r.code, r.lease_key
        ), gone AS (
            DELETE FROM dot_wrapper.dot_queue q USING r WHERE q.run_id = r.run_id AND r.run_status <> 'in_doubt'
        ), doubt AS (
            UPDATE dot_wrapper.dot_queue q SET state = 'in_doubt', worker = NULL
            FROM r WHERE q.run_id = r.run_id AND r.run_status = 'in_doubt'
        ), e AS (
            INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, detail)
            SELECT x.run_id, x.status, x.attempt, 'running', x.status, x.detail FROM x JOIN r USING (run_id)
        )
        SELECT r.run_id, r.code, r.lease_key FROM r";
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let items = ends
        .iter()
        .map(|e| {
            json!({"run_id": e.run_id, "attempt": e.attempt, "token": e.fencing_token, "status": e.status.as_str(),
                   "reason": e.reason, "message": e.message, "result": e.result, "observations": e.observations,
                   "detail": e.detail})
        })
        .collect();
    spi::rows(sql, &[list(items).into(), spi::uuid(worker).into(), lease_needed.into()], |row| {
        Ok(Ended { run_id: spi::need_uuid(row, 1)?, code: spi::need(row, 2)?, lease_key: row.get(3)? })
    })
}

/// An attempt whose worker is gone.
#[derive(Clone, Debug)]
pub struct Orphan {
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
    /// The process run.
    pub process_run_id: Uuid,
    /// The arguments.
    pub args: Value,
    /// The requesting role.
    pub requested_by_oid: pgrx::pg_sys::Oid,
    /// The lease.
    pub lease_key: Option<String>,
}

/// Takes over attempts that another worker recorded. Call it only while holding the database's worker lock, which
/// proves that no such worker lives. Locked for this transaction; at most `limit`.
///
/// # Errors
/// XX000 only.
pub fn orphans(worker: Uuid, limit: i64) -> Result<Vec<Orphan>, DotError> {
    let sql = "SELECT q.run_id, r.attempts, r.mode, r.code, r.fencing_token,
                      (SELECT e.detail ->> 'status_url' FROM dot_wrapper.dot_run_event e
                       WHERE e.run_id = r.run_id AND e.attempt = r.attempts AND e.event = 'accepted'
                       ORDER BY e.event_id DESC LIMIT 1),
                      (extract(epoch FROM a.deadline - clock_timestamp()) * 1000)::float8,
                      q.permit, r.process_run_id, r.args, r.requested_by_oid, r.lease_key
               FROM dot_wrapper.dot_queue q
               JOIN dot_wrapper.dot_run r ON r.run_id = q.run_id AND r.run_status = 'running'
               JOIN dot_wrapper.dot_run_attempt a ON a.run_id = r.run_id AND a.attempt = r.attempts
               WHERE q.state = 'running' AND q.worker <> $1
               ORDER BY q.seq LIMIT $2
               FOR UPDATE OF q SKIP LOCKED";
    let found = spi::rows(sql, &[spi::uuid(worker).into(), limit.into()], |row| {
        let Some(mode) = Mode::parse(&spi::need::<String>(row, 3)?) else { return Ok(None) };
        Ok(Some(Orphan {
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
        }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// True when there are attempts that another worker recorded.
///
/// # Errors
/// XX000 only.
pub fn has_orphans(worker: Uuid) -> Result<bool, DotError> {
    let sql = "SELECT EXISTS (SELECT FROM dot_wrapper.dot_queue q WHERE q.state = 'running' AND q.worker <> $1)";
    Ok(spi::row(sql, &[spi::uuid(worker).into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// Makes these attempts ours.
///
/// # Errors
/// XX000 only.
pub fn adopt(worker: Uuid, run_ids: &[Uuid]) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue q SET worker = $1 WHERE q.run_id = ANY ($2) AND q.state = 'running'";
    spi::run(sql, &[spi::uuid(worker).into(), run_ids.iter().copied().map(spi::uuid).collect::<Vec<_>>().into()])
        .map(drop)
}

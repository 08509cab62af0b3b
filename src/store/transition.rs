//! Moves of runs from one state to another: one statement that changes queue, ledger and events together, names what it
//! leaves (state, worker, attempt, token, and the lease where it counts), and says which runs it really moved.
//! Intents are recorded by `queue::start`; why a run moves is decided in `domain`.

use std::collections::HashSet;

use pgrx::datum::DatumWithOid;
use serde_json::{Value, json};
use uuid::Uuid;

use super::event::{self, Step};
use super::mirror;
use super::spi;
use crate::domain::canonical;
use crate::domain::error::DotError;
use crate::domain::retry::Past;
use crate::domain::state::RunStatus;

/// A move.
#[derive(Clone, Debug)]
pub struct Move {
    /// The run.
    pub run_id: Uuid,
    /// Its attempts so far.
    pub attempt: i32,
    /// The token that it is believed to have.
    pub fencing_token: Option<i64>,
    /// Only while the lease is still granted to this very run and token.
    pub needs_lease: bool,
    /// The state that follows.
    pub to: RunStatus,
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
    /// To `Queued`: milliseconds until it may be sent; to `InDoubt`: until the agent may be asked, `None` for never.
    pub wait_ms: Option<i64>,
    /// To `Queued`: what has been done for all that is known; `None` leaves it as it is.
    pub past: Option<Past>,
    /// To `InDoubt`: milliseconds for which the lease is kept; `None` for as long as it takes.
    pub keep_lease_ms: Option<i64>,
    /// To `Queued`: somebody wants it sent, whoever wanted it cancelled before.
    pub anew: bool,
}

impl Move {
    /// A move with nothing but its reason.
    pub fn new(
        run_id: Uuid,
        attempt: i32,
        to: RunStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Move {
        Move {
            run_id,
            attempt,
            fencing_token: None,
            needs_lease: false,
            to,
            reason: Some(reason.into()),
            message: Some(message.into()),
            result: None,
            observations: None,
            detail: json!({}),
            wait_ms: None,
            past: None,
            keep_lease_ms: None,
            anew: false,
        }
    }
}

/// A run that has moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The run.
    pub run_id: Uuid,
    /// Where it is now.
    pub to: RunStatus,
    /// Its tool.
    pub code: String,
    /// Its lease.
    pub lease_key: Option<String>,
}

/// Queue, ledger and job in one statement. By an index from one row to the next, whatever the planner believes of the tables: see
/// `spi::rows_by_index`.
const MOVE: &str = "WITH r AS (
        UPDATE dot_wrapper.dot_run r
        SET run_status = x.status, reason = x.reason, message = x.message,
            result = x.result, observations = x.observations, admitted = x.status <> 'refused',
            finished_at = CASE WHEN x.status IN ('queued', 'in_doubt') THEN NULL ELSE clock_timestamp() END
        FROM (SELECT x.run_id, x.attempt, x.token, x.lease, x.status, x.reason, x.message, x.result::jsonb AS result,
                     x.observations::jsonb AS observations, x.wait_ms, x.past, x.keep_lease_ms, x.anew, l.followed,
                     l.place AS queue_place, f.place
              FROM unnest($1::uuid[], $4::integer[], $5::bigint[], $6::boolean[], $7::text[], $8::text[], $9::text[],
                          $10::text[], $11::text[], $12::bigint[], $13::text[], $14::bigint[], $15::boolean[])
                  AS x (run_id, attempt, token, lease, status, reason, message, result, observations, wait_ms, past,
                        keep_lease_ms, anew)
              CROSS JOIN LATERAL (SELECT q.ctid AS place, q.state, q.worker, q.followed FROM dot_wrapper.dot_queue q
                                  WHERE q.run_id = x.run_id OFFSET 0) l
              CROSS JOIN LATERAL (SELECT f.ctid AS place FROM dot_wrapper.dot_run f
                                  WHERE f.run_id = x.run_id OFFSET 0) f
              WHERE l.state = $3 AND l.worker IS NOT DISTINCT FROM $2) x
        WHERE r.ctid = x.place AND (r.run_id = x.run_id) IS TRUE AND r.run_status = $3 AND r.attempts = x.attempt
          AND ($3 = 'queued' OR r.fencing_token IS NOT DISTINCT FROM x.token)
          AND (NOT x.lease OR r.lease_key IS NULL OR EXISTS (
                SELECT FROM dot_wrapper.lease_grant g
                WHERE g.lease_key = r.lease_key AND g.run_id = r.run_id AND g.fencing_token = r.fencing_token
                OFFSET 0))
        RETURNING x.run_id, x.attempt, x.status, x.wait_ms, x.past, x.keep_lease_ms, x.anew, x.queue_place, x.followed,
                  r.code, r.lease_key
    ), gone AS (
        DELETE FROM dot_wrapper.dot_queue q USING r
        WHERE q.ctid = r.queue_place AND (q.run_id = r.run_id) IS TRUE AND r.status NOT IN ('queued', 'in_doubt')
    ), kept AS (
        UPDATE dot_wrapper.dot_queue q
        SET state = r.status, worker = NULL, past = coalesce(r.past, q.past), crashes = 0,
            cancel_requested = q.cancel_requested AND NOT r.anew,
            available_at = CASE WHEN r.wait_ms IS NULL THEN 'infinity' WHEN r.wait_ms <= 0 THEN '-infinity'
                           ELSE clock_timestamp() + r.wait_ms * interval '1 millisecond' END,
            lease_until = CASE r.status WHEN 'in_doubt'
                          THEN clock_timestamp() + r.keep_lease_ms * interval '1 millisecond' END
        FROM r WHERE q.ctid = r.queue_place AND (q.run_id = r.run_id) IS TRUE AND r.status IN ('queued', 'in_doubt')
    ), jobs AS (
        UPDATE dot_wrapper.job_link l SET changed = true
        FROM (SELECT j.place FROM r CROSS JOIN LATERAL (
                  SELECT l.ctid AS place FROM dot_wrapper.job_link l WHERE l.run_id = r.run_id OFFSET 0) j
              WHERE r.status <> 'queued' OR $3 = 'in_doubt') r
        WHERE l.ctid = r.place
    )
    SELECT r.run_id, r.status, r.code, r.lease_key, r.followed, r.attempt FROM r";

/// Moves runs out of `from`. `worker` is the one that has the call, for `Running`; else `None`. For the runs that are not
/// returned nothing has changed.
///
/// # Errors
/// XX000 only.
pub fn apply(from: RunStatus, worker: Option<Uuid>, moves: &[Move]) -> Result<Vec<Moved>, DotError> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let args = arguments(from, worker, moves);
    let moved = spi::rows_by_index(MOVE, &args, |row| {
        let moved = Moved {
            run_id: spi::need_uuid(row, 1)?,
            to: RunStatus::parse(&spi::need::<String>(row, 2)?).unwrap_or(from),
            code: spi::need(row, 3)?,
            lease_key: row.get(4)?,
        };
        Ok((moved, spi::need::<bool>(row, 5)?, spi::need::<i32>(row, 6)?))
    })?;
    let went: HashSet<(Uuid, i32)> = moved.iter().map(|(moved, _, attempt)| (moved.run_id, *attempt)).collect();
    event::steps(
        &moves.iter().filter(|m| went.contains(&(m.run_id, m.attempt))).map(|m| step(from, m)).collect::<Vec<_>>(),
    )?;
    mirror::follow(moved.iter().filter(|(_, followed, _)| *followed).map(|(moved, ..)| moved.run_id))?;
    Ok(moved.into_iter().map(|(moved, ..)| moved).collect())
}

/// One array for each column: what reaches PostgreSQL is typed, and only what is JSON is parsed.
fn arguments(from: RunStatus, worker: Option<Uuid>, moves: &[Move]) -> [DatumWithOid<'static>; 15] {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    [
        moves.iter().map(|m| spi::uuid(m.run_id)).collect::<Vec<_>>().into(),
        worker.map(spi::uuid).into(),
        from.as_str().into(),
        moves.iter().map(|m| m.attempt).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.fencing_token).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.needs_lease).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.to.as_str()).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.reason.clone()).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.message.clone()).collect::<Vec<_>>().into(),
        moves.iter().map(|m| text(&m.result)).collect::<Vec<_>>().into(),
        moves.iter().map(|m| text(&m.observations)).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.wait_ms).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.past.map(Past::as_str)).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.keep_lease_ms).collect::<Vec<_>>().into(),
        moves.iter().map(|m| m.anew).collect::<Vec<_>>().into(),
    ]
}

fn step(from: RunStatus, m: &Move) -> Step {
    Step {
        run_id: m.run_id,
        attempt: (m.attempt != 0).then_some(m.attempt),
        from: from.as_str(),
        to: m.to.as_str(),
        detail: canonical::by_value(&m.detail),
    }
}

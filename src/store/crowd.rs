//! Runs of one tool among all: a queued one that is like another, one that is not over, one that an event asked for since a tick's moment.

use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi::{Result as SpiResult, SpiHeapTupleData};
use serde_json::Value;
use uuid::Uuid;

use super::spi;
use crate::domain::call::Call;
use crate::domain::decide::InTheWay;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::pg::settings;

/// The oldest queued run `q` of role $4 with this tool, mode and arguments that nothing was done for yet, of those that may
/// stand for others.
macro_rules! like_it {
    ($and:literal, $columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM dot_wrapper.dot_queue q
             JOIN dot_wrapper.dot_run r ON r.run_id = q.run_id AND r.run_status = 'queued'
             WHERE q.alike = $5 AND q.code = $1 AND q.state = 'queued' AND NOT q.cancel_requested
               AND q.available_at < 'infinity' AND r.attempts = 0 AND r.mode = $2 AND r.args = $3 AND r.requested_by_oid = $4
               AND r.start_by - clock_timestamp() > (r.start_by - r.requested_at) / 2
             ORDER BY q.seq ",
            $and
        )
    };
}

/// A queued run of this role with the same tool, mode and arguments that nothing was done for yet; locked, so that the
/// worker does not take it up before this transaction has ended.
///
/// # Errors
/// XX000 only.
pub fn hold_queued(requester: Oid, call: &Call) -> Result<Option<Uuid>, DotError> {
    let sql = like_it!("LIMIT 1 FOR KEY SHARE OF q SKIP LOCKED", "q.run_id");
    spi::row(sql, &args(requester, call), |row| spi::need_uuid(row, 1))
}

/// The same, of those that this very transaction has made: nobody else sees them, and so nobody takes them up. For
/// transactions that cannot see whether what others made is still queued.
///
/// # Errors
/// XX000 only.
pub fn own_queued(requester: Oid, call: &Call) -> Result<Option<Uuid>, DotError> {
    let sql = like_it!("DESC LIMIT 10", "q.run_id, q.xmin::text::bigint");
    let found = spi::rows(sql, &args(requester, call), |row| Ok((spi::need_uuid(row, 1)?, spi::need::<i64>(row, 2)?)))?;
    let own = |(_, xmin): &(Uuid, i64)| u32::try_from(*xmin).is_ok_and(settings::is_own_transaction);
    Ok(found.into_iter().find(own).map(|(run_id, _)| run_id))
}

/// Lets nobody join these runs any more, since the worker wants them: who has joined is waited for, others ask for a run of
/// their own.
///
/// # Errors
/// XX000 only.
pub fn close(run_ids: &[Uuid]) -> Result<(), DotError> {
    let sql = "UPDATE dot_wrapper.dot_queue u SET alike = NULL FROM (
                   SELECT q.run_id FROM dot_wrapper.dot_queue q WHERE q.run_id = ANY ($1) AND q.alike IS NOT NULL
                   FOR NO KEY UPDATE SKIP LOCKED) x
               WHERE u.run_id = x.run_id";
    if run_ids.is_empty() {
        return Ok(());
    }
    spi::run(sql, &[run_ids.iter().copied().map(spi::uuid).collect::<Vec<_>>().into()]).map(drop)
}

fn args(requester: Oid, call: &Call) -> [DatumWithOid<'_>; 5] {
    let alike = call.alike(requester.to_u32());
    [
        call.code.as_str().into(),
        call.mode.as_str().into(),
        JsonB(call.args.clone()).into(),
        requester.into(),
        alike.into(),
    ]
}

/// A run of the tool that is queued, running or in doubt.
///
/// # Errors
/// XX000 only.
pub fn unfinished(code: &str) -> Result<Option<InTheWay>, DotError> {
    // One after the other, so that each has an index of its own.
    let sql = "(SELECT q.run_id, q.state FROM dot_wrapper.dot_queue q WHERE q.code = $1 AND q.state = 'queued' LIMIT 1)
               UNION ALL
               (SELECT q.run_id, q.state FROM dot_wrapper.dot_queue q WHERE q.code = $1 AND q.state = 'running' LIMIT 1)
               UNION ALL
               (SELECT q.run_id, q.state FROM dot_wrapper.dot_queue q WHERE q.code = $1 AND q.state = 'in_doubt' LIMIT 1)
               LIMIT 1";
    spi::row(sql, &[code.into()], read)
}

/// The last run `r` that an event asked for since a moment and that does a tick's work: of tool $1 in mode $2, with the tick's
/// arguments $3 and nothing else but the table and what was done to it; and that has not ended without doing it. Ids of runs
/// grow with the time of their request, to the millisecond; the index has the runs of events alone.
macro_rules! event_since {
    ($milliseconds:literal) => {
        concat!(
            "SELECT r.run_id, r.run_status FROM dot_wrapper.dot_run r
             WHERE r.source = 'trigger' AND r.code = $1 AND r.run_id >= (lpad(to_hex(",
            $milliseconds,
            "), 12, '0') || repeat('0', 20))::uuid
               AND r.mode = $2 AND r.run_status IN ('queued', 'running', 'in_doubt', 'succeeded')
               AND r.args @> $3 AND r.args - '{table,op}'::text[] = $3 - '{table,op}'::text[]
             ORDER BY r.run_id DESC LIMIT 1"
        )
    };
}

/// The last run of an event since then (milliseconds since 1970) that does the work of a tick of this mode and these
/// arguments.
///
/// # Errors
/// XX000 only.
pub fn event_since(code: &str, mode: Mode, args: &Value, since: i64) -> Result<Option<InTheWay>, DotError> {
    let args = [code.into(), mode.as_str().into(), JsonB(args.clone()).into(), since.into()];
    spi::row(event_since!("$4::bigint"), &args, read)
}

/// The same since the moment of the tick whose run this is.
///
/// # Errors
/// XX000 only.
pub fn event_since_tick(run_id: Uuid, code: &str, mode: Mode, args: &Value) -> Result<Option<InTheWay>, DotError> {
    let sql = event_since!(
        "(SELECT CASE WHEN t.idempotency_key ~ '^tick:\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ$'
                      THEN (extract(epoch FROM substr(t.idempotency_key, 6)::timestamptz) * 1000)::bigint END
          FROM dot_wrapper.dot_run t WHERE t.run_id = $4)"
    );
    spi::row(sql, &[code.into(), mode.as_str().into(), JsonB(args.clone()).into(), spi::uuid(run_id).into()], read)
}

fn read(row: &SpiHeapTupleData<'_>) -> SpiResult<InTheWay> {
    Ok(InTheWay { run_id: spi::need_uuid(row, 1)?, status: spi::need(row, 2)? })
}

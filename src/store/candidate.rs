//! Queued runs as the worker takes them up: the queue row, locked, with what the ledger says of it.

use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::spi::{Result as SpiResult, SpiHeapTupleData};
use serde_json::Value;
use uuid::Uuid;

use super::queue::millis;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::retry::Past;
use crate::domain::state::RunStatus;
use crate::domain::via::Source;
use crate::pg::lock;

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
    /// By which way it was requested.
    pub source: Source,
    /// What waits in the queue of what the first gates said: see `domain::decided`.
    pub decided: Option<Vec<u8>>,
    /// It was queued without its lease.
    pub lease_wait: bool,
    /// Deliveries so far.
    pub attempts: i32,
    /// The URL or the program's path that was rendered when it was requested.
    pub target: Option<String>,
    /// The fingerprint of then.
    pub fingerprint: Option<String>,
    /// True when it waited past its start-by time without a delivery, or past its finish-by time.
    pub is_late: bool,
    /// What earlier deliveries did.
    pub past: Past,
    /// Somebody has asked to cancel it.
    pub withdrawn: bool,
    /// How often the worker died over it.
    pub crashes: i16,
    /// Since it was requested.
    pub age: Duration,
    /// Since the intent of its first delivery; zero before that.
    pub key_age: Duration,
    /// Milliseconds until its finish-by time.
    pub left_ms: i64,
}

/// The columns of a candidate, of `q` (queue) and `r` (ledger).
macro_rules! candidate {
    () => {
        "SELECT q.run_id, q.permit, r.process_run_id, r.code, r.mode, r.args, r.requested_by::text,
                r.requested_by_oid, r.lease_key, r.fencing_token, r.attempts, 
                coalesce(r.request ->> 'url', r.request ->> 'program'), r.fingerprint,
                (r.attempts = 0 AND r.start_by < clock_timestamp()) OR r.finish_by < clock_timestamp(),
                q.past, q.cancel_requested, q.crashes,
                (extract(epoch FROM clock_timestamp() - r.requested_at) * 1000)::bigint,
                (extract(epoch FROM clock_timestamp() - r.started_at) * 1000)::bigint,
                (extract(epoch FROM r.finish_by - clock_timestamp()) * 1000)::bigint, r.source, q.lease_wait,
                q.decided, q.requested_in::text::bigint
         FROM dot_wrapper.dot_queue q
         LEFT JOIN LATERAL (SELECT r.* FROM dot_wrapper.dot_run r
                            WHERE r.run_id = q.run_id AND r.run_status = 'queued' OFFSET 0) r ON true
         "
    };
}

/// Locks these queued runs, in this order, leaving out those that somebody else holds, that are not queued any more, or whose
/// transaction has not told yet what else it has changed. Of the others', this session knows afterwards.
///
/// # Errors
/// XX000 only.
pub fn take(run_ids: &[Uuid]) -> Result<Vec<Candidate>, DotError> {
    if run_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = concat!(candidate!(), "WHERE q.run_id = ANY ($1) AND q.state = $2 FOR UPDATE OF q SKIP LOCKED");
    // A parameter, lest an index over what is queued be taken for the shorter way.
    let state = RunStatus::Queued.as_str();
    let ids: Vec<_> = run_ids.iter().copied().map(spi::uuid).collect();
    let taken =
        spi::rows_by_index(sql, &[ids.into(), state.into()], |row| Ok((read(row)?, spi::need::<i64>(row, 24)?)))?;
    let mut told = HashMap::new();
    let mut is_told = |xid: i64| *told.entry(xid).or_insert_with(|| u64::try_from(xid).is_ok_and(lock::is_told));
    let mut found: HashMap<Uuid, Candidate> = taken
        .into_iter()
        .filter(|(_, xid)| is_told(*xid))
        .map(|(candidate, _)| (candidate.run_id, candidate))
        .collect();
    lock::hear();
    Ok(run_ids.iter().filter_map(|run_id| found.remove(run_id)).collect())
}

fn read(row: &SpiHeapTupleData<'_>) -> SpiResult<Candidate> {
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
            target: row.get(12)?,
            fingerprint: row.get(13)?,
            is_late: row.get(14)?.unwrap_or(true),
            past: Past::parse(&spi::need::<String>(row, 15)?),
            withdrawn: spi::need(row, 16)?,
            crashes: spi::need(row, 17)?,
            age: millis(row.get(18)?),
            key_age: millis(row.get(19)?),
            left_ms: row.get(20)?.unwrap_or(0),
            source: source(row, 21)?,
            lease_wait: spi::need(row, 22)?,
            decided: row.get(23)?,
        }),
    };
    Ok(Candidate { run_id: spi::need_uuid(row, 1)?, permit: spi::need(row, 2)?, run })
}

/// What the schema's CHECK lets in is known; for anything else the permit does not verify.
fn source(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<Source> {
    Ok(Source::parse(&spi::need::<String>(row, column)?).unwrap_or_default())
}

/// Queued runs of the ledger (`None`: all), for new permits. Locked.
///
/// # Errors
/// XX000 only.
pub fn to_resume(run_ids: Option<Vec<Uuid>>) -> Result<Vec<(Uuid, QueuedRun)>, DotError> {
    let sql = "SELECT q.run_id, r.process_run_id, r.code, r.mode, r.args, r.requested_by::text,
                      coalesce((SELECT o.oid FROM pg_catalog.pg_roles o WHERE o.rolname = r.requested_by), r.requested_by_oid),
                      r.lease_key, r.fencing_token, r.attempts, r.source, q.lease_wait
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
                target: None,
                fingerprint: None,
                is_late: false,
                past: Past::Unknown,
                withdrawn: false,
                crashes: 0,
                age: Duration::ZERO,
                key_age: Duration::ZERO,
                left_ms: 0,
                source: source(row, 11)?,
                // The new permit is for a row without it: see `queue::permit`.
                decided: None,
                lease_wait: spi::need(row, 12)?,
            },
        )))
    })?;
    Ok(found.into_iter().flatten().collect())
}

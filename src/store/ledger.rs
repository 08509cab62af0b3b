//! `dot_wrapper.dot_run`: the ledger row of a run. Every statement that moves a run names the state that it leaves.

use pgrx::JsonB;
use serde_json::Value;
use uuid::Uuid;

use super::spi;
use crate::domain::call::Call;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::state::RunStatus;
use crate::domain::via::Via;
use crate::error;
use crate::pg::rows::Row;
use crate::pg::settings;

/// A run to be recorded, as the first gates left it.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    /// Minted by the caller.
    pub run_id: Uuid,
    /// The process run.
    pub process_run_id: Uuid,
    /// Tool code.
    pub code: &'a str,
    /// Mode.
    pub mode: Mode,
    /// Refused, planned or queued.
    pub status: RunStatus,
    /// Why, for machines.
    pub reason: Option<&'a str>,
    /// Why, for people.
    pub message: Option<&'a str>,
    /// The caller's key.
    pub idempotency_key: &'a str,
    /// The caller's arguments.
    pub args: &'a Value,
    /// The tool's engine.
    pub engine: Option<&'a str>,
    /// See `domain::render::fingerprint`.
    pub fingerprint: Option<&'a str>,
    /// The request, masked.
    pub request: Option<&'a Value>,
    /// The first gates' decisions.
    pub gates: &'a Value,
    /// The lease's key.
    pub lease_key: Option<&'a str>,
    /// The lease's token.
    pub fencing_token: Option<i64>,
    /// Seconds from now.
    pub start_by_s: Option<i64>,
    /// Seconds from now.
    pub finish_by_s: Option<i64>,
    /// The requesting role.
    pub requested_by: &'a str,
    /// Its OID.
    pub requested_by_oid: pgrx::pg_sys::Oid,
    /// The way by which it came.
    pub via: &'a Via,
}

/// Records a run; its row. `None` when an admitted run of the same key is there already.
///
/// # Errors
/// XX000 only.
pub fn insert(run: &NewRun<'_>) -> Result<Option<Row>, DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_run AS r
        (run_id, process_run_id, code, mode, run_status, reason, message, idempotency_key, args, engine, fingerprint,
         request, gates, lease_key, fencing_token, start_by, requested_by, requested_by_oid, admitted,
         requested_at, finished_at, finish_by, source, source_ref, actor)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
               t.now + make_interval(secs => $16), $17::name, $18, $19, t.now, CASE WHEN $19 THEN NULL ELSE t.now END,
               t.now + make_interval(secs => $20), $21, $22, $23
        FROM (SELECT clock_timestamp() AS now) t
        ON CONFLICT (process_run_id, code, mode, idempotency_key) WHERE admitted DO NOTHING
        RETURNING r";
    #[allow(clippy::cast_precision_loss)] // at most 5,184,000
    let seconds = |value: Option<i64>| value.map(|s| s as f64);
    let json = |value: &Value| JsonB(value.clone());
    let args = [
        spi::uuid(run.run_id).into(),
        spi::uuid(run.process_run_id).into(),
        run.code.into(),
        run.mode.as_str().into(),
        run.status.as_str().into(),
        run.reason.into(),
        run.message.into(),
        run.idempotency_key.into(),
        json(run.args).into(),
        run.engine.into(),
        run.fingerprint.into(),
        run.request.map(json).into(),
        json(run.gates).into(),
        run.lease_key.into(),
        run.fencing_token.into(),
        seconds(run.start_by_s).into(),
        run.requested_by.into(),
        run.requested_by_oid.into(),
        (run.status == RunStatus::Queued).into(),
        seconds(run.finish_by_s).into(),
        run.via.source.as_str().into(),
        run.via.source_ref.as_deref().into(),
        run.via.actor.as_deref().into(),
    ];
    spi::row(sql, &args, |row| spi::need(row, 1))
}

/// The admitted run of a key.
#[derive(Debug)]
pub struct Earlier {
    /// Its whole row.
    pub row: Row,
    /// Its id.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: RunStatus,
    /// True when it has the same arguments, as jsonb compares them.
    pub same_args: bool,
    /// Who requested it: the role's OID, and its name of then.
    pub requested_by: (pgrx::pg_sys::Oid, String),
}

/// The admitted run of this call's key.
///
/// # Errors
/// XX000 only.
pub fn find_admitted(process_run_id: Uuid, call: &Call) -> Result<Option<Earlier>, DotError> {
    let sql = "SELECT r, r.run_id, r.args = $5, r.requested_by_oid, r.requested_by::text, r.run_status FROM dot_wrapper.dot_run r
               WHERE r.process_run_id = $1 AND r.code = $2 AND r.mode = $3 AND r.idempotency_key = $4 AND r.admitted";
    let args = [
        spi::uuid(process_run_id).into(),
        call.code.as_str().into(),
        call.mode.as_str().into(),
        call.idempotency_key.as_str().into(),
        JsonB(call.args.clone()).into(),
    ];
    spi::row(sql, &args, |row| {
        Ok(Earlier {
            row: spi::need(row, 1)?,
            run_id: spi::need_uuid(row, 2)?,
            same_args: spi::need(row, 3)?,
            status: RunStatus::parse(&spi::need::<String>(row, 6)?).unwrap_or(RunStatus::InDoubt),
            requested_by: (spi::need(row, 4)?, spi::need(row, 5)?),
        })
    })
}

/// Where a run stands, for those who may see it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its state.
    pub status: RunStatus,
    /// True when this very transaction recorded it.
    pub is_own: bool,
    /// Who requested it: the role's OID, and its name of then.
    pub requested_by: (pgrx::pg_sys::Oid, String),
}

/// Where a run stands; `None` when there is no such run.
///
/// # Errors
/// XX000 only.
pub fn standing(run_id: Uuid) -> Result<Option<Standing>, DotError> {
    let sql = "SELECT r.run_status, r.xmin::text::bigint, r.requested_by_oid, r.requested_by::text
               FROM dot_wrapper.dot_run r WHERE r.run_id = $1";
    let found = spi::row(sql, &[spi::uuid(run_id).into()], |row| {
        Ok((spi::need::<String>(row, 1)?, spi::need::<i64>(row, 2)?, (spi::need(row, 3)?, spi::need(row, 4)?)))
    })?;
    found
        .map(|(status, xmin, requested_by)| {
            let status = RunStatus::parse(&status).ok_or_else(|| error::internal("unknown run status"))?;
            let is_own = u32::try_from(xmin).is_ok_and(settings::is_own_transaction);
            Ok(Standing { status, is_own, requested_by })
        })
        .transpose()
}

/// A run's whole row.
///
/// # Errors
/// XX000 only.
pub fn whole(run_id: Uuid) -> Result<Option<Row>, DotError> {
    spi::row("SELECT r FROM dot_wrapper.dot_run r WHERE r.run_id = $1", &[spi::uuid(run_id).into()], |row| {
        spi::need(row, 1)
    })
}

/// Hands an intermediate list to a set-based statement.
pub(super) fn list(items: Vec<Value>) -> JsonB {
    JsonB(Value::Array(items))
}

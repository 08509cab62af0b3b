//! `dot_wrapper.dot_run`: the ledger row of a run. Every statement that moves a run names the state that it leaves.

use pgrx::JsonB;
use pgrx::spi::SpiHeapTupleData;
use serde_json::Value;
use uuid::Uuid;

use super::event::Marker;
use super::queue::Place;
use super::spi;
use crate::domain::call::Call;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::seal::EventFacts;
use crate::domain::state::RunStatus;
use crate::domain::via::Via;
use crate::error;
use crate::pg::json::JsonText;
use crate::pg::object;
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
    /// The first gates' decisions, as JSON text.
    pub gates: &'a str,
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

/// What an admitted run has besides.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    /// Its place in the queue.
    pub place: Place<'a>,
    /// Its permit.
    pub permit: &'a [u8],
    /// See `domain::decided`.
    pub decided: Option<&'a [u8]>,
    /// Seconds that the lease, which it was granted with the token, lasts.
    pub lease_ttl_s: i64,
    /// Its process run was made for it, so that nobody has its key.
    pub is_new: bool,
}

/// The next fencing token, larger than any before.
///
/// # Errors
/// XX000 only.
pub fn next_token() -> Result<i64, DotError> {
    let sequence = object::find_relation(c"fencing_token_seq", c"dot_wrapper");
    sequence.and_then(object::next_value).ok_or_else(|| error::internal("no sequence fencing_token_seq"))
}

/// Records a run, its first event, and for an admitted one its place in the queue and its lease's grant, in one statement; the
/// run's row. `None` when an admitted run of the same key is there already: the transaction must not go on then.
///
/// # Errors
/// XX000 only.
pub fn insert(run: &NewRun<'_>, admitted: Option<&Admitted<'_>>) -> Result<Option<Row>, DotError> {
    let status = run.status.as_str();
    let mark = mark_of_first_event(run)?;
    #[allow(clippy::cast_precision_loss)] // at most 5,184,000
    let seconds = |value: Option<i64>| value.map(|s| s as f64);
    let json = |value: &Value| JsonText(value.to_string());
    let mut args = Vec::with_capacity(34);
    args.extend([
        spi::uuid(run.run_id).into(),
        spi::uuid(run.process_run_id).into(),
        run.code.into(),
        run.mode.as_str().into(),
        status.into(),
        run.reason.into(),
        run.message.into(),
        run.idempotency_key.into(),
        json(run.args).into(),
        run.engine.into(),
        run.fingerprint.into(),
        run.request.map(json).into(),
        JsonText(run.gates.to_owned()).into(),
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
        mark.into(),
    ]);
    if let Some(Admitted { place, permit, decided, lease_ttl_s, .. }) = admitted {
        args.extend([
            place.lane.into(),
            place.endpoint.into(),
            (*permit).into(),
            place.lease_wait.into(),
            place.followed.into(),
            place.alike.into(),
            (*decided).into(),
        ]);
        if run.fencing_token.is_some() {
            args.push(i32::try_from(*lease_ttl_s).unwrap_or(i32::MAX).into());
        }
    }
    let is_new = admitted.is_some_and(|admitted| admitted.is_new);
    let sql = statement(admitted.is_some(), run.fencing_token.is_some(), is_new);
    spi::steady_row(sql, &args, |row| spi::need(row, 1))
}

fn mark_of_first_event(run: &NewRun<'_>) -> Result<Option<Vec<u8>>, DotError> {
    let (status, detail) = (run.status.as_str(), serde_json::json!({}));
    let facts = EventFacts {
        run_id: run.run_id,
        event: status,
        attempt: None,
        from_status: None,
        to_status: Some(status),
        detail: &detail,
    };
    Ok(Marker::load()?.mark(&facts))
}

macro_rules! statement {
    ($besides:expr, $conflict:expr) => {
        concat!(
            "WITH event AS (INSERT INTO dot_wrapper.dot_run_event (run_id, event, to_status, mark) VALUES ($1, $5, $5, $24))",
            $besides,
            " INSERT INTO dot_wrapper.dot_run AS r
                (run_id, process_run_id, code, mode, run_status, reason, message, idempotency_key, args, engine, fingerprint,
                 request, gates, lease_key, fencing_token, start_by, requested_by, requested_by_oid, admitted,
                 requested_at, finished_at, finish_by, source, source_ref, actor)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                       t.now + make_interval(secs => $16), $17::name, $18, $19, t.now, CASE WHEN $19 THEN NULL ELSE t.now END,
                       t.now + make_interval(secs => $20), $21, $22, $23
                FROM (SELECT clock_timestamp() AS now) t ",
            $conflict,
            " RETURNING r"
        )
    };
}

macro_rules! queue {
    () => {
        ", queue AS (INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit, lease_wait, followed, alike,
                decided)
            VALUES ($1, 'queued', $25, $3, $26, $27, $28, $29, $30, $31))"
    };
}

macro_rules! queue_and_lease {
    () => {
        concat!(
            queue!(),
            ", lease AS (INSERT INTO dot_wrapper.lease_grant AS g (lease_key, run_id, fencing_token, ttl_s, expires_at, renew_at)
                VALUES ($14, $1, $15, $32, clock_timestamp() + make_interval(secs => $32),
                        clock_timestamp() + make_interval(secs => $32 / 3.0))
                ON CONFLICT (lease_key) DO UPDATE
                SET run_id = excluded.run_id, fencing_token = excluded.fencing_token, ttl_s = excluded.ttl_s,
                    expires_at = excluded.expires_at, renew_at = excluded.renew_at)"
        )
    };
}

macro_rules! unless_taken {
    () => {
        "ON CONFLICT (process_run_id, code, mode, idempotency_key) WHERE admitted DO NOTHING"
    };
}

/// The statement's text: with the parameters of an admitted run, and with a lease's. Where the key is taken, the caller gives
/// up, and with it goes what is recorded besides; it cannot be where the process run is new.
fn statement(admitted: bool, leased: bool, is_new: bool) -> &'static str {
    match (admitted, leased, is_new) {
        (false, ..) => statement!("", ""),
        (true, false, true) => statement!(queue!(), ""),
        (true, true, true) => statement!(queue_and_lease!(), ""),
        (true, false, false) => statement!(queue!(), unless_taken!()),
        (true, true, false) => statement!(queue_and_lease!(), unless_taken!()),
    }
}

/// Plans of one call, to be recorded at once.
#[derive(Clone, Copy, Debug)]
pub struct Plans<'a> {
    /// The process run of them all.
    pub process_run_id: Uuid,
    /// The caller's arguments.
    pub args: &'a Value,
    /// The requesting role.
    pub requested_by: &'a str,
    /// Its OID.
    pub requested_by_oid: pgrx::pg_sys::Oid,
    /// In the order in which they are recorded.
    pub plans: &'a [Plan],
}

/// One of them; see [`NewRun`]. JSON is text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Minted by the caller.
    pub run_id: Uuid,
    /// Tool code.
    pub code: String,
    /// Refused or planned.
    pub status: RunStatus,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// The tool's engine.
    pub engine: Option<String>,
    /// See `domain::render::fingerprint`.
    pub fingerprint: Option<String>,
    /// The request, masked.
    pub request: Option<String>,
    /// The gates' decisions.
    pub gates: String,
    /// The lease's key.
    pub lease_key: Option<String>,
}

/// Records plans and their first events; their rows, in the same order.
///
/// # Errors
/// XX000 only.
pub fn insert_plans(all: &Plans<'_>) -> Result<Vec<Row>, DotError> {
    let sql = "WITH event AS (INSERT INTO dot_wrapper.dot_run_event (run_id, event, to_status, mark)
            SELECT x.run_id, x.status, x.status, x.mark FROM unnest($5, $7, $15) AS x (run_id, status, mark))
        INSERT INTO dot_wrapper.dot_run AS r
            (run_id, process_run_id, code, mode, run_status, reason, message, idempotency_key, args, engine, fingerprint, request,
             gates, lease_key, requested_by, requested_by_oid, admitted, requested_at, finished_at, source)
            SELECT t.run_id, $1, t.code, 'plan', t.status, t.reason, t.message, '', $2, t.engine, t.fingerprint, t.request::jsonb,
                   t.gates::jsonb, t.lease_key, $3::name, $4, false, t.now, t.now, 'call'
            FROM (SELECT x.*, clock_timestamp() AS now
                  FROM unnest($5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                       AS x (run_id, code, status, reason, message, engine, fingerprint, request, gates, lease_key)) t
            RETURNING r, r.run_id";
    let marker = Marker::load()?;
    let detail = serde_json::json!({});
    let mark = |plan: &Plan| {
        let (run_id, event) = (plan.run_id, plan.status.as_str());
        let to_status = Some(event);
        marker.mark(&EventFacts { run_id, event, attempt: None, from_status: None, to_status, detail: &detail })
    };
    let texts = |text: fn(&Plan) -> Option<String>| all.plans.iter().map(text).collect::<Vec<_>>();
    let args = [
        spi::uuid(all.process_run_id).into(),
        JsonText(all.args.to_string()).into(),
        all.requested_by.into(),
        all.requested_by_oid.into(),
        all.plans.iter().map(|plan| spi::uuid(plan.run_id)).collect::<Vec<_>>().into(),
        texts(|plan| Some(plan.code.clone())).into(),
        texts(|plan| Some(plan.status.as_str().to_owned())).into(),
        texts(|plan| plan.reason.clone()).into(),
        texts(|plan| plan.message.clone()).into(),
        texts(|plan| plan.engine.clone()).into(),
        texts(|plan| plan.fingerprint.clone()).into(),
        texts(|plan| plan.request.clone()).into(),
        texts(|plan| Some(plan.gates.clone())).into(),
        texts(|plan| plan.lease_key.clone()).into(),
        all.plans.iter().map(mark).collect::<Vec<_>>().into(),
    ];
    let rows = spi::steady_rows(sql, &args, |row| Ok((spi::need::<Row>(row, 1)?, spi::need_uuid(row, 2)?)))?;
    let in_order = rows.iter().map(|(_, run_id)| *run_id).eq(all.plans.iter().map(|plan| plan.run_id));
    if !in_order {
        return Err(error::internal("plans came back in another order"));
    }
    Ok(rows.into_iter().map(|(row, _)| row).collect())
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
    let read = |row: &SpiHeapTupleData<'_>| {
        Ok(Earlier {
            row: spi::need(row, 1)?,
            run_id: spi::need_uuid(row, 2)?,
            same_args: spi::need(row, 3)?,
            status: RunStatus::parse(&spi::need::<String>(row, 6)?).unwrap_or(RunStatus::InDoubt),
            requested_by: (spi::need(row, 4)?, spi::need(row, 5)?),
        })
    };
    spi::in_index_order(|| spi::steady_row(sql, &args, read))
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

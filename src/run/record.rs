//! What a request leaves behind: the ledger's row, its first event, and its place in the queue.
//!
//! Does not live here: what is asked before (`request`, `gates`), or any statement.

use uuid::Uuid;

use super::gates::{Findings, Question};
use super::request::{Requested, Requester};
use super::session::Session;
use crate::domain::call::Call;
use crate::domain::error::DotError;
use crate::domain::gate::{self, Decision};
use crate::domain::mode::Mode;
use crate::domain::permit::{self, Claims};
use crate::domain::policy::Policy;
use crate::domain::state::{self, Cause, RunStatus};
use crate::domain::via::{Source, Via};
use crate::domain::{decided, job, lane};
use crate::error;
use crate::pg::fail_point::{self, Point};
use crate::pg::log;
use crate::store::ledger::{self, Admitted, NewRun};
use crate::store::queue::Place;

/// What became of a run's lease at its request.
pub(super) struct Leased {
    /// Its key.
    pub(super) key: Option<String>,
    /// Its token, when it was granted.
    pub(super) token: Option<i64>,
    /// It is taken when the run is.
    pub(super) waits: bool,
}

/// Records what the gates found out: the run, and its place in the queue where they let it through.
///
/// # Errors
/// XX000 only.
pub(super) fn record(
    session: &Session,
    requester: &Requester,
    via: &Via,
    call: &Call,
    question: &Question<'_>,
    findings: &Findings,
    lease: &Leased,
) -> Result<Requested, DotError> {
    let (status, block) = first_state(call.mode, findings)?;
    let admitted = status == RunStatus::Queued;
    let request = findings.request.as_ref().map(|order| order.clone().with_token(lease.token).masked());
    let gates = findings.to_text();
    let policy = findings.policy.as_ref().filter(|_| admitted);
    let new = NewRun {
        run_id: question.run_id,
        process_run_id: question.process_run_id,
        code: &call.code,
        mode: call.mode,
        status,
        reason: block.map(|b| b.reason.as_str()),
        message: block.map(|b| b.message.as_str()),
        idempotency_key: &call.idempotency_key,
        args: &call.args,
        engine: findings.tool.as_ref().map(|tool| tool.engine.as_str()),
        fingerprint: findings.fingerprint.as_deref(),
        request: request.as_ref(),
        gates: &gates,
        lease_key: lease.key.as_deref(),
        fencing_token: lease.token,
        start_by_s: policy.map(|policy| policy.start_by_s.min(via.start_by_s.unwrap_or(i64::MAX).max(1))),
        finish_by_s: policy.map(|policy| policy.finish_by_s),
        requested_by: &requester.name,
        requested_by_oid: requester.oid,
        via,
    };
    let decided = policy.and_then(|_| decided::digest(&findings.decisions));
    let decided = decided.as_ref().map(<[u8; 16]>::as_slice);
    let permit = policy
        .map(|_| permit::issue(&session.instance.permit_key, &claims(call, via, question, requester, lease, decided)));
    let admission = permit.as_ref().zip(policy).map(|(permit, policy)| Admitted {
        place: place(call, via, requester, lease, policy),
        permit,
        decided,
        lease_ttl_s: policy.lease_ttl_s,
        is_new: call.process_run_id.is_none(),
    });
    let row = ledger::insert(&new, admission.as_ref())?
        .ok_or_else(|| error::internal("the idempotency key was taken meanwhile"))?;
    if let Some(block) = block.filter(|block| call.mode.calls_engine() && !is_tried_again(via, block)) {
        log_refusal(question.run_id, call, block);
    }
    fail_point::at(Point::RequestBeforeReturn, &call.code);
    Ok(Requested { row, run_id: question.run_id, status, admitted })
}

/// The place of an admitted run.
fn place<'a>(call: &Call, via: &Via, requester: &Requester, lease: &Leased, policy: &'a Policy) -> Place<'a> {
    Place {
        lane: lane::of(requester.oid.to_u32(), &call.code),
        endpoint: policy.endpoint.as_deref().unwrap_or_default(),
        lease_wait: lease.waits,
        followed: via.source == Source::Request,
        alike: via.coalesce.then(|| call.alike(requester.oid.to_u32())),
    }
}

/// The state that a run is born in, and the decision that refuses it.
pub(super) fn first_state(mode: Mode, findings: &Findings) -> Result<(RunStatus, Option<&Decision>), DotError> {
    let block = match mode {
        Mode::Plan => gate::first_plan_block(&findings.decisions),
        Mode::Verify | Mode::Apply => gate::first_block(&findings.decisions),
    };
    let cause = match (block, mode) {
        (Some(_), _) => Cause::Refused,
        (None, Mode::Plan) => Cause::PlanMade,
        (None, Mode::Verify | Mode::Apply) => Cause::Admitted,
    };
    let status = state::next(mode, None, cause).ok_or_else(|| error::internal("a run without a first state"))?;
    Ok((status, block))
}

/// A job that waits is asked for every few seconds, and says so itself.
fn is_tried_again(via: &Via, block: &Decision) -> bool {
    via.source == Source::Job && job::is_put_off(&block.reason)
}

/// The caller may roll back, and with it goes the row; the server's log keeps the refusal in any case.
fn log_refusal(run_id: Uuid, call: &Call, block: &Decision) {
    let (gate, reason) = (block.gate.as_str(), &block.reason);
    log::line(&format!("dot_wrapper: run {run_id} of {} ({}) refused by gate {gate}: {reason}", call.code, call.mode));
}

fn claims<'a>(
    call: &'a Call,
    via: &Via,
    question: &Question<'_>,
    requester: &Requester,
    lease: &'a Leased,
    decided: Option<&'a [u8]>,
) -> Claims<'a> {
    Claims {
        run_id: question.run_id,
        process_run_id: question.process_run_id,
        code: &call.code,
        mode: call.mode,
        args: &call.args,
        requested_by: requester.oid.to_u32(),
        lease_key: lease.key.as_deref(),
        source: via.source,
        decided,
    }
}

//! The second gate and the intents: from queued runs to deliveries that are on disk before anything is sent.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::gates::{self, Findings, Question};
use super::leases;
use super::session::Session;
use crate::domain::decide;
use crate::domain::egress::Rules;
use crate::domain::error::DotError;
use crate::domain::gate::{self, Decision, Gate};
use crate::domain::lease;
use crate::domain::mode::Mode;
use crate::domain::permit::{self, Claims};
use crate::domain::policy::Policy;
use crate::domain::render::Request;
use crate::domain::state::{Cause, RunStatus, next};
use crate::pg::fail_point::{self, Point};
use crate::pg::xact;
use crate::store::event::{self, Remark};
use crate::store::extension::{self, Extension};
use crate::store::grant;
use crate::store::queue::{self, Candidate, Drop, QueuedRun, Start};
use crate::store::role::{self, Requester};

/// One delivery whose intent is recorded.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// Mode.
    pub mode: Mode,
    /// Tool code.
    pub code: String,
    /// The token that it runs under.
    pub fencing_token: Option<i64>,
    /// What to send.
    pub request: Request,
    /// Its bounds.
    pub policy: Policy,
    /// Where it may go.
    pub egress: Arc<Rules>,
}

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// To be sent once this transaction has committed.
    pub deliveries: Vec<Delivery>,
    /// Runs that were looked at; fewer than asked for means that the queue is empty.
    pub seen: usize,
    /// True when this database may not execute.
    pub suspended: bool,
}

/// Claims up to `limit` runs for `worker`.
///
/// # Errors
/// XX000 and 55000 only; what a gate says is a decision, not an error.
pub fn claim(extension: &Extension, worker: Uuid, limit: usize) -> Result<Claimed, DotError> {
    let instance = extension::instance(crate::pg::session::system_identifier())?;
    if !instance.is_here {
        return Ok(Claimed { suspended: true, ..Claimed::default() });
    }
    let candidates = queue::next(limit)?;
    let seen = candidates.len();
    if seen == 0 {
        return Ok(Claimed::default());
    }
    let permitted = hold_unpermitted(&instance.permit_key, candidates)?;
    let codes: Vec<String> = permitted.iter().map(|(_, run)| run.code.clone()).collect();
    let mut session = Session::open(extension, Some(&codes))?;
    let requesters = requesters(extension, &permitted)?;
    let mut batch = Batch::default();
    for (run_id, run) in permitted {
        second_gate(&mut session, &requesters, run_id, run, &mut batch)?;
    }
    queue::postpone(&batch.postponed)?;
    drop_refused(&session, &batch)?;
    let deliveries = record_intents(&session, worker, batch)?;
    fail_point::each(Point::ClaimBeforeCommit, deliveries.iter().map(|delivery| delivery.code.as_str()));
    Ok(Claimed { deliveries, seen, suspended: false })
}

#[derive(Default)]
struct Batch {
    starts: Vec<Start>,
    drops: Vec<Drop>,
    /// To be asked about again in a moment.
    postponed: Vec<Uuid>,
    /// Leases of the dropped.
    leases: HashMap<Uuid, String>,
    passed: HashMap<Uuid, (QueuedRun, Policy, Request)>,
}

/// Invariant 11: rows that did not come through `fn_dot_run` here are set aside, with a remark and a line in the log.
fn hold_unpermitted(key: &[u8], candidates: Vec<Candidate>) -> Result<Vec<(Uuid, QueuedRun)>, DotError> {
    let (mut permitted, mut held, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        let run_id = candidate.run_id;
        match candidate.run {
            Some(run) if permit::verify(key, &claims(run_id, &run), &candidate.permit) => permitted.push((run_id, run)),
            Some(_) => {
                let detail = json!({"message": "the queue row did not come through fn_dot_run in this database"});
                remarks.push(Remark { run_id, attempt: None, event: "no_permit", detail });
                held.push(run_id);
            }
            None => held.push(run_id),
        }
    }
    if let Some(first) = held.first() {
        let n = held.len();
        pgrx::warning!(
            "dot_wrapper: {n} queue rows without a valid permit are not executed, {first} first; see fn_dot_resume()"
        );
    }
    queue::hold(&held)?;
    event::remark(&remarks)?;
    Ok(permitted)
}

/// What a queued run's permit must cover.
pub(super) fn claims(run_id: Uuid, run: &QueuedRun) -> Claims<'_> {
    Claims {
        run_id,
        process_run_id: run.process_run_id,
        code: &run.code,
        mode: run.mode,
        args: &run.args,
        requested_by: run.requested_by_oid.to_u32(),
        lease_key: run.lease_key.as_deref(),
    }
}

fn requesters(extension: &Extension, runs: &[(Uuid, QueuedRun)]) -> Result<Vec<Requester>, DotError> {
    let mut oids: Vec<_> = runs.iter().map(|(_, run)| run.requested_by_oid).collect();
    oids.sort_unstable_by_key(|oid| oid.to_u32());
    oids.dedup();
    role::requesters(extension, &oids)
}

/// Asks everything again, for one run.
fn second_gate(
    session: &mut Session,
    requesters: &[Requester],
    run_id: Uuid,
    run: QueuedRun,
    batch: &mut Batch,
) -> Result<(), DotError> {
    fail_point::at(Point::ClaimGate, &run.code);
    let mut findings = Findings::default();
    findings.decisions.push(Decision::ok(Gate::Permit, "it came through fn_dot_run", json!({})));
    findings.decisions.push(requester(requesters, &run));
    findings.decisions.push(deadline(&run));
    if gate::first_block(&findings.decisions).is_none() {
        let first = std::mem::take(&mut findings.decisions);
        let question =
            Question { code: &run.code, mode: run.mode, args: &run.args, run_id, process_run_id: run.process_run_id };
        findings = gates::ask(session, &question);
        findings.decisions.splice(0..0, first);
        findings.decisions.extend(changed(&run, &findings));
    }
    let mut token = None;
    if gate::first_block(&findings.decisions).is_none() {
        let (decision, granted) = hold_lease(session, run_id, &run, &findings)?;
        findings.decisions.push(decision);
        token = granted;
    }
    let gates = findings.to_json();
    if let Some(block) = gate::first_block(&findings.decisions) {
        if block.is_passing() {
            batch.postponed.push(run_id);
            return Ok(());
        }
        let cause = if block.gate == Gate::Deadline { Cause::Expired } else { Cause::Refused };
        let Some(status) = next(run.mode, Some(RunStatus::Queued), cause) else { return Ok(()) };
        let (gate, reason) = (block.gate.as_str(), block.reason.clone());
        pgrx::log!(
            "dot_wrapper: run {run_id} of {} ({}) {} at the second gate {gate}: {reason}",
            run.code,
            run.mode,
            status.as_str()
        );
        batch.drops.push(Drop { run_id, status, reason, message: block.message.clone(), gates });
        if let Some(key) = run.lease_key {
            batch.leases.insert(run_id, key);
        }
        return Ok(());
    }
    let (Some(policy), Some(request)) = (findings.policy, findings.request) else { return Ok(()) };
    let deadline_ms = policy.connect_timeout_ms + policy.total_timeout_ms;
    batch.starts.push(Start { run_id, attempt: run.attempts + 1, deadline_ms, fencing_token: token, gates });
    batch.passed.insert(run_id, (run, policy, request));
    Ok(())
}

fn requester(requesters: &[Requester], run: &QueuedRun) -> Decision {
    let inputs = json!({"role": run.requested_by});
    let known = requesters.iter().find(|r| r.oid == run.requested_by_oid);
    match known {
        Some(Requester { name: Some(_), may_call: true, .. }) => {
            Decision::ok(Gate::Requester, "the requesting role may call fn_dot_run", inputs)
        }
        Some(Requester { name: Some(_), .. }) => Decision::block(
            Gate::Requester,
            "privilege_revoked",
            "the requesting role may not call fn_dot_run any more",
            inputs,
        ),
        _ => Decision::block(Gate::Requester, "role_gone", "the requesting role does not exist any more", inputs),
    }
}

fn deadline(run: &QueuedRun) -> Decision {
    if run.is_late {
        Decision::block(Gate::Deadline, "start_by_passed", "the run waited past its start-by time", json!({}))
    } else {
        Decision::ok(Gate::Deadline, "in time", json!({}))
    }
}

/// What was gated is what is sent: another target needs another request. A changed tool is told, not refused, since
/// nothing binds this run to a plan.
fn changed(run: &QueuedRun, findings: &Findings) -> Option<Decision> {
    let request = findings.request.as_ref()?;
    if run.url.as_deref() != Some(request.url.as_str()) {
        let inputs = json!({"requested": run.url, "now": request.url.as_str()});
        return Some(Decision::block(
            Gate::Engine,
            "endpoint_changed",
            "the endpoint changed after the request",
            inputs,
        ));
    }
    if run.fingerprint != findings.fingerprint {
        let inputs = json!({"requested": run.fingerprint, "now": findings.fingerprint});
        return Some(Decision::warn(Gate::Tool, "tool_changed", "the tool changed after the request", inputs));
    }
    None
}

/// Renews the run's lease, or takes it again where it ran out unclaimed; then the token is a new one.
fn hold_lease(
    session: &Session,
    run_id: Uuid,
    run: &QueuedRun,
    findings: &Findings,
) -> Result<(Decision, Option<i64>), DotError> {
    let Some(key) = run.lease_key.as_deref() else { return Ok((decide::lease(None, None), None)) };
    let ttl_s = findings.policy.as_ref().map_or(300, |policy| policy.lease_ttl_s);
    let answer = session.ports.acquire(key, &lease::holder(run_id), ttl_s);
    let decision = decide::lease(Some(key), Some(&answer));
    if decision.blocks() {
        return Ok((decision, None));
    }
    let granted = xact::subtransaction(|| match grant::prolong(key, run_id, ttl_s) {
        Ok(None) => grant::record(key, run_id, ttl_s),
        other => other,
    });
    let token = match granted {
        Ok(token) => token?,
        Err(caught) if caught.is_lock_timeout() => {
            let inputs = json!({"key": key, "sqlstate": caught.sqlstate});
            return Ok((Decision::block(Gate::Lease, "lease_error", "the lease is being given away", inputs), None));
        }
        Err(caught) => caught.raise(),
    };
    Ok((decision, token))
}

fn drop_refused(session: &Session, batch: &Batch) -> Result<(), DotError> {
    for run_id in queue::drop_queued(&batch.drops)? {
        if let Some(key) = batch.leases.get(&run_id) {
            leases::release(&session.ports, key, run_id)?;
        }
    }
    Ok(())
}

fn record_intents(session: &Session, worker: Uuid, mut batch: Batch) -> Result<Vec<Delivery>, DotError> {
    let mut deliveries = Vec::with_capacity(batch.starts.len());
    let deadlines: HashMap<Uuid, String> = queue::start(worker, &batch.starts)?.into_iter().collect();
    for start in batch.starts {
        let (Some(deadline), Some((run, policy, request))) =
            (deadlines.get(&start.run_id), batch.passed.remove(&start.run_id))
        else {
            continue;
        };
        let run_ids = (start.run_id, run.process_run_id);
        deliveries.push(Delivery {
            run_id: start.run_id,
            attempt: start.attempt,
            mode: run.mode,
            code: run.code,
            fencing_token: start.fencing_token,
            request: request.delivered(run_ids, start.attempt, start.fencing_token, deadline),
            policy,
            egress: Arc::clone(&session.config.egress),
        });
    }
    Ok(deliveries)
}

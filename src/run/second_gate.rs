//! The gates, asked again in the transaction that records the intent. A run that they stop ends as what has been done
//! before allows: see `domain::retry::Past::end`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::batch::Batch;
use super::gates::{self, Disk, Findings, Question};
use super::leases;
use super::pick::Parked;
use super::session::Session;
use super::settle;
use crate::domain::busy::Busy;
use crate::domain::error::DotError;
use crate::domain::gate::{self, Decision, Gate};
use crate::domain::lease;
use crate::domain::limits::{Ask, By, Call, Flow};
use crate::domain::order::Order;
use crate::domain::policy::Policy;
use crate::domain::retry::{self, Past};
use crate::domain::schedule::Trigger;
use crate::domain::state::{Cause, RunStatus, next};
use crate::domain::via::Source;
use crate::domain::{decide, decided};
use crate::pg::fail_point::{self, Point};
use crate::pg::xact;
use crate::store::candidate::QueuedRun;
use crate::store::queue::Start;
use crate::store::role::Requester;
use crate::store::transition::Move;
use crate::store::{crowd, grant};

/// Seconds for which a lease is held whose run has no policy.
const DEFAULT_TTL_S: i64 = 300;

/// Asks everything again, for one run, and notes in the batch what follows; [`hold_leases`] does so for those
/// that pass.
///
/// # Errors
/// XX000 only.
pub(super) fn ask(
    session: &mut Session,
    requesters: &[Requester],
    run_id: Uuid,
    run: QueuedRun,
    (flow, busy): (&mut Flow, &mut Busy),
    batch: &mut Batch,
) -> Result<(), DotError> {
    fail_point::at(Point::ClaimGate, &run.code);
    let lease = run.lease_key.clone().filter(|_| waits(&run));
    if let Some(key) = &lease
        && busy.is(key, Instant::now())
        && !run.withdrawn
        && !run.is_late
    {
        // One of those that wait for a lease is enough to find out that it is still held.
        batch.parked.push(Parked { run_id, key: of_lease(key), limit: 1 });
        return Ok(());
    }
    let findings = find(session, requesters, run_id, &run)?;
    let call = (run_id, run.attempts + 1);
    let mut passing = Passing { run_id, run, findings };
    if gate::first_block(&passing.findings.decisions).is_some() {
        passing.end(None, flow, batch);
        return Ok(());
    }
    // Before the lease, which writes: a run that has to wait for room leaves no trace.
    if let Some(policy) = &passing.findings.policy
        && !has_room(flow, call, &passing.run, policy, batch)
    {
        return Ok(());
    }
    let Some(key) = lease else {
        batch.passing.push(passing);
        return Ok(());
    };
    // Who was admitted with this lease comes first, though it is asked for later.
    if batch.passing.iter().any(|other| other.run.lease_key.as_deref() == Some(key.as_str())) {
        flow.withdraw(call);
        batch.parked.push(Parked { run_id, key: of_lease(&key), limit: 1 });
        return Ok(());
    }
    // Taken here and now, so that those behind it know.
    let (decision, token) = hold_lease(session, run_id, &passing.run, &passing.findings)?;
    if must_wait(busy, &key, &decision) {
        flow.withdraw(call);
        batch.parked.push(Parked { run_id, key: of_lease(&key), limit: 1 });
        return Ok(());
    }
    passing.findings.decisions.push(decision);
    passing.end(token, flow, batch);
    Ok(())
}

/// A run that has passed all gates but its lease.
pub(super) struct Passing {
    run_id: Uuid,
    run: QueuedRun,
    findings: Findings,
}

impl Passing {
    /// The lease and how long it is taken for, in seconds.
    fn lease(&self) -> Option<(&str, i64)> {
        let ttl_s = self.findings.policy.as_ref().map_or(DEFAULT_TTL_S, |policy| policy.lease_ttl_s);
        self.run.lease_key.as_deref().map(|key| (key, ttl_s))
    }

    /// All gates have said what they say: it starts, waits a moment, or ends.
    fn end(self, token: Option<i64>, flow: &mut Flow, batch: &mut Batch) {
        let Passing { run_id, run, findings } = self;
        let call = (run_id, run.attempts + 1);
        if let Some(block) = gate::first_block(&findings.decisions) {
            flow.withdraw(call);
            if block.is_passing() {
                batch.postponed.push(run_id);
            } else {
                let gates = findings.to_json();
                batch.drops.extend(stop(run_id, &run, findings.policy.as_ref(), block, gates));
            }
            return;
        }
        let (Some(mut policy), Some(request)) = (findings.policy, findings.request) else { return };
        policy.total_timeout_ms = policy.total_timeout_ms.min(run.left_ms.max(1));
        let deadline_ms = (policy.connect_timeout_ms + policy.total_timeout_ms).min(run.left_ms.max(1));
        let detail = decided::detail(&findings.decisions, run.decided.as_deref());
        batch.starts.push(Start { run_id, attempt: call.1, deadline_ms, fencing_token: token, detail });
        batch.passed.insert(run_id, (run, policy, request));
    }
}

/// The last gate of those that have passed all others: their leases, renewed together.
///
/// # Errors
/// XX000 only.
pub(super) fn hold_leases(session: &Session, flow: &mut Flow, batch: &mut Batch) -> Result<(), DotError> {
    let passing = std::mem::take(&mut batch.passing);
    let asked: Vec<leases::Hold<'_>> = passing
        .iter()
        .filter_map(|one| one.lease().map(|(key, ttl_s)| leases::Hold { key, run_id: one.run_id, ttl_s }))
        .collect();
    let mut held: HashMap<Uuid, (Decision, Option<i64>)> = leases::hold_all(&session.ports, &asked)?;
    for mut one in passing {
        let (decision, token) = match held.remove(&one.run_id) {
            Some(answer) => answer,
            None => hold_lease(session, one.run_id, &one.run, &one.findings)?,
        };
        one.findings.decisions.push(decision);
        one.end(token, flow, batch);
    }
    Ok(())
}

/// Whether the limits let it go now; it counts from here on. Notes what it waits for.
fn has_room(flow: &mut Flow, call: Call, run: &QueuedRun, policy: &Policy, batch: &mut Batch) -> bool {
    let key = key_of(policy, run);
    let ask = Ask {
        call,
        endpoint: policy.endpoint.as_deref().unwrap_or_default(),
        code: &run.code,
        max_in_flight: policy.max_in_flight,
        key: key.as_ref().map(|(key, limit)| (key.as_str(), *limit)),
    };
    match (flow.admit(&ask, Instant::now()), key) {
        (Ok(()), _) => return true,
        (Err(hold), Some((key, limit))) if hold.by == By::Key => {
            batch.parked.push(Parked { run_id: call.0, key, limit });
        }
        (Err(_), _) => {
            batch.held.insert(call.0);
        }
    }
    false
}

/// Whether a run that waits for this lease goes on waiting; remembers it for the others.
fn must_wait(busy: &mut Busy, key: &str, decision: &Decision) -> bool {
    let is_held = decision.reason == "lease_held" || decision.is_passing();
    if is_held {
        busy.note(key, Instant::now());
    } else {
        busy.forget(key);
    }
    is_held
}

/// True for a run that was queued to wait for its lease, and that no delivery has been made of.
fn waits(run: &QueuedRun) -> bool {
    run.lease_wait && run.attempts == 0
}

/// What stands for a lease among the keys of calls. No text of SQL begins like this.
pub(super) fn of_lease(key: &str) -> String {
    format!("\0{key}")
}

/// As [`in_flight_key`], for a queued run.
pub(super) fn key_of(policy: &Policy, run: &QueuedRun) -> Option<(String, i64)> {
    let (key, limit) = in_flight_key(policy, &run.code, &run.args, &run.requested_by, run.lease_key.as_deref())?;
    Some((key, if limit == HOLDERS && waits(run) { 1 } else { limit }))
}

/// Who holds a lease goes, whoever held it before and is still out: only who waits for it is held up.
const HOLDERS: i64 = i64::MAX;

/// What `max_in_flight_per_key` counts by, and how many. Without such a limit, the lease: those that wait for it are then
/// taken up when the call that is out under it has ended. `None` without either.
pub(super) fn in_flight_key(
    policy: &Policy,
    code: &str,
    args: &Value,
    role: &str,
    lease_key: Option<&str>,
) -> Option<(String, i64)> {
    let Some(limit) = policy.max_in_flight_per_key else { return Some((of_lease(lease_key?), HOLDERS)) };
    let template = policy.in_flight_key.replace("{role}", role);
    Some((lease::key(&template, code, args)?, limit))
}

/// All gates but the lease, up to the first BLOCK.
fn find(session: &mut Session, requesters: &[Requester], run_id: Uuid, run: &QueuedRun) -> Result<Findings, DotError> {
    let mut findings = Findings::default();
    findings.decisions.push(Decision::ok(Gate::Permit, "it came through fn_dot_run", json!({})));
    if run.withdrawn {
        let message = "somebody has asked to cancel the run";
        findings.decisions.push(Decision::block(Gate::Cancel, retry::CANCELLED, message, json!({})));
        return Ok(findings);
    }
    findings.decisions.push(requester(requesters, run));
    findings.decisions.push(deadline(run));
    if gate::first_block(&findings.decisions).is_none() {
        let first = std::mem::take(&mut findings.decisions);
        let question = Question {
            code: &run.code,
            mode: run.mode,
            args: &run.args,
            run_id,
            process_run_id: run.process_run_id,
            disk: Disk::Later(run.target.as_deref()),
        };
        findings = gates::ask(session, &question);
        findings.decisions.splice(0..0, first);
        findings.decisions.extend(changed(run, &findings));
        findings.decisions.extend(covered(run_id, run, &findings)?);
        let forgotten = findings.policy.as_ref().is_some_and(|policy| is_forgotten(run, policy));
        if forgotten {
            let message = "the agent may have forgotten the idempotency key by the time of the answer";
            findings.decisions.push(Decision::block(Gate::Deadline, "key_window_passed", message, json!({})));
        }
    }
    Ok(findings)
}

/// A tick of a dual tool that waited, and was overtaken by an event: the event's run does the work, with a window of its
/// own.
fn covered(run_id: Uuid, run: &QueuedRun, findings: &Findings) -> Result<Option<Decision>, DotError> {
    let is_dual = findings.tool.as_ref().is_some_and(|tool| Trigger::of(tool).is_dual());
    if run.source != Source::Schedule || !is_dual || run.attempts > 0 {
        return Ok(None);
    }
    let event = crowd::event_since_tick(run_id, &run.code, run.mode, &run.args)?;
    Ok(event.map(|event| decide::covered(&run.code, &event)))
}

/// How a run ends that a gate stops.
fn stop(run_id: Uuid, run: &QueuedRun, policy: Option<&Policy>, block: &Decision, gates: Value) -> Option<Move> {
    let asked = match block.gate {
        Gate::Deadline => Cause::Expired,
        Gate::Cancel => Cause::Cancelled,
        _ => Cause::Refused,
    };
    let to = next(run.mode, Some(RunStatus::Queued), run.past.end(asked))?;
    let (gate, reason, code, mode) = (block.gate.as_str(), &block.reason, &run.code, run.mode);
    let state = to.as_str();
    pgrx::log!("dot_wrapper: run {run_id} of {code} ({mode}) {state} at the second gate {gate}: {reason}");
    Some(Move {
        detail: json!({"reason": reason, "message": block.message, "gates": gates}),
        wait_ms: (to == RunStatus::InDoubt).then_some(0),
        keep_lease_ms: policy.and_then(settle::keep_lease_ms),
        ..Move::new(run_id, run.attempts, to, reason.clone(), block.message.clone())
    })
}

fn is_forgotten(run: &QueuedRun, policy: &Policy) -> bool {
    run.past != Past::None && !retry::key_is_remembered(policy, run.key_age.max(Duration::ZERO))
}

fn requester(requesters: &[Requester], run: &QueuedRun) -> Decision {
    let inputs = json!({"role": run.requested_by});
    let known = requesters.iter().find(|r| r.oid == run.requested_by_oid && r.name.is_some());
    let what = match run.source {
        Source::Request => "insert into dot_run_request",
        _ => "call fn_dot_run",
    };
    match known.map(|role| if run.source == Source::Request { role.may_request } else { role.may_call }) {
        Some(true) => Decision::ok(Gate::Requester, format!("the requesting role may {what}"), inputs),
        Some(false) => {
            let message = format!("the requesting role may not {what} any more");
            Decision::block(Gate::Requester, "privilege_revoked", message, inputs)
        }
        None => Decision::block(Gate::Requester, "role_gone", "the requesting role does not exist any more", inputs),
    }
}

fn deadline(run: &QueuedRun) -> Decision {
    let (reason, message) = match run.is_late {
        false => return Decision::ok(Gate::Deadline, "in time", json!({})),
        true if run.left_ms <= 0 => ("finish_by_passed", "the run waited past its finish-by time"),
        true => ("start_by_passed", "the run waited past its start-by time"),
    };
    Decision::block(Gate::Deadline, reason, message, json!({}))
}

/// What was gated is what is sent: another target needs another request. A changed tool is told, not refused, since
/// nothing binds this run to a plan.
fn changed(run: &QueuedRun, findings: &Findings) -> Option<Decision> {
    let request = findings.request.as_ref()?;
    if run.target.as_deref() != Some(request.target()) {
        let inputs = json!({"requested": run.target, "now": request.target()});
        let (reason, message) = match request {
            Order::Http(_) => ("endpoint_changed", "the endpoint changed after the request"),
            Order::Script(_) => ("program_changed", "the program's path changed after the request"),
        };
        return Some(Decision::block(Gate::Engine, reason, message, inputs));
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
    let ttl_s = findings.policy.as_ref().map_or(DEFAULT_TTL_S, |policy| policy.lease_ttl_s);
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

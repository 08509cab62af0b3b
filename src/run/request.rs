//! `fn_dot_run`, and every other way to ask for a run: from a caller's wish to a row of the ledger and, when it is admitted, of the
//! queue. All in the caller's transaction; nothing is sent from here.

use serde_json::{Value, json};
use uuid::Uuid;

use super::breaker;
use super::crowd;
use super::depth;
use super::gates::{self, Disk, Findings, Question};
use super::keys;
use super::record::{Leased, record};
use super::session::Session;
use super::wait;
use crate::domain::call::{Call, Raw};
use crate::domain::decide::{self, PortAnswer};
use crate::domain::error::{DotError, SqlState};
use crate::domain::gate::{self, Decision, Gate};
use crate::domain::lease;
use crate::domain::mode::Mode;
use crate::domain::policy::Policy;
use crate::domain::state::RunStatus;
use crate::domain::via::{Source, Via};
use crate::pg::fail_point::{self, Point};
use crate::pg::rows::Row;
use crate::pg::user;
use crate::store::extension::Extension;
use crate::store::{extension, grant, ledger, role};

/// What is known of the worker that would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerFacts {
    /// The library is in `shared_preload_libraries`.
    pub preloaded: bool,
    /// A worker serves this database.
    pub alive: bool,
}

/// What a request came to.
pub struct Requested {
    /// The ledger row.
    pub row: Row,
    /// Its id.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: RunStatus,
    /// True when a run was put into the queue, so that the worker is to be woken at commit.
    pub admitted: bool,
}

/// One run.
///
/// # Errors
/// Misuse, as in [`Raw::check`]; 23505 when the key is in use for other arguments; 55000 without the extension.
pub fn one(raw: Raw, worker: WorkerFacts) -> Result<Requested, DotError> {
    one_via(raw, Via::call(), worker)
}

/// One run that comes by another way than a plain call.
///
/// # Errors
/// As [`one`].
pub fn one_via(raw: Raw, via: Via, worker: WorkerFacts) -> Result<Requested, DotError> {
    let call = raw.check(crate::guc::max_args_bytes())?;
    let via = via.tidy();
    via.check_key(&call.idempotency_key)?;
    let requester = Requester::by(&via);
    let extension = extension::for_writing()?;
    fail_point::at(Point::RequestBegun, &call.code);
    extension::as_owner(&extension, || {
        // Before the sitting of the gates is prepared: what is covered costs little.
        if let Some(found) = crowd::coalesce(requester.oid, &via, &call)? {
            return Ok(found);
        }
        let mut session = Session::open(&extension, Some(std::slice::from_ref(&call.code)))?;
        request(&mut session, &requester, worker, &via, &call)
    })
}

/// As [`one_via`], as the extension's owner and in a session that has been opened for the tool, for many in one transaction.
///
/// # Errors
/// As [`one`].
pub(super) fn in_session(
    session: &mut Session,
    raw: Raw,
    via: Via,
    worker: WorkerFacts,
) -> Result<Requested, DotError> {
    let call = raw.check(crate::guc::max_args_bytes())?;
    let via = via.tidy();
    via.check_key(&call.idempotency_key)?;
    let requester = Requester::by(&via);
    match crowd::coalesce(requester.oid, &via, &call)? {
        Some(found) => Ok(found),
        None => request(session, &requester, worker, &via, &call),
    }
}

/// Who asks.
pub(super) struct Requester {
    /// The role.
    pub(super) oid: pgrx::pg_sys::Oid,
    pub(super) name: String,
}

impl Requester {
    pub(super) fn current() -> Self {
        Requester::of(user::current())
    }

    fn by(via: &Via) -> Self {
        via.requester.map_or_else(Requester::current, |oid| Requester::of(oid.into()))
    }

    fn of(oid: pgrx::pg_sys::Oid) -> Self {
        Requester { oid, name: user::name_of(oid) }
    }

    /// `function` besides `fn_dot_run`, not instead: the second gate asks for the latter.
    pub(super) fn must_be_allowed(&self, extension: &Extension, function: &str) -> Result<(), DotError> {
        if role::requesters(extension, &[self.oid])?.iter().any(|requester| requester.may_call) {
            return Ok(());
        }
        Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for function fn_dot_run")
            .detail(format!("{function} calls it for role {}.", self.name))
            .hint("GRANT EXECUTE ON FUNCTION fn_dot_run to that role."))
    }
}

/// One run, of a session that is open.
///
/// # Errors
/// As [`one`].
pub(super) fn request(
    session: &mut Session,
    requester: &Requester,
    worker: WorkerFacts,
    via: &Via,
    call: &Call,
) -> Result<Requested, DotError> {
    if let Some(found) = earlier(session, requester, via, call)? {
        return Ok(found);
    }
    let run_id = Uuid::now_v7();
    let question = Question {
        code: &call.code,
        mode: call.mode,
        args: &call.args,
        run_id,
        process_run_id: call.process_run_id.unwrap_or_else(Uuid::now_v7),
        // Jobs are taken by the worker.
        disk: if via.source == Source::Job { Disk::IfNeeded } else { Disk::Asked },
    };
    let mut findings = gates::form(session, &question, call.mode == Mode::Plan);
    ask_capacity(session, requester, via, &question, &mut findings)?;
    findings = gates::ask_substrate(session, &question, findings);
    let lease_key = findings.policy.as_ref().and_then(|policy| lease::key(&policy.lease, &call.code, &call.args));
    let lease = ask_lease(session, via, &question, &mut findings, lease_key.as_deref())?;
    warn_of_worker(session, worker, call.mode, &mut findings);
    record(session, requester, via, call, &question, &findings, &lease)
}

/// Other runs of the tool, and the queue's depth, which may refuse, and the endpoint's breaker, which may warn. Before toggle, guard and lease, so that
/// a flood is cheap to refuse.
pub(super) fn ask_capacity(
    session: &mut Session,
    requester: &Requester,
    via: &Via,
    question: &Question<'_>,
    findings: &mut Findings,
) -> Result<(), DotError> {
    let Some(policy) = findings.policy.take() else { return Ok(()) };
    let asked = ask_capacity_of(session, requester, via, question, findings, &policy);
    findings.policy = Some(policy);
    asked
}

fn ask_capacity_of(
    session: &mut Session,
    requester: &Requester,
    via: &Via,
    question: &Question<'_>,
    findings: &mut Findings,
    policy: &Policy,
) -> Result<(), DotError> {
    if question.mode != Mode::Plan && gate::first_block(&findings.decisions).is_some() {
        return Ok(());
    }
    if let Some(missed) = &via.missed {
        findings.note(decide::missed(missed));
    } else if let Some(block) = crowd::in_the_way(via, question.code, question.mode, question.args)? {
        findings.note(block);
    } else if let Some(full) = depth::ask(session.extension.oid, policy, requester.oid.to_u32(), question.code)? {
        findings.note(full);
    } else if let Some(endpoint) = &policy.endpoint
        && let Some(warning) = breaker::warning(session.closures()?, endpoint)
    {
        findings.note(warning);
    }
    Ok(())
}

/// Invariant 5: the run of the same key that was admitted first, if the tool is catalogued and the run is not a plan.
fn earlier(session: &Session, requester: &Requester, via: &Via, call: &Call) -> Result<Option<Requested>, DotError> {
    let (Some(process_run_id), true) = (call.process_run_id, call.mode.calls_engine()) else { return Ok(None) };
    if session.tools(&call.code).is_ok_and(<[_]>::is_empty) {
        return Ok(None);
    }
    keys::lock(session, via.source != Source::Job, process_run_id, call)?;
    let Some(found) = ledger::find_admitted(process_run_id, call)? else { return Ok(None) };
    let in_use = |why: &str| DotError::new(SqlState::UniqueViolation, format!("the idempotency key is in use {why}"));
    let key = format!(
        "process_run_id {process_run_id}, code {}, mode {}, idempotency_key \"{}\"",
        call.code, call.mode, call.idempotency_key
    );
    if !wait::may_see(requester.oid, &found.requested_by) {
        return Err(in_use("for a run of another role")
            .detail(key)
            .hint("pass another idempotency_key, or a process_run_id of your own"));
    }
    if found.same_args {
        return Ok(Some(Requested { row: found.row, run_id: found.run_id, status: found.status, admitted: false }));
    }
    Err(in_use("for a run with other arguments")
        .detail(format!("run {} has {key}", found.run_id))
        .hint("pass another idempotency_key for another call, or the same args to get that run"))
}

/// The lease gate: taken for a run that is otherwise admitted, looked at for a plan, left for later where the run waits.
fn ask_lease(
    session: &Session,
    via: &Via,
    question: &Question<'_>,
    findings: &mut Findings,
    key: Option<&str>,
) -> Result<Leased, DotError> {
    let none = Leased { key: key.map(str::to_owned), token: None, waits: false };
    let Some(policy) = &findings.policy else { return Ok(none) };
    let ttl_s = policy.lease_ttl_s;
    if question.mode == Mode::Plan {
        let held = match key {
            Some(key) => grant::is_held(&session.extension, key)?,
            None => None,
        };
        let answer = held.map(|held| PortAnswer::Value(if held { Value::Null } else { Value::Bool(true) }));
        findings.decisions.push(peeked(decide::lease(key, answer.as_ref())));
        return Ok(none);
    }
    if gate::first_block(&findings.decisions).is_some() {
        return Ok(none);
    }
    if (via.waits || policy.lease_wait)
        && let Some(key) = key
    {
        findings.decisions.push(decide::lease_later(key));
        return Ok(Leased { waits: true, ..none });
    }
    let answer = key.map(|key| session.ports.acquire(key, &lease::holder(question.run_id), ttl_s));
    let decision = decide::lease(key, answer.as_ref());
    let taken = !decision.blocks();
    findings.decisions.push(decision);
    match key {
        Some(_) if taken => Ok(Leased { token: Some(ledger::next_token()?), ..none }),
        _ => Ok(none),
    }
}

/// A plan takes no lease, and its decision says so.
pub(super) fn peeked(mut decision: Decision) -> Decision {
    if decision.reason == "ok" && decision.inputs.get("key").is_some() {
        decision.message = "nobody holds the lease now".into();
    }
    decision
}

pub(super) fn warn_of_worker(session: &Session, worker: WorkerFacts, mode: Mode, findings: &mut Findings) {
    let inputs =
        json!({"preloaded": worker.preloaded, "alive": worker.alive, "same_database": session.instance.is_here});
    let warning = if !session.instance.is_here {
        Some(("suspended", "this database is a copy; nothing is sent until fn_dot_resume()"))
    } else if !worker.preloaded {
        Some(("not_preloaded", "dot_wrapper is not in shared_preload_libraries; nothing is sent"))
    } else if !worker.alive {
        Some(("no_worker", "no worker serves this database at the moment; the run waits for it"))
    } else {
        None
    };
    if let Some((reason, message)) = warning
        && (mode == Mode::Plan || gate::first_block(&findings.decisions).is_none())
    {
        findings.decisions.push(Decision::warn(Gate::Worker, reason, message, inputs));
    }
}

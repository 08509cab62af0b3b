//! `fn_dot_run` and `fn_dot_run_all`: from a caller's wish to a row of the ledger and, when it is admitted, of the
//! queue. All in the caller's transaction; nothing is sent from here.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::breaker;
use super::depth;
use super::gates::{self, Findings, Question};
use super::session::Session;
use super::wait;
use crate::domain::call::{self, Call, Raw};
use crate::domain::decide::{self, PortAnswer};
use crate::domain::error::{DotError, SqlState};
use crate::domain::gate::{self, Decision, Gate};
use crate::domain::mode::Mode;
use crate::domain::permit::{self, Claims};
use crate::domain::state::{self, Cause, RunStatus};
use crate::domain::{canonical, lane, lease};
use crate::error;
use crate::pg::fail_point::{self, Point};
use crate::pg::rows::Row;
use crate::pg::{lock, log, user};
use crate::store::extension::Extension;
use crate::store::ledger::{self, NewRun};
use crate::store::queue::Place;
use crate::store::{event, extension, grant, queue, role};

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
    /// True when a run was put into the queue, so that the worker is to be woken at commit.
    pub admitted: bool,
}

/// One run.
///
/// # Errors
/// Misuse, as in [`Raw::check`]; 23505 when the key is in use for other arguments; 55000 without the extension.
pub fn one(raw: Raw, worker: WorkerFacts) -> Result<Requested, DotError> {
    let call = raw.check(crate::guc::max_args_bytes())?;
    let requester = Requester::current();
    let extension = extension::current()?;
    extension::as_owner(&extension, || {
        let mut session = Session::open(&extension, Some(std::slice::from_ref(&call.code)))?;
        request(&mut session, &requester, worker, &call)
    })
}

/// A run for every tool that the filter selects, in one process run and in the order of their codes.
///
/// # Errors
/// As [`one`]; 22004 and 22023 for a filter that is no object or names a column that the catalogue has not.
pub fn all(filter: Option<Value>, raw: Raw, worker: WorkerFacts) -> Result<Vec<Requested>, DotError> {
    let filter = check_filter(filter)?;
    let mode = call::check_mode(raw.mode)?;
    let args = raw.args.ok_or_else(|| {
        DotError::new(SqlState::NullValueNotAllowed, "args must not be null").hint("pass '{}' for no arguments")
    })?;
    call::check_args(&args, crate::guc::max_args_bytes())?;
    let process_run_id = raw.process_run_id.unwrap_or_else(Uuid::now_v7);
    let requester = Requester::current();
    let extension = extension::current()?;
    extension::as_owner(&extension, || {
        requester.must_be_allowed(&extension)?;
        let mut session = Session::open(&extension, None)?;
        let codes = select(&session, &filter)?;
        let call = |code| Call {
            code,
            mode,
            process_run_id: Some(process_run_id),
            args: args.clone(),
            idempotency_key: String::new(),
        };
        codes.into_iter().map(|code| request(&mut session, &requester, worker, &call(code))).collect()
    })
}

struct Requester {
    oid: pgrx::pg_sys::Oid,
    name: String,
}

impl Requester {
    fn current() -> Self {
        let oid = user::current();
        Requester { oid, name: user::name_of(oid) }
    }

    /// `fn_dot_run_all` besides `fn_dot_run`, not instead: the second gate asks for the latter.
    fn must_be_allowed(&self, extension: &Extension) -> Result<(), DotError> {
        if role::requesters(extension, &[self.oid])?.iter().any(|requester| requester.may_call) {
            return Ok(());
        }
        Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for function fn_dot_run")
            .detail(format!("fn_dot_run_all calls it for role {}.", self.name))
            .hint("GRANT EXECUTE ON FUNCTION fn_dot_run to that role."))
    }
}

fn check_filter(filter: Option<Value>) -> Result<Map<String, Value>, DotError> {
    const HINT: &str = "pass column values, for example '{\"execution_engine\": \"agent_api\"}', or '{}' for all tools";
    match filter {
        None => Err(DotError::new(SqlState::NullValueNotAllowed, "filter must not be null").hint(HINT)),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(DotError::new(SqlState::InvalidParameterValue, "filter must be a JSON object").hint(HINT)),
    }
}

fn select(session: &Session, filter: &Map<String, Value>) -> Result<Vec<String>, DotError> {
    let tools = session.all_tools().map_err(|why| {
        DotError::new(SqlState::ObjectNotInPrerequisiteState, "the catalogue cannot be read").detail(why)
    })?;
    let mut codes = Vec::new();
    for tool in tools {
        let matches = tool.matches(filter).map_err(|column| {
            DotError::new(
                SqlState::InvalidParameterValue,
                format!("the catalogue has no column \"{}\"", call::shorten(&column)),
            )
            .hint("the keys of filter are columns of dot_tools")
        })?;
        if matches {
            codes.push(tool.code.clone());
        }
    }
    codes.dedup();
    Ok(codes)
}

fn request(
    session: &mut Session,
    requester: &Requester,
    worker: WorkerFacts,
    call: &Call,
) -> Result<Requested, DotError> {
    if let Some(row) = earlier(session, requester, call)? {
        return Ok(Requested { row, admitted: false });
    }
    let run_id = Uuid::now_v7();
    let question = Question {
        code: &call.code,
        mode: call.mode,
        args: &call.args,
        run_id,
        process_run_id: call.process_run_id.unwrap_or_else(Uuid::now_v7),
    };
    let mut findings = gates::form(session, &question, call.mode == Mode::Plan);
    ask_capacity(session, requester, &question, &mut findings)?;
    findings = gates::ask_substrate(session, &question, findings);
    let lease_key = findings.policy.as_ref().and_then(|policy| lease::key(&policy.lease, &call.code, &call.args));
    let token = ask_lease(session, &question, &mut findings, lease_key.as_deref())?;
    warn_of_worker(session, worker, call.mode, &mut findings);
    record(session, requester, call, &question, &findings, lease_key.as_deref(), token)
}

/// The queue's depth, which may refuse, and the endpoint's breaker, which may warn. Before toggle, guard and lease, so that
/// a flood is cheap to refuse.
fn ask_capacity(
    session: &mut Session,
    requester: &Requester,
    question: &Question<'_>,
    findings: &mut Findings,
) -> Result<(), DotError> {
    let Some(policy) = findings.policy.clone() else { return Ok(()) };
    if question.mode != Mode::Plan && gate::first_block(&findings.decisions).is_some() {
        return Ok(());
    }
    if let Some(full) = depth::ask(session.extension.oid, &policy, requester.oid.to_u32(), question.code)? {
        findings.note(full);
    } else if let Some(endpoint) = policy.endpoint
        && let Some(warning) = breaker::warning(session.closures()?, &endpoint)
    {
        findings.note(warning);
    }
    Ok(())
}

/// Invariant 5: the run of the same key that was admitted first, if the tool is catalogued and the run is not a plan.
fn earlier(session: &Session, requester: &Requester, call: &Call) -> Result<Option<Row>, DotError> {
    let (Some(process_run_id), true) = (call.process_run_id, call.mode.calls_engine()) else { return Ok(None) };
    if session.tools(&call.code).is_ok_and(<[_]>::is_empty) {
        return Ok(None);
    }
    // Two callers with one key come one after the other; the second then finds the first one's run.
    lock::xact_lock(key_hash(process_run_id, call));
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
        return Ok(Some(found.row));
    }
    Err(in_use("for a run with other arguments")
        .detail(format!("run {} has {key}", found.run_id))
        .hint("pass another idempotency_key for another call, or the same args to get that run"))
}

fn key_hash(process_run_id: Uuid, call: &Call) -> i64 {
    let text = canonical::text(&json!([process_run_id, call.code, call.mode, call.idempotency_key]));
    let digest = Sha256::digest(text.as_bytes());
    i64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// The lease gate: taken for a run that is otherwise admitted, looked at for a plan. The token of a taken one.
fn ask_lease(
    session: &Session,
    question: &Question<'_>,
    findings: &mut Findings,
    key: Option<&str>,
) -> Result<Option<i64>, DotError> {
    let Some(policy) = &findings.policy else { return Ok(None) };
    let ttl_s = policy.lease_ttl_s;
    if question.mode == Mode::Plan {
        let held = match key {
            Some(key) => grant::is_held(&session.extension, key)?,
            None => None,
        };
        let answer = held.map(|held| PortAnswer::Value(if held { Value::Null } else { Value::Bool(true) }));
        findings.decisions.push(peeked(decide::lease(key, answer.as_ref())));
        return Ok(None);
    }
    if gate::first_block(&findings.decisions).is_some() {
        return Ok(None);
    }
    let answer = key.map(|key| session.ports.acquire(key, &lease::holder(question.run_id), ttl_s));
    let decision = decide::lease(key, answer.as_ref());
    let taken = !decision.blocks();
    findings.decisions.push(decision);
    match key {
        Some(key) if taken => grant::record(key, question.run_id, ttl_s),
        _ => Ok(None),
    }
}

/// A plan takes no lease, and its decision says so.
fn peeked(mut decision: Decision) -> Decision {
    if decision.reason == "ok" && decision.inputs.get("key").is_some() {
        decision.message = "nobody holds the lease now".into();
    }
    decision
}

fn warn_of_worker(session: &Session, worker: WorkerFacts, mode: Mode, findings: &mut Findings) {
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

fn record(
    session: &Session,
    requester: &Requester,
    call: &Call,
    question: &Question<'_>,
    findings: &Findings,
    lease_key: Option<&str>,
    token: Option<i64>,
) -> Result<Requested, DotError> {
    let (status, block) = first_state(call.mode, findings)?;
    let admitted = status == RunStatus::Queued;
    let request = findings.request.as_ref().map(|order| order.clone().with_token(token).masked());
    let gates = findings.to_json();
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
        lease_key,
        fencing_token: token,
        start_by_s: findings.policy.as_ref().filter(|_| admitted).map(|policy| policy.start_by_s),
        finish_by_s: findings.policy.as_ref().filter(|_| admitted).map(|policy| policy.finish_by_s),
        requested_by: &requester.name,
        requested_by_oid: requester.oid,
    };
    let row = ledger::insert(&new)?.ok_or_else(|| error::internal("the idempotency key was taken meanwhile"))?;
    event::born(question.run_id, status)?;
    if admitted {
        let endpoint = findings.policy.as_ref().and_then(|policy| policy.endpoint.as_deref()).unwrap_or_default();
        let place = Place { lane: lane::of(requester.oid.to_u32(), &call.code), code: &call.code, endpoint };
        queue::push(question.run_id, place, &permit_for(session, call, question, requester, lease_key))?;
    } else if let Some(block) = block.filter(|_| call.mode.calls_engine()) {
        log_refusal(question.run_id, call, block);
    }
    fail_point::at(Point::RequestBeforeReturn, &call.code);
    Ok(Requested { row, admitted })
}

/// The state that a run is born in, and the decision that refuses it.
fn first_state(mode: Mode, findings: &Findings) -> Result<(RunStatus, Option<&Decision>), DotError> {
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

/// The caller may roll back, and with it goes the row; the server's log keeps the refusal in any case.
fn log_refusal(run_id: Uuid, call: &Call, block: &Decision) {
    let (gate, reason) = (block.gate.as_str(), &block.reason);
    log::line(&format!("dot_wrapper: run {run_id} of {} ({}) refused by gate {gate}: {reason}", call.code, call.mode));
}

fn permit_for(
    session: &Session,
    call: &Call,
    question: &Question<'_>,
    requester: &Requester,
    lease_key: Option<&str>,
) -> Vec<u8> {
    let claims = Claims {
        run_id: question.run_id,
        process_run_id: question.process_run_id,
        code: &call.code,
        mode: call.mode,
        args: &call.args,
        requested_by: requester.oid.to_u32(),
        lease_key,
    };
    permit::issue(&session.instance.permit_key, &claims)
}

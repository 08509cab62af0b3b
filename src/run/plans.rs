//! Plans of many tools in one transaction: each is decided as one alone is, and they are recorded by the hundreds.
//!
//! Nothing is queued or leased by a plan, so that none of them changes what the next one finds.

use uuid::Uuid;

use super::gates::{self, Disk, Findings, Question};
use super::record;
use super::request::{self, Requested, Requester, WorkerFacts};
use super::session::Session;
use crate::domain::call::Call;
use crate::domain::decide::{self, PortAnswer};
use crate::domain::error::DotError;
use crate::domain::lease;
use crate::domain::mode::Mode;
use crate::domain::via::Via;
use crate::pg::fail_point::{self, Point};
use crate::store::grant;
use crate::store::ledger::{self, Plan, Plans};

/// Recorded in one statement, at most.
const CHUNK: usize = 500;
/// Bytes of arguments that are held at the same time, a copy for each plan.
const HELD: usize = 8 << 20;

/// A plan for each of these codes, of one call that differs in nothing else.
///
/// # Errors
/// XX000 only.
pub(super) fn all(
    session: &mut Session,
    requester: &Requester,
    worker: WorkerFacts,
    call: &Call,
    codes: &[String],
) -> Result<Vec<Requested>, DotError> {
    let mut made = Vec::with_capacity(codes.len());
    let room = HELD / call.args.to_string().len().max(1);
    for codes in codes.chunks(room.clamp(1, CHUNK)) {
        made.extend(chunk(session, requester, worker, call, codes)?);
    }
    Ok(made)
}

fn chunk(
    session: &mut Session,
    requester: &Requester,
    worker: WorkerFacts,
    call: &Call,
    codes: &[String],
) -> Result<Vec<Requested>, DotError> {
    let process_run_id = call.process_run_id.unwrap_or_else(Uuid::now_v7);
    let mut formed = Vec::with_capacity(codes.len());
    for code in codes {
        let question = Question {
            code,
            mode: Mode::Plan,
            args: &call.args,
            run_id: Uuid::now_v7(),
            process_run_id,
            disk: Disk::Asked,
        };
        let mut findings = gates::form(session, &question, true);
        request::ask_capacity(session, requester, &Via::call(), &question, &mut findings)?;
        let findings = gates::ask_substrate(session, &question, findings);
        let key = findings.policy.as_ref().and_then(|policy| lease::key(&policy.lease, code, &call.args));
        formed.push((question.run_id, code, findings, key));
    }
    let keys: Vec<String> = formed.iter().filter_map(|(.., key)| key.clone()).collect();
    let held = grant::held(&session.extension, &keys)?;
    let mut plans = Vec::with_capacity(formed.len());
    for (run_id, code, mut findings, lease_key) in formed {
        if findings.policy.is_some() {
            let answer = held.as_ref().map(|held| match &lease_key {
                Some(key) if held.contains(key) => PortAnswer::Value(serde_json::Value::Null),
                _ => PortAnswer::Value(serde_json::Value::Bool(true)),
            });
            findings.decisions.push(request::peeked(decide::lease(lease_key.as_deref(), answer.as_ref())));
        }
        request::warn_of_worker(session, worker, Mode::Plan, &mut findings);
        plans.push(plan(run_id, code, findings, lease_key)?);
    }
    let rows = ledger::insert_plans(&Plans {
        process_run_id,
        args: &call.args,
        requested_by: &requester.name,
        requested_by_oid: requester.oid,
        plans: &plans,
    })?;
    codes.iter().for_each(|code| fail_point::at(Point::RequestBeforeReturn, code));
    let made = plans.iter().zip(rows);
    Ok(made.map(|(plan, row)| Requested { row, run_id: plan.run_id, status: plan.status, admitted: false }).collect())
}

fn plan(run_id: Uuid, code: &str, findings: Findings, lease_key: Option<String>) -> Result<Plan, DotError> {
    let (status, block) = record::first_state(Mode::Plan, &findings)?;
    let (reason, message) = block.map(|block| (block.reason.clone(), block.message.clone())).unzip();
    let gates = findings.to_text();
    Ok(Plan {
        run_id,
        code: code.to_owned(),
        status,
        reason,
        message,
        engine: findings.tool.map(|tool| tool.engine),
        fingerprint: findings.fingerprint,
        request: findings.request.map(|order| order.with_token(None).masked().to_string()),
        gates,
        lease_key,
    })
}

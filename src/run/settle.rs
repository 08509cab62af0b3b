//! The end of deliveries: answers become states, leases go, executions are counted.

use std::collections::HashMap;

use serde_json::json;
use uuid::Uuid;

use super::leases;
use crate::domain::answer::{self, Answer, Reach};
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::state::{self, Cause, RunStatus};
use crate::pg::fail_point::{self, Point};
use crate::store::attempt::{self, End, Ended};
use crate::store::event::{self, Remark};
use crate::store::{port, usage};

/// A delivery that is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// Mode.
    pub mode: Mode,
    /// The token that it ran under.
    pub fencing_token: Option<i64>,
    /// What came of it.
    pub answer: Answer,
}

/// Records outcomes.
///
/// An apply ends as its answer says only while its lease is still granted to it; an answer that comes after the lease
/// was lost leaves the run in doubt, with the answer in its events. One that comes after the run was ended otherwise is
/// a remark and nothing more (invariant 12).
///
/// # Errors
/// XX000 only.
pub fn settle(worker: Uuid, outcomes: &[Outcome]) -> Result<(), DotError> {
    let (mutating, harmless): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|o| o.mode.mutates());
    let mut ended = attempt::settle(worker, &ends(&harmless), false)?;
    ended.extend(attempt::settle(worker, &ends(&mutating), true)?);
    let missed = missing(outcomes, &ended);
    let doubtful: Vec<End> = missed.iter().filter(|o| o.mode.mutates()).map(|o| lease_lost(o)).collect();
    let doubted = attempt::settle(worker, &doubtful, false)?;
    let late: Vec<&Outcome> = missed.into_iter().filter(|o| doubted.iter().all(|e| e.run_id != o.run_id)).collect();
    event::remark(&late.into_iter().map(late_answer).collect::<Vec<_>>())?;
    count(outcomes, ended.iter().chain(&doubted))?;
    release(outcomes, &ended)?;
    fail_point::each(Point::SettleBeforeCommit, ended.iter().chain(&doubted).map(|end| end.code.as_str()));
    Ok(())
}

/// Records that agents accepted runs and where they are to be asked.
///
/// # Errors
/// XX000 only.
pub fn accepted(list: &[(Uuid, i32, String)]) -> Result<(), DotError> {
    let remarks: Vec<Remark> = list
        .iter()
        .map(|(run_id, attempt, url)| Remark {
            run_id: *run_id,
            attempt: Some(*attempt),
            event: "accepted",
            detail: json!({"status_url": url}),
        })
        .collect();
    event::remark(&remarks)
}

fn ends(outcomes: &[&Outcome]) -> Vec<End> {
    outcomes.iter().filter_map(|outcome| end(outcome)).collect()
}

fn end(outcome: &Outcome) -> Option<End> {
    let answer = &outcome.answer;
    let status = state::next(outcome.mode, Some(RunStatus::Running), answer::cause(outcome.mode, answer))?;
    let explained = status != RunStatus::Succeeded;
    let answered = status.is_terminal();
    let mut detail = answer.to_detail();
    if !answered && answer.result.is_some() {
        detail["result"] = json!(answer.result);
    }
    Some(End {
        run_id: outcome.run_id,
        attempt: outcome.attempt,
        fencing_token: outcome.fencing_token,
        status,
        reason: explained.then(|| answer.reason.clone()),
        message: explained.then(|| answer.message.clone()),
        result: answer.result.clone().filter(|_| answered),
        observations: answer.observations.clone().filter(|_| answered),
        detail,
    })
}

/// The end of an apply that answered after its lease was lost.
fn lease_lost(outcome: &Outcome) -> End {
    let mut detail = outcome.answer.to_detail();
    detail["result"] = json!(outcome.answer.result);
    End {
        run_id: outcome.run_id,
        attempt: outcome.attempt,
        fencing_token: outcome.fencing_token,
        status: state::next(outcome.mode, Some(RunStatus::Running), Cause::OutcomeUnknown)
            .unwrap_or(RunStatus::InDoubt),
        reason: Some("lease_lost".into()),
        message: Some("the answer came after the lease was lost; see the event".into()),
        result: None,
        observations: None,
        detail,
    }
}

fn late_answer(outcome: &Outcome) -> Remark {
    let mut detail = outcome.answer.to_detail();
    detail["result"] = json!(outcome.answer.result);
    Remark { run_id: outcome.run_id, attempt: Some(outcome.attempt), event: "late_answer", detail }
}

fn missing<'a>(outcomes: &'a [Outcome], ended: &[Ended]) -> Vec<&'a Outcome> {
    outcomes.iter().filter(|o| ended.iter().all(|e| e.run_id != o.run_id)).collect()
}

/// An execution is a delivery of which bytes may have left.
fn count<'a>(outcomes: &[Outcome], ended: impl Iterator<Item = &'a Ended>) -> Result<(), DotError> {
    let reach: HashMap<Uuid, Reach> = outcomes.iter().map(|o| (o.run_id, o.answer.reach)).collect();
    let codes: Vec<String> =
        ended.filter(|e| reach.get(&e.run_id) != Some(&Reach::NotSent)).map(|e| e.code.clone()).collect();
    usage::owe(&codes)
}

fn release(outcomes: &[Outcome], ended: &[Ended]) -> Result<(), DotError> {
    let doubtful = |run_id: Uuid| {
        outcomes.iter().any(|o| o.run_id == run_id && answer::cause(o.mode, &o.answer) == Cause::OutcomeUnknown)
    };
    let over: Vec<(&String, Uuid)> = ended
        .iter()
        .filter(|e| !doubtful(e.run_id))
        .filter_map(|e| e.lease_key.as_ref().map(|key| (key, e.run_id)))
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let ports = port::load()?;
    for (key, run_id) in over {
        leases::release(&ports, key, run_id)?;
    }
    Ok(())
}

//! The end of deliveries: answers become states, leases go, executions are counted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::leases;
use crate::domain::answer::{Answer, Reach, Verdict};
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::policy::Policy;
use crate::domain::retry::{self, Attempt, Next, Past};
use crate::domain::state::{self, Cause, RunStatus};
use crate::pg::fail_point::{self, Point};
use crate::store::event::{self, Remark};
use crate::store::transition::{self, Move, Moved};
use crate::store::{port, queue, usage};

/// How long after a run came into doubt its agent is asked first, in milliseconds.
const FIRST_QUESTION: i64 = 1_000;

/// What the end of a delivery is judged by: the facts of the moment when it was claimed.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Mode.
    pub mode: Mode,
    /// The token that it runs under.
    pub fencing_token: Option<i64>,
    /// The lease that it holds.
    pub lease_key: Option<String>,
    /// Its policy.
    pub policy: Arc<Policy>,
    /// What earlier deliveries did.
    pub past: Past,
    /// Somebody has asked to cancel the run.
    pub withdrawn: bool,
    /// The run's age at `read_at`.
    pub age: Duration,
    /// The age of its first intent at `read_at`.
    pub key_age: Duration,
    /// When the ages were read. They go on by the monotonic clock, whatever the server's does.
    pub read_at: Instant,
}

/// A delivery that is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// What it is judged by.
    pub terms: Terms,
    /// What came of it.
    pub answer: Answer,
    /// How long the agent asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    fn next(&self) -> Next {
        let terms = &self.terms;
        let since = terms.read_at.elapsed();
        let attempt = Attempt {
            mode: terms.mode,
            policy: &terms.policy,
            number: self.attempt,
            past: terms.past,
            age: terms.age + since,
            key_age: terms.key_age + since,
            withdrawn: terms.withdrawn,
            answer: &self.answer,
            retry_after: self.retry_after,
        };
        retry::next(&attempt, chance())
    }
}

/// Records outcomes.
///
/// An apply ends as its agent says only while its lease is still granted to it; an answer that comes after the lease
/// was lost leaves the run in doubt, with the answer in its events. One that comes after the run was ended otherwise is
/// a remark and nothing more (invariant 12).
///
/// Returns the runs that somebody has locked, as `fn_dot_cancel` in an open transaction does: nothing is done for them, and
/// they hold up no other.
///
/// # Errors
/// XX000 only.
pub fn settle(worker: Uuid, outcomes: &[Outcome]) -> Result<Vec<Uuid>, DotError> {
    let busy = queue::busy(&outcomes.iter().map(|outcome| outcome.run_id).collect::<Vec<_>>())?;
    let locked: HashSet<Uuid> = busy.iter().copied().collect();
    let outcomes: Vec<&Outcome> = outcomes.iter().filter(|outcome| !locked.contains(&outcome.run_id)).collect();
    let moves: Vec<Move> = outcomes.iter().filter_map(|outcome| step(outcome)).collect();
    leases::confirm(&moves.iter().filter(|m| m.needs_lease).map(|m| m.run_id).collect::<Vec<_>>())?;
    let mut moved = transition::apply(RunStatus::Running, Some(worker), &moves)?;
    let leased: HashSet<Uuid> = moves.iter().filter(|m| m.needs_lease).map(|m| m.run_id).collect();
    let missed = missing(&outcomes, &moved).into_iter().filter(|outcome| leased.contains(&outcome.run_id));
    let doubtful: Vec<Move> = missed.map(lease_lost).collect();
    moved.extend(transition::apply(RunStatus::Running, Some(worker), &doubtful)?);
    event::remark(&missing(&outcomes, &moved).into_iter().map(late_answer).collect::<Vec<_>>())?;
    count(&outcomes, &moved)?;
    release(&moved)?;
    fail_point::each(Point::SettleBeforeCommit, moved.iter().map(|run| run.code.as_str()));
    Ok(busy)
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

/// Lets the leases of runs that are over go.
///
/// # Errors
/// XX000 only.
pub(super) fn release(moved: &[Moved]) -> Result<(), DotError> {
    let over = moved.iter().filter(|run| run.to.is_terminal());
    let held: Vec<_> = over.filter_map(|run| Some((run.lease_key.as_deref()?, run.run_id))).collect();
    if held.is_empty() {
        return Ok(());
    }
    leases::release_all(&port::load()?, &held)
}

fn step(outcome: &Outcome) -> Option<Move> {
    let (answer, terms) = (&outcome.answer, &outcome.terms);
    let next = outcome.next();
    let (cause, wait_ms, past) = match next {
        Next::End(cause) => (cause, (cause == Cause::OutcomeUnknown).then_some(FIRST_QUESTION), None),
        Next::Again { wait, past } => (Cause::Requeued, i64::try_from(wait.as_millis()).ok(), Some(past)),
    };
    let to = state::next(terms.mode, Some(RunStatus::Running), cause)?;
    let over = to.is_terminal();
    let mut detail = answer.to_detail();
    if !over && answer.result.is_some() {
        detail["result"] = json!(answer.result);
    }
    if to == RunStatus::Queued {
        detail["retry_in_ms"] = json!(wait_ms);
    }
    let explained = to != RunStatus::Succeeded;
    Some(Move {
        fencing_token: terms.fencing_token,
        needs_lease: terms.mode.mutates() && over && is_told(answer),
        reason: explained.then(|| answer.reason.clone()),
        message: explained.then(|| answer.message.clone()),
        result: answer.result.clone().filter(|_| over),
        observations: answer.observations.clone().filter(|_| over),
        detail,
        wait_ms,
        past,
        keep_lease_ms: keep_lease_ms(&terms.policy),
        ..Move::new(outcome.run_id, outcome.attempt, to, "", "")
    })
}

/// True when the agent says what it did or did not do; only that needs the lease to be believed.
fn is_told(answer: &Answer) -> bool {
    answer.reach == Reach::Answered && answer.verdict != Verdict::None
}

/// How long a run in doubt keeps its lease, in milliseconds.
pub(super) fn keep_lease_ms(policy: &Policy) -> Option<i64> {
    policy.doubt_lease_s.map(|seconds| seconds * 1000)
}

/// The end of an apply that answered after its lease was lost.
fn lease_lost(outcome: &Outcome) -> Move {
    let mut detail = outcome.answer.to_detail();
    detail["result"] = json!(outcome.answer.result);
    Move {
        fencing_token: outcome.terms.fencing_token,
        detail,
        // What it says is known; the question is what another holder has done meanwhile, and no agent can tell.
        wait_ms: None,
        keep_lease_ms: keep_lease_ms(&outcome.terms.policy),
        ..Move::new(
            outcome.run_id,
            outcome.attempt,
            RunStatus::InDoubt,
            "lease_lost",
            "the answer came after the lease was lost; see the event",
        )
    }
}

fn late_answer(outcome: &Outcome) -> Remark {
    let mut detail = outcome.answer.to_detail();
    detail["result"] = json!(outcome.answer.result);
    Remark { run_id: outcome.run_id, attempt: Some(outcome.attempt), event: "late_answer", detail }
}

fn missing<'a>(outcomes: &[&'a Outcome], moved: &[Moved]) -> Vec<&'a Outcome> {
    let moved: HashSet<Uuid> = moved.iter().map(|run| run.run_id).collect();
    outcomes.iter().copied().filter(|outcome| !moved.contains(&outcome.run_id)).collect()
}

/// An execution is a run of which bytes may have left; it is counted with the first delivery that did.
fn count(outcomes: &[&Outcome], moved: &[Moved]) -> Result<(), DotError> {
    let first = outcomes.iter().filter(|o| o.answer.reach != Reach::NotSent && o.terms.past == Past::None);
    let first: HashSet<Uuid> = first.map(|outcome| outcome.run_id).collect();
    let counted = moved.iter().filter(|run| first.contains(&run.run_id));
    usage::owe(&counted.map(|run| run.code.clone()).collect::<Vec<_>>())
}

/// Random, 0 to 1.
fn chance() -> f64 {
    let bits = Uuid::new_v4().as_u128() >> 96;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX)
}

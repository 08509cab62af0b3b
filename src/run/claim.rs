//! From queued runs to deliveries that are on disk before anything is sent. What the gates say is `second_gate`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::batch::Batch;
use super::breaker;
use super::leases;
use super::pick::{self, Memory, Parked, Sight};
use super::second_gate;
use super::session::Session;
use super::settle::Terms;
use crate::domain::egress::Rules;
use crate::domain::error::DotError;
use crate::domain::limits::{Ask, Flow};
use crate::domain::order::Order;
use crate::domain::parking;
use crate::domain::permit::{self, Claims};
use crate::domain::state::RunStatus;
use crate::pg::fail_point::{self, Point};
use crate::store::attempt;
use crate::store::candidate::{self, Candidate, QueuedRun};
use crate::store::crowd;
use crate::store::event::{self, Remark};
use crate::store::extension::{self, Extension};
use crate::store::queue;
use crate::store::role::{self, Requester};
use crate::store::transition;

/// How long it takes until a run is looked at again that somebody had locked.
const LOCKED: Duration = Duration::from_secs(1);
/// How long a run waits whose gate could not be asked, because somebody's lock was in the way.
const POSTPONED: Duration = Duration::from_secs(3);

/// One delivery whose intent is recorded.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The run.
    pub run_id: Uuid,
    /// The attempt.
    pub attempt: i32,
    /// Tool code.
    pub code: String,
    /// What `max_in_flight_per_key` counts it by, and that limit.
    pub key: Option<(String, i64)>,
    /// What its end will be judged by.
    pub terms: Terms,
    /// What to send.
    pub request: Order,
    /// Where it may go.
    pub egress: Arc<Rules>,
}

impl Delivery {
    /// What the limits ask of it.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            call: (self.run_id, self.attempt),
            endpoint: self.terms.policy.endpoint.as_deref().unwrap_or_default(),
            code: &self.code,
            max_in_flight: self.terms.policy.max_in_flight,
            key: self.key.as_ref().map(|(key, limit)| (key.as_str(), *limit)),
        }
    }
}

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// To be sent once this transaction has committed.
    pub deliveries: Vec<Delivery>,
    /// Calls of this worker that somebody wants closed.
    pub withdrawn: Vec<(Uuid, i32)>,
    /// When the next run that waits for its time is due; at most a day.
    pub due: Option<Duration>,
    /// Runs that were taken up, whatever became of them.
    pub seen: usize,
    /// For the worker's memory, once this transaction has committed.
    pub sight: Option<Sight>,
    /// Runs that were taken up, and neither go nor wait: the room that was kept for them is free again.
    pub gone: usize,
    /// Runs that wait for room, untouched.
    pub held: HashSet<Uuid>,
    /// Runs that wait for their key.
    pub parked: Vec<Parked>,
    /// True when this database may not execute.
    pub suspended: bool,
}

/// Which runs to claim.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// As many as these.
    UpTo(usize),
    /// This one.
    Only(Uuid),
}

/// Claims runs for `worker`. Whatever comes of the transaction, tell `memory`.
///
/// # Errors
/// XX000 and 55000 only; what a gate says is a decision, not an error.
pub fn claim(extension: &Extension, memory: &mut Memory, worker: Uuid, pick: Pick) -> Result<Claimed, DotError> {
    let instance = extension::instance(crate::pg::session::system_identifier())?;
    if !instance.is_here {
        return Ok(Claimed { suspended: true, ..Claimed::default() });
    }
    let withdrawn = attempt::withdrawn(worker)?;
    let (sight, run_ids) = match pick {
        Pick::UpTo(0) => (None, Vec::new()),
        Pick::UpTo(room) => {
            let sight = pick::pick(memory, room, pick::Order::InTurn)?;
            let run_ids = sight.run_ids.clone();
            queue::postpone(&sight.awake, parking::AGAIN)?;
            (Some(sight), run_ids)
        }
        Pick::Only(run_id) => (None, vec![run_id]),
    };
    let (candidates, locked) = take(memory, &run_ids)?;
    let (seen, soon) = (candidates.len(), (!locked.is_empty()).then_some(LOCKED));
    if seen == 0 {
        let due = queue::waits()?.into_iter().chain(soon).min();
        return Ok(Claimed { withdrawn, sight, due, held: locked, ..Claimed::default() });
    }
    let permitted = hold_unpermitted(&instance.permit_key, candidates)?;
    let codes: Vec<String> = permitted.iter().map(|(_, run)| run.code.clone()).collect();
    let mut session = Session::open(extension, Some(&codes))?;
    let requesters = requesters(extension, &permitted)?;
    let mut batch = Batch::default();
    for (run_id, run) in permitted {
        second_gate::ask(&mut session, &requesters, run_id, run, memory.limits(), &mut batch)?;
    }
    second_gate::hold_leases(&session, &mut memory.flow, &mut batch)?;
    queue::postpone(&batch.postponed, POSTPONED)?;
    let postponed = batch.postponed.len();
    for key in drop_blocked(&session, &batch)? {
        memory.released(&key);
    }
    let (mut held, parked) = (std::mem::take(&mut batch.held), std::mem::take(&mut batch.parked));
    for one in &parked {
        queue::postpone(&[one.run_id], memory.sleep(&one.key))?;
    }
    let deliveries = record_intents(&session, &mut memory.flow, worker, batch)?;
    fail_point::each(Point::ClaimBeforeCommit, deliveries.iter().map(|delivery| delivery.code.as_str()));
    if let Pick::Only(run_id) = pick {
        queue::unmark(run_id)?;
    }
    let gone = seen.saturating_sub(deliveries.len() + held.len() + parked.len() + postponed);
    held.extend(locked);
    let due = queue::waits()?.into_iter().chain(soon).min();
    Ok(Claimed { deliveries, withdrawn, due, seen, gone, sight, held, parked, suspended: false })
}

/// Those of these runs that can be taken, and those that could not be.
fn take(memory: &mut Memory, run_ids: &[Uuid]) -> Result<(Vec<Candidate>, HashSet<Uuid>), DotError> {
    let candidates = candidate::take(run_ids)?;
    if !candidates.is_empty() {
        pick::learn(memory, Instant::now())?;
    }
    breaker::save(&memory.flow)?;
    // What somebody has locked, as `fn_dot_cancel` does, may be let go without anybody telling. What is gone is forgotten:
    // it must not stand before others that wait for the same key.
    let taken: HashSet<Uuid> = candidates.iter().map(|candidate| candidate.run_id).collect();
    let missed: Vec<Uuid> = run_ids.iter().copied().filter(|run_id| !taken.contains(run_id)).collect();
    let locked = queue::still_queued(&missed)?;
    // Or events that join a run, one after the other, would keep it from ever being taken.
    crowd::close(&locked.iter().copied().collect::<Vec<_>>())?;
    Ok((candidates, locked))
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
    for run_id in &held {
        pgrx::warning!(
            "dot_wrapper: the queue row of run {run_id} has no valid permit and is not executed; see fn_dot_resume()"
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
        source: run.source,
        decided: run.decided.as_deref(),
    }
}

fn requesters(extension: &Extension, runs: &[(Uuid, QueuedRun)]) -> Result<Vec<Requester>, DotError> {
    let mut oids: Vec<_> = runs.iter().map(|(_, run)| run.requested_by_oid).collect();
    oids.sort_unstable_by_key(|oid| oid.to_u32());
    oids.dedup();
    role::requesters(extension, &oids)
}

/// Ends the runs that the gates stop; the leases that are free now.
fn drop_blocked(session: &Session, batch: &Batch) -> Result<Vec<String>, DotError> {
    let moved = transition::apply(RunStatus::Queued, None, &batch.drops)?;
    let over: Vec<_> = moved.iter().filter(|run| run.to.is_terminal()).collect();
    let held: Vec<_> = over.iter().filter_map(|run| Some((run.lease_key.as_deref()?, run.run_id))).collect();
    leases::release_all(&session.ports, &held)?;
    Ok(held.into_iter().map(|(key, _)| key.to_owned()).collect())
}

fn record_intents(
    session: &Session,
    flow: &mut Flow,
    worker: Uuid,
    mut batch: Batch,
) -> Result<Vec<Delivery>, DotError> {
    let mut deliveries = Vec::with_capacity(batch.starts.len());
    let deadlines: HashMap<Uuid, String> = queue::start(worker, &batch.starts)?.into_iter().collect();
    for start in batch.starts {
        let (Some(deadline), Some((run, policy, request))) =
            (deadlines.get(&start.run_id), batch.passed.remove(&start.run_id))
        else {
            flow.withdraw((start.run_id, start.attempt));
            continue;
        };
        let run_ids = (start.run_id, run.process_run_id);
        deliveries.push(Delivery {
            run_id: start.run_id,
            attempt: start.attempt,
            key: second_gate::key_of(&policy, &run),
            code: run.code,
            terms: Terms {
                mode: run.mode,
                fencing_token: start.fencing_token,
                lease_key: run.lease_key,
                policy: Arc::new(policy),
                past: run.past,
                withdrawn: false,
                age: run.age,
                key_age: run.key_age,
                read_at: Instant::now(),
            },
            request: request.delivered(run_ids, start.attempt, start.fencing_token, deadline),
            egress: Arc::clone(session.config.egress()),
        });
    }
    Ok(deliveries)
}

//! The calls that are out: handed to the engine, remembered until their end is on disk.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use url::Url;
use uuid::Uuid;

use super::context::Context;
use super::turn::{self, Trouble};
use crate::domain::breaker;
use crate::domain::decide;
use crate::domain::doubt::Finding;
use crate::domain::limits::Flow;
use crate::engine::{Call, Config, Engine, Errand, Limits, Report, Scripts, Waker, Wakeup};
use crate::guc;
use crate::pg::fail_point::{self, Point};
use crate::pg::{process, signals};
use crate::run;
use crate::run::claim::Delivery;
use crate::run::inquire::{self, Inquiry};
use crate::run::pick::Memory;
use crate::run::settle::{self, Outcome, Terms};

/// How long an outcome waits whose run somebody has locked.
const BUSY: Duration = Duration::from_millis(250);
/// Outcomes settled in one transaction.
const BATCH: usize = 500;

/// The engine and the worker's memory of what it was given.
pub struct Calls {
    worker: Uuid,
    engine: Option<Engine>,
    waker: Option<Waker>,
    wakeup: Wakeup,
    out: HashMap<(Uuid, i32), Terms>,
    asked: HashMap<(Uuid, i32), Inquiry>,
    ended: Vec<Outcome>,
    /// Outcomes of runs that somebody has locked.
    busy: Vec<Outcome>,
    busy_until: Option<Instant>,
    learned: Vec<(Inquiry, Finding)>,
    accepted: Vec<(Uuid, i32, String)>,
}

impl Calls {
    /// Starts the engine. Without descriptors for its wakeup there can be no worker: that is an error, and the
    /// launcher tries again.
    pub fn start(worker: Uuid) -> Calls {
        let (waker, wakeup) = match Waker::pair() {
            Ok(pair) => pair,
            Err(error) => pgrx::error!("dot_wrapper: no socket pair for the engine: {error}"),
        };
        let mut calls = Calls {
            worker,
            engine: None,
            waker: Some(waker),
            wakeup,
            out: HashMap::new(),
            asked: HashMap::new(),
            ended: Vec::new(),
            busy: Vec::new(),
            busy_until: None,
            learned: Vec::new(),
            accepted: Vec::new(),
        };
        calls.start_engine();
        calls
    }

    fn start_engine(&mut self) {
        let Some(waker) = self.waker.clone() else { return };
        let started = Engine::start(config(), waker, |body| signals::spawn_signal_free("dot_wrapper engine", body));
        match started {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => pgrx::error!("dot_wrapper: the engine's thread does not start: {error}"),
        }
    }

    /// Readable when there are reports.
    pub fn descriptor(&self) -> RawFd {
        self.wakeup.as_raw_fd()
    }

    /// Calls whose end is not on disk yet.
    pub fn in_flight(&self) -> usize {
        self.out.len() + self.ended.len() + self.busy.len()
    }

    /// True when there are results that are not recorded yet.
    pub fn has_results(&self) -> bool {
        !self.ended.is_empty() || !self.accepted.is_empty() || !self.learned.is_empty()
    }

    /// Hands the settings that are in force now to the engine.
    pub fn reconfigure(&self) {
        if let Some(engine) = &self.engine {
            engine.reconfigure(config());
        }
    }

    /// Sends a call whose intent is committed.
    pub fn submit(&mut self, delivery: Delivery) {
        self.hand_over(delivery, Errand::Deliver);
    }

    /// Goes on asking about a call that the agent accepted before this worker lived.
    pub fn resume(&mut self, delivery: Delivery, status_url: Url) {
        self.hand_over(delivery, Errand::Follow(status_url));
    }

    /// Asks what became of a run in doubt, unless that is being asked already.
    pub fn inquire(&mut self, inquiry: Inquiry) {
        let key = (inquiry.delivery.run_id, inquiry.delivery.attempt);
        if self.asked.contains_key(&key) {
            return;
        }
        self.keep_engine();
        if let Some(engine) = &self.engine {
            engine.submit(call(inquiry.delivery.clone(), Errand::Inquire(inquiry.url.clone())));
            self.asked.insert(key, inquiry);
        }
    }

    /// Closes calls that somebody has asked to cancel.
    pub fn withdraw(&mut self, calls: &[(Uuid, i32)]) {
        for (run_id, attempt) in calls {
            if let (Some(terms), Some(engine)) = (self.out.get_mut(&(*run_id, *attempt)), &self.engine) {
                terms.withdrawn = true;
                engine.cancel(*run_id, *attempt);
            }
        }
    }

    /// Lets the calls that were handed over, and those that will be, begin to send until then.
    pub fn allow_until(&self, until: Instant) {
        if let Some(engine) = &self.engine {
            engine.allow_until(until);
        }
    }

    /// Calls that have not begun to send, for want of a connection.
    pub fn unsent(&self) -> usize {
        self.engine.as_ref().map_or(0, Engine::unsent)
    }

    fn hand_over(&mut self, delivery: Delivery, errand: Errand) {
        self.keep_engine();
        self.out.insert((delivery.run_id, delivery.attempt), delivery.terms.clone());
        if let Some(engine) = &self.engine {
            engine.submit(call(delivery, errand));
        }
        fail_point::at(Point::Submitted, "");
    }

    fn keep_engine(&mut self) {
        if self.engine.as_ref().is_none_or(|engine| !engine.is_alive() && engine.in_flight() == 0) {
            self.start_engine();
        }
    }

    /// Takes the reports in and records them. True when a run has ended.
    pub fn collect(&mut self, context: &Context, memory: &mut Memory) -> Result<bool, Trouble> {
        self.receive(memory);
        if self.busy_until.take_if(|at| Instant::now() >= *at).is_some() {
            self.ended.append(&mut self.busy);
        }
        self.record_accepted(context)?;
        self.record_learned(context)?;
        let had = !self.ended.is_empty();
        while !self.ended.is_empty() {
            self.record_ended(context, &mut memory.flow)?;
        }
        Ok(had)
    }

    /// Keeps outcomes of runs that somebody has locked, for a little later.
    fn keep(&mut self, outcomes: impl Iterator<Item = Outcome>) {
        self.busy.extend(outcomes);
        if !self.busy.is_empty() {
            self.busy_until = Some(Instant::now() + BUSY);
        }
    }

    /// When the outcomes are to be recorded that were kept; `None` when there are none.
    pub fn busy_until(&self) -> Option<Instant> {
        self.busy_until
    }

    fn receive(&mut self, memory: &mut Memory) {
        self.wakeup.drain();
        while let Some(report) = self.engine.as_ref().and_then(Engine::try_recv) {
            match report {
                Report::Accepted { run_id, attempt, status_url } => {
                    self.accepted.push((run_id, attempt, status_url.into()));
                }
                // A call that is not in the map was never ours; there is nothing to record it with.
                Report::Ended { run_id, attempt, answer, retry_after } => {
                    fail_point::at(Point::ReportReceived, "");
                    let terms = self.out.remove(&(run_id, attempt));
                    // One script's end says nothing about the next one.
                    let effect = match &terms {
                        Some(terms) if terms.policy.is_script() => breaker::Effect::Neither,
                        _ => breaker::effect(&answer, retry_after),
                    };
                    memory.flow.done((run_id, attempt), &effect, Instant::now());
                    if let Some(terms) = terms {
                        terms.lease_key.iter().for_each(|lease| memory.released(lease));
                        self.ended.push(Outcome { run_id, attempt, terms, answer, retry_after });
                    }
                }
                Report::Learned { run_id, attempt, finding } => {
                    if let Some(inquiry) = self.asked.remove(&(run_id, attempt)) {
                        self.learned.push((inquiry, finding));
                    }
                }
            }
        }
    }

    fn record_learned(&mut self, context: &Context) -> Result<(), Trouble> {
        let learned = std::mem::take(&mut self.learned);
        if learned.is_empty() {
            return Ok(());
        }
        // What could not be recorded is asked again.
        turn::transaction(context, c"recording what agents said", |_| inquire::learned(&learned))
    }

    fn record_accepted(&mut self, context: &Context) -> Result<(), Trouble> {
        if !self.accepted.is_empty() {
            turn::transaction(context, c"recording acceptances", |_| settle::accepted(&self.accepted))?;
            self.accepted.clear();
            fail_point::at(Point::AcceptedRecorded, "");
        }
        Ok(())
    }

    /// Settles a batch; when that fails, one by one, so that one bad answer does not hold up the others.
    fn record_ended(&mut self, context: &Context, flow: &mut Flow) -> Result<(), Trouble> {
        let batch: Vec<Outcome> = self.ended.drain(..self.ended.len().min(BATCH)).collect();
        let worker = self.worker;
        let settled = turn::transaction(context, c"settling", |_| {
            let busy = settle::settle(worker, &batch)?;
            run::breaker::save(flow)?;
            Ok(busy)
        });
        match settled {
            Ok(busy) => {
                flow.saved();
                self.keep(batch.into_iter().filter(|outcome| busy.contains(&outcome.run_id)));
                fail_point::at(Point::SettleAfterCommit, "");
                return Ok(());
            }
            Err(Trouble::Failed { text, .. }) => {
                pgrx::log!("dot_wrapper: {} results go one by one: {text}", batch.len())
            }
            Err(other) => return Err(other),
        }
        let mut first = None;
        for outcome in batch {
            match self.settle(context, std::slice::from_ref(&outcome)) {
                Ok(busy) if busy.is_empty() => {}
                Ok(_) => self.keep(std::iter::once(outcome)),
                Err(trouble) => {
                    self.ended.push(bare(outcome, &trouble));
                    first.get_or_insert(trouble);
                }
            }
        }
        // What is left is for the next turn; the first trouble says why.
        first.map_or(Ok(()), Err)
    }

    fn settle(&self, context: &Context, outcomes: &[Outcome]) -> Result<Vec<Uuid>, Trouble> {
        turn::transaction(context, c"settling", |_| settle::settle(self.worker, outcomes))
    }
}

/// An outcome that could not be recorded, for the next try: if it was for the agent's words, they are what is given up,
/// never the fact. Classes 22 (data), 23 (constraints) and 54 (limits) speak of the words; all else of the moment.
fn bare(mut outcome: Outcome, trouble: &Trouble) -> Outcome {
    if let Trouble::Failed { sqlstate, text } = trouble
        && matches!(sqlstate.get(..2), Some("22" | "23" | "54"))
    {
        outcome.answer.result = None;
        outcome.answer.observations = None;
        outcome.answer.message = format!("the answer could not be recorded: {}", decide::one_line(text));
    }
    outcome
}

fn config() -> Config {
    let scripts = Scripts { roots: guc::script_roots(), user: process::user_id(), start: Some(super::scripts::start) };
    Config { secrets_dir: guc::secrets_dir(), ca_file: guc::ca_file(), scripts }
}

fn call(delivery: Delivery, errand: Errand) -> Call {
    let millis = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(1));
    let policy = &delivery.terms.policy;
    Call {
        run_id: delivery.run_id,
        attempt: delivery.attempt,
        limits: Limits {
            connect: millis(policy.connect_timeout_ms),
            idle: millis(policy.idle_timeout_ms),
            total: millis(policy.total_timeout_ms),
            max_response_bytes: u64::try_from(policy.max_response_bytes).unwrap_or(0),
        },
        request: delivery.request,
        egress: delivery.egress,
        errand,
    }
}

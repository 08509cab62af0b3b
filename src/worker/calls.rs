//! The calls that are out: handed to the engine, remembered until their end is on disk.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use uuid::Uuid;

use super::context::Context;
use super::turn::{self, Trouble};
use crate::domain::answer::{Answer, Reach};
use crate::domain::decide;
use crate::domain::mode::Mode;
use crate::engine::{Call, Config, Engine, Limits, Report, Waker, Wakeup};
use crate::guc;
use crate::pg::fail_point::{self, Point};
use crate::pg::signals;
use crate::run::claim::Delivery;
use crate::run::settle::{self, Outcome};

/// Outcomes settled in one transaction.
const BATCH: usize = 500;

/// What has to be known of a call when its report comes.
#[derive(Clone, Copy, Debug)]
struct Out {
    mode: Mode,
    fencing_token: Option<i64>,
}

/// The engine and the worker's memory of what it was given.
pub struct Calls {
    worker: Uuid,
    engine: Option<Engine>,
    waker: Option<Waker>,
    wakeup: Wakeup,
    out: HashMap<(Uuid, i32), Out>,
    ended: Vec<Outcome>,
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
            ended: Vec::new(),
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
        self.out.len() + self.ended.len()
    }

    /// True when there are results that are not recorded yet.
    pub fn has_results(&self) -> bool {
        !self.ended.is_empty() || !self.accepted.is_empty()
    }

    /// Hands the settings that are in force now to the engine.
    pub fn reconfigure(&self) {
        if let Some(engine) = &self.engine {
            engine.reconfigure(config());
        }
    }

    /// Sends a call whose intent is committed.
    pub fn submit(&mut self, delivery: Delivery) {
        self.hand_over(delivery, None);
    }

    /// Asks about a call that the agent accepted before this worker lived.
    pub fn resume(&mut self, delivery: Delivery, status_url: &str) {
        match url::Url::parse(status_url) {
            Ok(url) => self.hand_over(delivery, Some(url)),
            Err(_) => self.ended.push(Outcome {
                run_id: delivery.run_id,
                attempt: delivery.attempt,
                mode: delivery.mode,
                fencing_token: delivery.fencing_token,
                answer: Answer::failure(Reach::Sent, "bad_status_location", "the recorded status URL is no URL"),
            }),
        }
    }

    fn hand_over(&mut self, delivery: Delivery, resume: Option<url::Url>) {
        if self.engine.as_ref().is_none_or(|engine| !engine.is_alive() && engine.in_flight() == 0) {
            self.start_engine();
        }
        let out = Out { mode: delivery.mode, fencing_token: delivery.fencing_token };
        self.out.insert((delivery.run_id, delivery.attempt), out);
        if let Some(engine) = &self.engine {
            engine.submit(call(delivery, resume));
        }
        fail_point::at(Point::Submitted, "");
    }

    /// Takes the reports in and records them. True when a run has ended.
    pub fn collect(&mut self, context: &Context) -> Result<bool, Trouble> {
        self.receive();
        self.record_accepted(context)?;
        let had = !self.ended.is_empty();
        while !self.ended.is_empty() {
            self.record_ended(context)?;
        }
        Ok(had)
    }

    fn receive(&mut self) {
        self.wakeup.drain();
        while let Some(report) = self.engine.as_ref().and_then(Engine::try_recv) {
            match report {
                Report::Accepted { run_id, attempt, status_url } => {
                    self.accepted.push((run_id, attempt, status_url.into()));
                }
                Report::Ended { run_id, attempt, answer, .. } => {
                    // A call that is not in the map was never ours; there is nothing to record it with.
                    if let Some(out) = self.out.remove(&(run_id, attempt)) {
                        fail_point::at(Point::ReportReceived, "");
                        let (mode, fencing_token) = (out.mode, out.fencing_token);
                        self.ended.push(Outcome { run_id, attempt, mode, fencing_token, answer });
                    }
                }
            }
        }
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
    fn record_ended(&mut self, context: &Context) -> Result<(), Trouble> {
        let batch: Vec<Outcome> = self.ended.drain(..self.ended.len().min(BATCH)).collect();
        match self.settle(context, &batch) {
            Ok(()) => {
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
            if let Err(trouble) = self.settle(context, std::slice::from_ref(&outcome)) {
                self.ended.push(bare(outcome, &trouble));
                first.get_or_insert(trouble);
            }
        }
        // What is left is for the next turn; the first trouble says why.
        first.map_or(Ok(()), Err)
    }

    fn settle(&self, context: &Context, outcomes: &[Outcome]) -> Result<(), Trouble> {
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
    Config { secrets_dir: guc::secrets_dir(), ca_file: guc::ca_file() }
}

fn call(delivery: Delivery, resume: Option<url::Url>) -> Call {
    let millis = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(1));
    let policy = &delivery.policy;
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
        resume,
    }
}

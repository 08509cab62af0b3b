//! The step of a worker's turn that seals what has come into the ledger.
//!
//! Lives here: when, and what is said in the log. Does not live here: the sealing (`run::seal`).

use std::time::{Duration, Instant};

use super::context::Context;
use super::retry::Retry;
use super::turn::{self, Trouble};
use crate::domain::canonical;
use crate::domain::seal::pace::Pace;
use crate::run::seal::{self, Sealed, Sealer};

/// How long a restore is given to bring the head of its chain, from the worker's start.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the newest seal is written to the log, when it has moved.
const SAY_EVERY: Duration = Duration::from_secs(3600);

/// What the worker knows of the sealing.
pub struct Sealing {
    since: Instant,
    sealer: Option<Sealer>,
    pace: Pace,
    /// There was other work when it was last asked.
    is_busy: bool,
    retry: Retry,
    said: Option<(Instant, i64)>,
}

impl Sealing {
    /// A worker before this one may have left something to seal.
    pub fn start() -> Sealing {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.hurry(now);
        Sealing { since: now, sealer: None, pace, is_busy: false, retry: Retry::new("sealing"), said: None }
    }

    /// There may be something to seal.
    pub fn notice(&mut self) {
        self.pace.notice(Instant::now());
    }

    /// Seals one batch, if it is time. `is_busy`: runs wait to be claimed or recorded, or calls are out.
    pub fn step(&mut self, context: &Context, is_busy: bool) -> Result<(), Trouble> {
        self.is_busy = is_busy;
        let began = Instant::now();
        if !self.retry.is_due() || !self.pace.is_due(began, is_busy) {
            return Ok(());
        }
        context.take_unsealed();
        // After a failure nobody knows whether it was committed: what the tables say is where it goes on.
        let before = self.sealer.take();
        let (size, is_patient) = (self.pace.size(), self.since.elapsed() < PATIENCE);
        let outcome = turn::transaction(context, c"sealing", |_| seal::seal(before.as_ref(), size, is_patient));
        let outcome = outcome.map(|sealed| {
            self.pace.end(began, Instant::now(), sealed.as_ref().is_some_and(|sealed| sealed.more));
            if let Some(sealed) = sealed {
                self.done(sealed);
            }
        });
        self.retry.note(outcome)
    }

    /// Seals what is there now, before this worker leaves.
    pub fn finish(&mut self, context: &Context) -> Result<(), Trouble> {
        self.pace.hurry(Instant::now());
        self.step(context, false)
    }

    /// How long until the step is due; `None` when there is nothing to seal.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.pace.due(self.is_busy).map(|due| self.retry.wait(due, now))
    }

    fn done(&mut self, sealed: Sealed) {
        if sealed.is_disturbed {
            pgrx::warning!("dot_wrapper: somebody has changed the seals of this database; see fn_dot_verify()");
        }
        if let Some(first) = sealed.unmarked.first() {
            let n = sealed.unmarked.len();
            pgrx::warning!(
                "dot_wrapper: {n} events of the ledger did not come through dot_wrapper, {first} first; see fn_dot_verify()"
            );
        }
        self.say(&sealed);
        self.sealer = Some(sealed.sealer);
    }

    /// An anchor outside of the database, for who keeps the log elsewhere.
    fn say(&mut self, sealed: &Sealed) {
        let moved = self.said.map_or(sealed.seal_id > 0, |(at, id)| id != sealed.seal_id && at.elapsed() >= SAY_EVERY);
        if moved {
            pgrx::log!(
                "dot_wrapper: the newest seal of database \"{}\" is {} with hash {}",
                sealed.database,
                sealed.seal_id,
                canonical::hex(&sealed.hash)
            );
            self.said = Some((Instant::now(), sealed.seal_id));
        }
    }
}

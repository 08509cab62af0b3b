//! The step of a worker's turn that moves the catalogue's counters.
//!
//! Lives here: when. Does not live here: the moving (`run::usage`).

use std::time::{Duration, Instant};

use super::context::Context;
use super::retry::Retry;
use super::turn::{self, Trouble};
use crate::run::usage;

/// What the worker knows of what is owed.
pub struct Paying {
    /// When to pay; `None` when nothing is owed.
    due: Option<Instant>,
    retry: Retry,
}

impl Paying {
    /// A worker before this one may have left something to count.
    pub fn start() -> Paying {
        Paying { due: Some(Instant::now()), retry: Retry::new("moving usage_count and last_executed") }
    }

    /// Executions were counted.
    pub fn owe(&mut self) {
        self.due.get_or_insert_with(Instant::now);
    }

    /// Pays if something is owed. A failure is the catalogue owner's affair; the debt stays until it is paid.
    pub fn step(&mut self, context: &Context) -> Result<(), Trouble> {
        if self.retry.is_due() { self.finish(context) } else { Ok(()) }
    }

    /// As [`Paying::step`], before this worker leaves: whatever became of the last try.
    pub fn finish(&mut self, context: &Context) -> Result<(), Trouble> {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return Ok(());
        }
        let outcome = turn::transaction(context, c"counting executions", usage::pay).map(|_| self.due = None);
        self.retry.note(outcome)
    }

    /// How long until the step is due; `None` when nothing is owed.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| self.retry.wait(due, now))
    }
}

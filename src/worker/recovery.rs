//! The step of a worker's turn that takes over what a dead worker left. Nothing new is claimed before it is through.
//!
//! Lives here: when, and how many at once. Does not live here: what becomes of them (`run::recover`).

use super::calls::Calls;
use super::context::Context;
use super::turn::{self, Trouble};
use crate::pg::lock;
use crate::run::careful;
use crate::run::pick::Memory;
use crate::run::recover::{self, Orphans};
use crate::store::worker_life;

/// How far the taking over has come.
pub struct Recovery {
    /// This worker's beginning is on record.
    begun: bool,
    /// The worker before this one died: its calls are taken over one at a time.
    careful: bool,
    /// There may be something to take over.
    pub pending: bool,
}

/// What one step came to.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// This worker has just begun, and the one before it died.
    pub died: bool,
    /// Calls of which nobody knows whether they were sent.
    pub lost: usize,
}

impl Recovery {
    /// For a worker that has just started.
    pub fn start() -> Recovery {
        Recovery { begun: false, careful: false, pending: true }
    }

    /// Takes over one batch.
    pub fn step(&mut self, context: &Context, calls: &mut Calls, memory: &mut Memory) -> Result<Recovered, Trouble> {
        if !lock::hold_session_lock(lock::SessionLock::Worker) {
            // Somebody's function let go of all advisory locks, and another process took ours: it is the worker now.
            return Err(Trouble::Left);
        }
        let worker = context.identity;
        let mut died = false;
        if !self.begun {
            died = turn::transaction(context, c"recovering", |_| worker_life::begin(worker))?;
            (self.begun, self.careful) = (true, died);
        }
        let mut orphans = Orphans::All;
        if self.careful {
            match turn::transaction(context, c"recovering one by one", |_| careful::next_orphan(worker))? {
                Some(run_id) => orphans = Orphans::Only(run_id),
                None => self.careful = false,
            }
        }
        let found =
            turn::transaction(context, c"recovering", |extension| recover::recover(extension, worker, orphans))?;
        if found.lost > 0 {
            pgrx::log!("dot_wrapper: {} calls of a worker that is gone have an unknown outcome", found.lost);
        }
        for (delivery, status_url) in found.resumed {
            memory.flow.adopt(&delivery.ask());
            calls.resume(delivery, status_url);
        }
        self.pending = found.more || self.careful;
        Ok(Recovered { died, lost: found.lost })
    }
}

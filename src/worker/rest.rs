//! What a worker gives back when it comes to rest: memory that the answers of its agents took. The C library keeps what its
//! threads have freed for them to use again, which after a burst of large answers is a hundred megabytes for good.
//!
//! Lives here: when. Does not live here: how (`pg::memory`).

use std::time::{Duration, Instant};

use crate::pg::memory;

/// No more often than this: a worker that has a run every few milliseconds rests between each two of them.
const EVERY: Duration = Duration::from_secs(10);

/// Whether there may be something to give back.
pub struct Rest {
    has_worked: bool,
    gave_at: Option<Instant>,
}

impl Rest {
    /// Nothing yet. Before the process has another thread.
    pub fn start() -> Rest {
        memory::keep_little();
        Rest { has_worked: false, gave_at: None }
    }

    /// Answers have come.
    pub fn note_work(&mut self) {
        self.has_worked = true;
    }

    /// Before a wait that may be long. What comes too soon after the last time is given back at the next poll.
    pub fn begin(&mut self) {
        if self.has_worked && self.gave_at.is_none_or(|at| at.elapsed() >= EVERY) {
            memory::give_back();
            self.has_worked = false;
            self.gave_at = Some(Instant::now());
        }
    }
}

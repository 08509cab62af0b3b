//! When a batch is due, and how large it is. Pure: whoever asks brings the time.
//!
//! Sealing gives way: while there is other work, it takes a bounded share of the time, unless something has waited long.
//! Then it takes its full turn, a batch in each, until nothing is left.

use std::time::{Duration, Instant};

/// From the first event that is noticed to its seal. A run that is over by then gets one seal and not three.
pub const AFTER: Duration = Duration::from_secs(1);
/// While there is other work, a batch is followed by a pause of so many times what it took: a tenth of the time.
const PAUSE: u32 = 9;
/// When something has waited so long, there are no pauses any more. Five seconds before nothing may wait any longer.
const PATIENCE: Duration = Duration::from_secs(25);
/// Nothing is to wait longer than this for its seal while the worker lives.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Events of a batch: the first one, and no more or fewer than these.
const FIRST: i64 = 500;
const MOST: i64 = 2000;
const LEAST: i64 = 250;
/// A batch that takes longer is halved the next time; one that takes less than a third of it and was full is doubled.
const LONG: Duration = Duration::from_millis(60);

/// How the sealing stands in time.
#[derive(Clone, Debug)]
pub struct Pace {
    /// When something was noticed that may not be sealed yet.
    waits: Option<Instant>,
    /// No sooner than this.
    due: Option<Instant>,
    /// No sooner than this while there is other work.
    rests: Option<Instant>,
    size: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { waits: None, due: None, rests: None, size: FIRST }
    }
}

impl Pace {
    /// There may be something to seal.
    pub fn notice(&mut self, now: Instant) {
        self.waits.get_or_insert(now);
        self.due.get_or_insert(now + AFTER);
    }

    /// There may be something to seal, and it has waited long enough.
    pub fn hurry(&mut self, now: Instant) {
        self.waits.get_or_insert(now);
        self.due = Some(now);
    }

    /// When the next batch may begin; `None` when there is nothing to seal. `is_busy`: there is other work.
    pub fn due(&self, is_busy: bool) -> Option<Instant> {
        let due = self.due?;
        let rests = self.rests.filter(|_| is_busy);
        let rests = rests.zip(self.waits).map(|(rests, waits)| rests.min(waits + PATIENCE));
        Some(rests.map_or(due, |rests| rests.max(due)))
    }

    /// True when the next batch may begin.
    pub fn is_due(&self, now: Instant, is_busy: bool) -> bool {
        self.due(is_busy).is_some_and(|due| due <= now)
    }

    /// Events that it covers at most.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// A batch ended. `more`: there may be more. Of one that failed nothing is said, and what it was to cover goes on waiting.
    pub fn end(&mut self, began: Instant, now: Instant, more: bool) {
        let took = now.saturating_duration_since(began);
        self.rests = Some(now + took * PAUSE);
        let is_late = self.waits.is_some_and(|waits| now >= waits + PATIENCE);
        if more && is_late {
            // Better one long transaction than a wait without an end, as where each commit takes long.
            self.size = (self.size * 2).min(MOST);
        } else if took > LONG {
            self.size = (self.size / 2).max(LEAST);
        } else if more && took * 3 < LONG {
            self.size = (self.size * 2).min(MOST);
        }
        if more {
            // Since when the rest waits nobody knows: as long as what was noticed first, at the worst.
            self.hurry(now);
        } else {
            (self.waits, self.due) = (None, None);
        }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;

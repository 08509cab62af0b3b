//! When a step of the worker's turn that failed may be tried again. Says so in the log, once per try.

use std::time::{Duration, Instant};

use super::turn::Trouble;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// One step's patience: pauses double from 1 s to 60 s, and end with the first success.
#[derive(Debug)]
pub struct Retry {
    what: &'static str,
    pause: Option<Duration>,
    not_before: Option<Instant>,
}

impl Retry {
    /// For the step that is called `what` in the log.
    pub fn new(what: &'static str) -> Self {
        Retry { what, pause: None, not_before: None }
    }

    /// True when the step may be taken.
    pub fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// Takes note of how the step went. A failure ends here; what ends the worker goes on.
    pub fn note(&mut self, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        match outcome {
            Ok(()) => (self.pause, self.not_before) = (None, None),
            Err(Trouble::Failed { text, .. }) => {
                let pause = self.pause.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
                pgrx::warning!("dot_wrapper: {} failed: {text}; the next try is in {} s", self.what, pause.as_secs());
                self.pause = Some(pause);
                self.not_before = Some(Instant::now() + pause);
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// How long to wait for a step that is wanted at `at`.
    pub fn wait(&self, at: Instant, now: Instant) -> Duration {
        self.not_before.map_or(at, |not_before| at.max(not_before)).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_wanted_waits_for_its_pause_and_no_longer() {
        let now = Instant::now();
        let mut retry = Retry::new("x");
        assert_eq!(retry.wait(now, now), Duration::ZERO);
        retry.not_before = Some(now + Duration::from_secs(2));
        assert_eq!(retry.wait(now, now), Duration::from_secs(2));
        assert_eq!(retry.wait(now + Duration::from_secs(9), now), Duration::from_secs(9));
        assert!(!retry.is_due());
    }
}

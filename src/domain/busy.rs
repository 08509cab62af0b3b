//! Leases that somebody else was found to hold: the runs that wait for them are left in peace for a while, so that a long
//! line behind a run in doubt, or behind another system, costs nothing.
//!
//! Does not live here: leases of calls that are out, whose end is known when it comes (`limits`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first pause; each further one is twice as long ...
const FIRST: Duration = Duration::from_secs(3);
/// ... up to this: so much later than it could, a run that waits may start.
const LONGEST: Duration = Duration::from_secs(30);
/// More are not remembered.
const MOST: usize = 10_000;

/// Keys of leases, and until when they are not asked for.
#[derive(Debug, Default)]
pub struct Busy {
    keys: HashMap<String, (Instant, Duration)>,
}

impl Busy {
    /// True while there is no use in asking for this lease.
    pub fn is(&self, key: &str, now: Instant) -> bool {
        self.keys.get(key).is_some_and(|(until, _)| now < *until)
    }

    /// Somebody holds it, or is just taking it.
    pub fn note(&mut self, key: &str, now: Instant) {
        let pause = self.keys.get(key).map_or(FIRST, |(_, pause)| (*pause * 2).min(LONGEST));
        if self.keys.len() >= MOST && !self.keys.contains_key(key) {
            self.keys.retain(|_, (until, _)| now < *until);
        }
        if self.keys.len() < MOST || self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), (now + pause, pause));
        }
    }

    /// It was granted.
    pub fn forget(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// When the next one is worth a question.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.keys.values().map(|(until, _)| *until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_a_grant() {
        let (mut busy, mut now) = (Busy::default(), Instant::now());
        assert!(!busy.is("k", now) && busy.next_due(now).is_none());
        for seconds in [3, 6, 12, 24, 30, 30] {
            busy.note("k", now);
            assert!(busy.is("k", now + Duration::from_secs(seconds - 1)) && !busy.is("other", now));
            now += Duration::from_secs(seconds);
            assert!(!busy.is("k", now));
        }
        busy.note("k", now);
        assert_eq!(busy.next_due(now), Some(now + LONGEST));
        busy.forget("k");
        busy.note("k", now);
        assert_eq!(busy.next_due(now), Some(now + FIRST));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut busy, now) = (Busy::default(), Instant::now());
        for n in 0..MOST + 5 {
            busy.note(&n.to_string(), now);
        }
        assert_eq!(busy.keys.len(), MOST);
        busy.note("later", now + LONGEST);
        assert!(busy.keys.len() == 1 && busy.is("later", now + LONGEST));
    }
}

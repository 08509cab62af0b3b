//! A token bucket: so many requests a second, and so many at once after a pause.
//!
//! In any span of T seconds it lets through at most `rate` × T plus the larger of `burst` and one more than a tenth of a
//! second's worth: who comes a little later than the token that it waited for loses nothing by it, so that a rate can
//! be reached by somebody who needs a moment to wake up.

use std::time::{Duration, Instant};

/// How late one may come for a token that one waited for.
const LATENESS: f64 = 0.1;
/// Lost to rounding, tokens; far below what any rate can tell.
const DUST: f64 = 1e-9;

/// One endpoint's tokens.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
    /// When the token is there that somebody was told to wait for.
    due: Option<Instant>,
}

impl Bucket {
    /// A new bucket has one token and no more, so that a worker that starts again and again does not burst.
    pub fn new(rate: f64, burst: f64, now: Instant) -> Bucket {
        Bucket { rate, burst: burst.max(1.0), tokens: 1.0, at: now, due: None }
    }

    /// Changes rate and burst; what has been gathered stays, up to the new burst.
    pub fn set(&mut self, rate: f64, burst: f64, now: Instant) {
        let burst = burst.max(1.0);
        #[allow(clippy::float_cmp)] // the same column's value
        if self.rate != rate || self.burst != burst {
            self.fill(now);
            (self.rate, self.burst, self.due) = (rate, burst, None);
            self.tokens = self.tokens.min(burst);
        }
    }

    /// `None` when there is a token, else how long until there is one. Remembers that somebody waits.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        if self.tokens >= 1.0 - DUST {
            return None;
        }
        let wait = Duration::from_secs_f64(((1.0 - self.tokens) / self.rate).clamp(1e-6, 1e6));
        self.due = Some(now + wait);
        Some(wait)
    }

    /// How many tokens there are now.
    pub fn whole(&self, now: Instant) -> usize {
        let mut then = self.clone();
        then.fill(now);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, at most some 100,000
        let whole = (then.tokens + DUST) as usize;
        whole
    }

    /// Takes a token that [`Bucket::wait`] has just said is there.
    pub fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// Puts back a token that was taken for nothing.
    pub fn give_back(&mut self) {
        self.tokens += 1.0;
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let late = self.due.is_some_and(|due| now.saturating_duration_since(due).as_secs_f64() <= LATENESS);
        let most = if late { self.burst.max(1.0 + self.rate * LATENESS) } else { self.burst };
        // What is there already stays: it was come by honestly.
        self.tokens = (self.tokens + passed * self.rate).min(most).max(self.tokens);
        self.at = self.at.max(now);
        // Before it is due, somebody still waits; afterwards it has been honoured.
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(bucket: &mut Bucket, now: Instant) -> bool {
        let there = bucket.wait(now).is_none();
        if there {
            bucket.take();
        }
        there
    }

    #[test]
    fn a_new_bucket_has_one_token_whatever_the_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10.0, 50.0, now);
        assert!(ask(&mut bucket, now));
        assert!(!ask(&mut bucket, now));
        let later = now + Duration::from_secs(60);
        assert_eq!(bucket.whole(later), 50);
        assert_eq!((0..99).filter(|_| ask(&mut bucket, later)).count(), 50);
    }

    #[test]
    fn who_comes_when_told_to_gets_the_whole_rate_and_a_little_late_too() {
        for (rate, late_ms) in [(3.0, 0), (100.0, 4), (1000.0, 30), (0.5, 50)] {
            let start = Instant::now();
            let (mut bucket, mut now, mut got) = (Bucket::new(rate, 1.0, start), start, 0);
            while now < start + Duration::from_secs(20) {
                match bucket.wait(now) {
                    None => {
                        bucket.take();
                        got += 1;
                    }
                    Some(wait) => now += wait + Duration::from_millis(late_ms),
                }
            }
            let want = rate * 20.0;
            assert!((f64::from(got) - want).abs() <= 2.0 + want / 100.0, "{got} of {want}");
        }
    }

    #[test]
    fn changed_limits_count_at_once_and_give_nothing_away() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10.0, 50.0, now);
        let later = now + Duration::from_secs(60);
        bucket.set(1.0, 2.0, later);
        assert_eq!(bucket.whole(later), 2);
        bucket.set(1.0, 9.0, later);
        assert_eq!(bucket.whole(later), 2);
        bucket.take();
        bucket.give_back();
        assert_eq!(bucket.whole(later), 2);
    }

    proptest! {
        /// Whoever asks when: no span holds more than the rate and the larger of the two bursts.
        #[test]
        fn no_span_holds_too_much(
            rate in 0.1f64..2_000.0, burst in 1u32..40, pauses in proptest::collection::vec((0u64..400, 1usize..60), 1..80)
        ) {
            let start = Instant::now();
            let (mut bucket, mut now) = (Bucket::new(rate, f64::from(burst), start), start);
            let mut taken = Vec::new();
            for (pause, asks) in pauses {
                now += Duration::from_millis(pause);
                taken.extend((0..asks).filter(|_| ask(&mut bucket, now)).map(|_| now));
            }
            let most = f64::from(burst).max(1.0 + rate * LATENESS);
            for (i, first) in taken.iter().enumerate() {
                for (j, last) in taken.iter().enumerate().skip(i) {
                    let span = last.duration_since(*first).as_secs_f64();
                    prop_assert!((j - i + 1) as f64 <= most + rate * span + 1e-6);
                }
            }
        }
    }
}

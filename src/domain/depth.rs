//! How many runs wait: known without counting them at every request.
//!
//! Whoever counts also reads how many rows were ever put into the queue (its sequence). Later, the count and what has been
//! put in since are an upper bound of what waits, and while that is below the limit nobody has to count again. What is
//! not in it: rows of transactions that were open while it was counted.
//!
//! A count that found the queue full stands for a moment, ten times as long as it took, so that refusals cost less than
//! admissions.

use std::time::{Duration, Instant};

/// A full queue is not counted again for so many times as long as counting took.
const REST: u32 = 10;
/// And for no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many there were, up to the limit of then.
    pub found: i64,
    /// That limit.
    pub limit: i64,
    /// Rows ever put into the queue, read before counting.
    pub pushed: i64,
    /// When it was over.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// What is known about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// There is room.
    Room,
    /// There was none a moment ago.
    Full,
    /// Somebody has to count.
    Unknown,
}

/// What the last count says now, `pushed` rows having been put in altogether.
pub fn known(last: Option<Count>, limit: i64, pushed: i64, now: Instant) -> Known {
    // A sequence that went back is another one, or has been set.
    let Some(last) = last.filter(|last| last.pushed <= pushed) else { return Known::Unknown };
    let counted_to_the_end = last.found < last.limit;
    if counted_to_the_end && last.found.saturating_add(pushed - last.pushed) < limit {
        return Known::Room;
    }
    let rest = (last.took * REST).min(LONGEST_REST);
    if last.found >= limit && now.saturating_duration_since(last.at) < rest { Known::Full } else { Known::Unknown }
}

/// What a role may have waiting although the queue is full: a sixteenth, at least one, so that nobody is shut out by
/// somebody else's flood.
pub fn share(limit: i64) -> i64 {
    (limit / 16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(found: i64, limit: i64, pushed: i64) -> Count {
        Count { found, limit, pushed, at: Instant::now(), took: Duration::from_millis(2) }
    }

    #[test]
    fn nobody_counts_while_there_is_room_for_sure() {
        let last = count(10, 100, 1_000);
        let ask = |limit, pushed| known(Some(last), limit, pushed, last.at);
        assert_eq!((ask(100, 1_000), ask(100, 1_089)), (Known::Room, Known::Room));
        assert_eq!(ask(100, 1_090), Known::Unknown);
        assert_eq!(ask(10, 1_000), Known::Full, "a lower limit");
        assert_eq!(ask(200, 1_150), Known::Room, "a higher limit, and a count that was not cut off");
        assert_eq!(ask(100, 999), Known::Unknown, "a sequence that was set back");
        assert_eq!(known(None, 100, 0, last.at), Known::Unknown);
    }

    #[test]
    fn a_full_queue_rests_for_a_moment() {
        let last = count(100, 100, 1_000);
        let ask = |limit, ms| known(Some(last), limit, 1_000, last.at + Duration::from_millis(ms));
        assert_eq!((ask(100, 19), ask(100, 20)), (Known::Full, Known::Unknown));
        assert_eq!(ask(200, 1), Known::Unknown, "cut off at the old limit");
        let slow = Count { took: Duration::from_secs(9), ..last };
        assert_eq!(known(Some(slow), 100, 1_000, last.at + LONGEST_REST), Known::Unknown);
    }

    proptest! {
        /// Alone, with rows that go at any time: never more than the limit, and never refused while there is room for sure.
        #[test]
        fn alone_it_is_exact(limit in 1i64..50, steps in proptest::collection::vec((any::<bool>(), 0u64..50), 1..400)) {
            let (mut depth, mut pushed, mut last, mut now) = (0, 0, None, Instant::now());
            for (drains, ms) in steps {
                now += Duration::from_millis(ms);
                if drains {
                    depth = (depth - 1).max(0);
                    continue;
                }
                let admitted = match known(last, limit, pushed, now) {
                    Known::Room => true,
                    Known::Full => false,
                    Known::Unknown => {
                        let found = depth.min(limit);
                        last = Some(Count { found, limit, pushed, at: now, took: Duration::from_millis(1) });
                        found < limit
                    }
                };
                if admitted {
                    pushed += 1;
                    depth += 1;
                }
                prop_assert!(depth <= limit);
                prop_assert!(admitted || last.is_some_and(|last| last.found >= limit));
            }
        }
    }
}

//! How soon to try again, and how often to speak of it. Pure.
//!
//! Lives here: the numbers. Does not live here: what is tried (`launcher`).

use std::time::Duration;

/// A worker that lived this long was healthy: its end starts the count of failures anew.
pub const HEALTHY: Duration = Duration::from_secs(60);
/// The same complaint is made this often at most.
pub const COMPLAINT: Duration = Duration::from_secs(60);
/// The list of databases is read this often, unless a command asks for it.
pub const RESCAN: Duration = Duration::from_secs(60);
/// A database without the extension is looked at again, for the commands that no hook sees.
pub const REPROBE: Duration = Duration::from_secs(600);
/// A worker that takes longer to start waits for somebody's lock; it no longer counts against [`PROBES`].
pub const SLOW_START: Duration = Duration::from_secs(10);
/// So many workers start at the same time, lest a server with many databases is flooded when it comes up.
pub const PROBES: usize = 2;

const FIRST: Duration = Duration::from_millis(500);
const CEILING: Duration = Duration::from_secs(60);
/// A refusal, or that no process is free, is found without starting anything, so it may be repeated sooner.
const CEILING_REFUSED: Duration = Duration::from_secs(15);

/// The wait after so many failures in a row: half a second, then 1, 2, 4 … 60 s.
pub fn after_failures(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST * 2u32.pow(doublings)).min(CEILING)
}

/// The wait after so many refusals in a row.
pub fn after_refusals(refusals: u32) -> Duration {
    after_failures(refusals).min(CEILING_REFUSED)
}

/// The wait after a worker left on purpose: none, unless it comes and goes.
pub fn after_leaving(lived: Duration) -> Duration {
    if lived < Duration::from_secs(1) { FIRST } else { Duration::ZERO }
}

/// Failures in a row, counting the one that ended a worker after `lived`.
pub fn count(before: u32, lived: Duration) -> u32 {
    if lived >= HEALTHY { 1 } else { before.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_retry_is_prompt_and_the_last_is_bounded() {
        let waits: Vec<u64> = (0..12).map(|n| after_failures(n).as_millis() as u64).collect();
        assert_eq!(waits[..5], [500, 500, 1000, 2000, 4000]);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(after_failures(u32::MAX), CEILING);
        assert_eq!(after_refusals(u32::MAX), CEILING_REFUSED);
    }

    #[test]
    fn a_healthy_life_clears_the_record() {
        assert_eq!(count(7, HEALTHY), 1);
        assert_eq!(count(7, Duration::from_secs(59)), 8);
        assert_eq!(count(u32::MAX, Duration::ZERO), u32::MAX);
    }
}

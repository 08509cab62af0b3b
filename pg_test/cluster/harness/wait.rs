//! Waiting for conditions. Time passes here and nowhere else, and never as a means of synchronisation.

use std::time::{Duration, Instant};

/// What takes longer than this does not happen.
pub const DEADLINE: Duration = Duration::from_secs(40);
/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Looks until there is something to return; panics with `what` when it takes too long.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_or(look, || what.to_owned())
}

/// As [`until`], with a message that is made when it is needed.
#[track_caller]
pub fn until_or<T>(mut look: impl FnMut() -> Option<T>, what: impl FnOnce() -> String) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() >= end {
            panic!("it took too long until {}", what());
        }
        std::thread::sleep(STEP);
    }
}

/// Looks for a while, and panics when `what` turns out to be otherwise: for what must not happen, and where no later
/// event would prove that it did not.
#[track_caller]
pub fn holds(what: &str, span: Duration, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(look(), "it does not hold that {what}");
        std::thread::sleep(STEP);
    }
}

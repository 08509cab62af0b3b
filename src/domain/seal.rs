//! Tamper evidence, the pure part: marks, the chain of seals, and which events are still to be sealed.
//!
//! ```text
//! mark    an event says that it came through this code in this database
//! chain   a seal says that rows have not changed since; each seal covers the one before it
//! holes   event numbers that somebody may still commit
//! row     what the sealing has to know of an event, from the text that its digest is made over
//! pace    when a batch is due, and how large it is
//! ```
//!
//! Does not live here: the digests of rows, which the database makes over its own text of them (`store::seal`).

pub mod chain;
pub mod holes;
pub mod mark;
pub mod pace;
pub mod row;

pub use mark::{EventFacts, MARK, is_marked, mark, mark_text};

use super::mode::Mode;
use super::state::{Cause, RunStatus, next};

/// Every step that a run can take, as `mode|from|to`; `from` is empty for the first one.
pub fn steps() -> Vec<String> {
    let mut steps = Vec::new();
    for mode in Mode::ALL {
        for from in std::iter::once(None).chain(RunStatus::ALL.map(Some)) {
            for to in Cause::ALL.into_iter().filter_map(|cause| next(mode, from, cause)) {
                steps.push(format!("{mode}|{}|{}", from.map_or("", RunStatus::as_str), to.as_str()));
            }
        }
    }
    steps.sort_unstable();
    steps.dedup();
    steps
}

#[cfg(test)]
#[path = "seal/old_tests.rs"]
mod old_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_the_state_machine() {
        let steps = steps();
        for known in
            ["plan||planned", "plan||refused", "apply||queued", "apply|queued|running", "apply|running|in_doubt"]
        {
            assert!(steps.iter().any(|step| step == known), "{known}");
        }
        for unknown in ["plan||queued", "apply||running", "apply|succeeded|failed", "apply|in_doubt|running", "apply||"]
        {
            assert!(!steps.iter().any(|step| step == unknown), "{unknown}");
        }
    }
}

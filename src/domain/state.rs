//! The states of a run and the only place that knows the edges between them.
//!
//! ```text
//! plan     refused | planned
//! others   refused
//!          queued -> running -> succeeded | failed | cancelled
//!                    running -> queued      (retry: later, same key, next attempt)
//!                    running -> in_doubt    (sent, outcome unknown, not safe to repeat)
//!          queued -> cancelled | expired | refused (second gate): never sent
//!          queued -> failed | in_doubt  (a repetition that cannot be made any more: it was sent before)
//!          in_doubt -> succeeded | failed | queued   (resolved by the engine's answer or by an operator)
//! ```

use super::mode::Mode;

/// Where a run stands. Written to `dot_run.run_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// A gate said no; nothing was sent. Written by the caller's transaction or by the worker's second gate.
    Refused,
    /// A plan was made; nothing is ever sent for it.
    Planned,
    /// Admitted, waiting for the worker. A crash leaves it as it is.
    Queued,
    /// The intent is on disk and the call may be out. After a crash `retry` decides: sent again, or `InDoubt`.
    Running,
    /// The engine said that it is done.
    Succeeded,
    /// The engine said no, or it is certain that nothing happened; a verify also when nobody knows.
    Failed,
    /// Ended by request before anything was sent.
    Cancelled,
    /// Not started by its deadline; never sent.
    Expired,
    /// Sent, outcome unknown. Waits for the engine's answer or for an operator.
    InDoubt,
}

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The first gates let a plan through.
    PlanMade,
    /// The first gates let a verify or an apply through.
    Admitted,
    /// A gate said no, at the request or at the second gate.
    Refused,
    /// The worker recorded the intent of the next attempt.
    Claimed,
    /// The engine reported success, or an operator or the engine resolved it so.
    Succeeded,
    /// The engine reported failure, or it is certain that nothing happened.
    Failed,
    /// Sent, and nobody knows.
    OutcomeUnknown,
    /// To be sent again later: safe to repeat, or known never to have been seen.
    Requeued,
    /// Withdrawn by request.
    Cancelled,
    /// Not started in time.
    Expired,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 10] = [
        Cause::PlanMade,
        Cause::Admitted,
        Cause::Refused,
        Cause::Claimed,
        Cause::Succeeded,
        Cause::Failed,
        Cause::OutcomeUnknown,
        Cause::Requeued,
        Cause::Cancelled,
        Cause::Expired,
    ];
}

impl RunStatus {
    /// All states.
    pub const ALL: [RunStatus; 9] = [
        RunStatus::Refused,
        RunStatus::Planned,
        RunStatus::Queued,
        RunStatus::Running,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Cancelled,
        RunStatus::Expired,
        RunStatus::InDoubt,
    ];

    /// The state's name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Refused => "refused",
            RunStatus::Planned => "planned",
            RunStatus::Queued => "queued",
            RunStatus::Running => "running",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Expired => "expired",
            RunStatus::InDoubt => "in_doubt",
        }
    }

    /// Reads a state's name.
    pub fn parse(text: &str) -> Option<RunStatus> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// True when nothing can change it any more.
    pub fn is_terminal(self) -> bool {
        !matches!(self, RunStatus::Queued | RunStatus::Running | RunStatus::InDoubt)
    }
}

/// The state that follows, or `None` where there is no such edge. `from` is `None` for a run that does not exist yet.
pub fn next(mode: Mode, from: Option<RunStatus>, cause: Cause) -> Option<RunStatus> {
    use RunStatus as S;
    match (from, cause) {
        (None, Cause::PlanMade) if mode == Mode::Plan => Some(S::Planned),
        (None, Cause::Refused) => Some(S::Refused),
        (None, Cause::Admitted) if mode.calls_engine() => Some(S::Queued),
        (Some(S::Queued), Cause::Claimed) => Some(S::Running),
        (Some(S::Queued), Cause::Refused) => Some(S::Refused),
        (Some(S::Queued), Cause::Cancelled) => Some(S::Cancelled),
        (Some(S::Queued), Cause::Expired) => Some(S::Expired),
        (Some(S::Queued), Cause::Failed) => Some(S::Failed),
        (Some(S::Queued), Cause::OutcomeUnknown) => Some(S::InDoubt),
        (Some(S::Running), Cause::Succeeded) => Some(S::Succeeded),
        (Some(S::Running), Cause::Failed) => Some(S::Failed),
        (Some(S::Running), Cause::Cancelled) => Some(S::Cancelled),
        (Some(S::Running), Cause::Requeued) => Some(S::Queued),
        (Some(S::Running), Cause::OutcomeUnknown) => Some(S::InDoubt),
        (Some(S::InDoubt), Cause::Succeeded) => Some(S::Succeeded),
        (Some(S::InDoubt), Cause::Failed) => Some(S::Failed),
        (Some(S::InDoubt), Cause::Requeued) => Some(S::Queued),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where a cause stands in `Cause::ALL`; one that is not listed there does not compile here.
    fn place(cause: Cause) -> usize {
        match cause {
            Cause::PlanMade => 0,
            Cause::Admitted => 1,
            Cause::Refused => 2,
            Cause::Claimed => 3,
            Cause::Succeeded => 4,
            Cause::Failed => 5,
            Cause::OutcomeUnknown => 6,
            Cause::Requeued => 7,
            Cause::Cancelled => 8,
            Cause::Expired => 9,
        }
    }

    #[test]
    fn all_causes_are_listed() {
        assert!(Cause::ALL.into_iter().enumerate().all(|(n, cause)| place(cause) == n));
    }

    #[test]
    fn names_read_back() {
        for status in RunStatus::ALL {
            assert_eq!(RunStatus::parse(status.as_str()), Some(status));
        }
    }

    #[test]
    fn invariant_12_terminal_is_final_no_edge_leaves_a_terminal_state() {
        for mode in Mode::ALL {
            for from in RunStatus::ALL.into_iter().filter(|s| s.is_terminal()) {
                for cause in Cause::ALL {
                    assert_eq!(next(mode, Some(from), cause), None, "{mode} {from:?} {cause:?}");
                }
            }
        }
    }

    #[test]
    fn every_state_that_waits_has_a_way_out() {
        for from in RunStatus::ALL.into_iter().filter(|s| !s.is_terminal()) {
            assert!(Cause::ALL.iter().any(|c| next(Mode::Apply, Some(from), *c).is_some()), "{from:?}");
        }
    }

    proptest! {
        /// Any sequence of causes, applied where there is an edge: a plan is never sent, nothing runs that was not
        /// admitted, and a run that was reported cancelled from the queue was never claimed for its last attempt.
        #[test]
        fn walks_keep_the_promises(mode in prop::sample::select(&Mode::ALL[..]),
                                   causes in prop::collection::vec(prop::sample::select(&Cause::ALL[..]), 0..60)) {
            let mut at = None;
            let mut seen = Vec::new();
            for cause in causes {
                if let Some(to) = next(mode, at, cause) {
                    prop_assert!(at.is_none_or(|s: RunStatus| !s.is_terminal()));
                    at = Some(to);
                    seen.push(to);
                }
            }
            if mode == Mode::Plan {
                prop_assert!(seen.len() <= 1);
                prop_assert!(!seen.contains(&RunStatus::Running));
            }
            if let Some(first) = seen.iter().position(|s| *s == RunStatus::Running) {
                prop_assert_eq!(seen[0], RunStatus::Queued);
                prop_assert!(first >= 1);
            }
            for pair in seen.windows(2) {
                if pair[1] == RunStatus::Expired || pair[1] == RunStatus::Refused {
                    prop_assert_eq!(pair[0], RunStatus::Queued);
                }
                if pair[1] == RunStatus::InDoubt {
                    prop_assert!(matches!(pair[0], RunStatus::Running | RunStatus::Queued));
                }
            }
        }
    }
}

//! What an agent says of a key, and what it makes of a run in doubt.

use std::time::Duration;

use super::answer::{Answer, Verdict};
use super::policy::Policy;
use super::retry;
use super::state::Cause;

/// What the agent knows of a key.
#[derive(Clone, Debug)]
pub enum Finding {
    /// 200 with a body of the contract: it succeeded, failed or was refused.
    Ended(Box<Answer>),
    /// The agent is at it.
    Running {
        /// When to ask again, where it said so.
        retry_after: Option<Duration>,
    },
    /// 404 with `{"status": "unknown"}`: the agent never began it, and will not. Any other 404 is no answer, since every
    /// proxy says it.
    NeverSeen,
    /// Nothing was learned.
    NoAnswer {
        /// Why, for people: one line, at most 300 characters, secrets masked.
        message: String,
        /// When to ask again, where the agent said so.
        retry_after: Option<Duration>,
    },
}

/// The run that was asked about.
#[derive(Clone, Copy, Debug)]
pub struct Doubt<'a> {
    /// Its policy.
    pub policy: &'a Policy,
    /// Deliveries so far.
    pub attempts: i32,
    /// The age of its key.
    pub key_age: Duration,
    /// Somebody has asked to cancel it.
    pub withdrawn: bool,
    /// The agent had accepted it: a key that it does not know now is one that it has lost.
    pub accepted: bool,
    /// The delivery's deadline has passed: one that has not arrived by now is refused for being late.
    pub is_over: bool,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// It stays in doubt.
    None,
    /// It is over, as the agent's answer says.
    Told(Cause),
    /// It is certain that nothing happened: it ends, or is sent again (`Cause::Requeued`).
    Untouched {
        /// What happens to the run.
        cause: Cause,
        /// Why, for machines.
        reason: &'static str,
        /// Why, for people.
        message: &'static str,
    },
}

/// What a finding makes of a run in doubt.
pub fn resolve(doubt: &Doubt<'_>, finding: &Finding) -> Resolution {
    match finding {
        Finding::Ended(answer) if answer.verdict == Verdict::Succeeded => Resolution::Told(Cause::Succeeded),
        Finding::Ended(_) => Resolution::Told(Cause::Failed),
        Finding::NeverSeen => never_seen(doubt),
        Finding::Running { .. } | Finding::NoAnswer { .. } => Resolution::None,
    }
}

fn never_seen(doubt: &Doubt<'_>) -> Resolution {
    // An agent may forget a key when its window is over; then it says the same.
    let window = Duration::from_secs(u64::try_from(doubt.policy.key_window_s).unwrap_or(0));
    if doubt.accepted || !doubt.is_over || doubt.key_age >= window {
        return Resolution::None;
    }
    let untouched = |cause, reason, message| Resolution::Untouched { cause, reason, message };
    if doubt.withdrawn {
        untouched(Cause::Failed, retry::CANCELLED, "the agent has never seen it, and never will")
    } else if i64::from(doubt.attempts) < doubt.policy.max_attempts {
        untouched(Cause::Requeued, "never_seen", "the agent has never seen it; it is sent again")
    } else {
        untouched(Cause::Failed, "never_seen", "the agent has never seen it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::Reach;

    fn cause(resolution: &Resolution) -> Option<Cause> {
        match resolution {
            Resolution::None => None,
            Resolution::Told(cause) | Resolution::Untouched { cause, .. } => Some(*cause),
        }
    }

    #[test]
    fn an_end_is_believed_and_an_evasion_is_not() {
        let policy = Policy::cautious();
        let doubt = Doubt {
            policy: &policy,
            attempts: 1,
            key_age: Duration::ZERO,
            withdrawn: false,
            accepted: true,
            is_over: false,
        };
        let ended =
            |verdict| Finding::Ended(Box::new(Answer { verdict, ..Answer::failure(Reach::Answered, "http_200", "x") }));
        let of = |finding| cause(&resolve(&doubt, &finding));
        assert_eq!(of(ended(Verdict::Succeeded)), Some(Cause::Succeeded));
        assert_eq!(of(ended(Verdict::Failed)), Some(Cause::Failed));
        assert_eq!(of(Finding::Running { retry_after: None }), None);
        assert_eq!(of(Finding::NoAnswer { message: "x".into(), retry_after: None }), None);
    }

    #[test]
    fn never_seen_counts_only_when_nothing_can_still_arrive_and_nothing_was_forgotten() {
        let policy = Policy::cautious();
        let sure = Doubt {
            policy: &policy,
            attempts: 1,
            key_age: Duration::from_secs(60),
            withdrawn: false,
            accepted: false,
            is_over: true,
        };
        let of = |doubt: Doubt<'_>| cause(&resolve(&doubt, &Finding::NeverSeen));
        assert_eq!(of(sure), Some(Cause::Requeued));
        assert_eq!(of(Doubt { withdrawn: true, ..sure }), Some(Cause::Failed));
        assert_eq!(of(Doubt { attempts: 5, ..sure }), Some(Cause::Failed));
        for unsure in [
            Doubt { accepted: true, ..sure },
            Doubt { is_over: false, ..sure },
            Doubt { key_age: Duration::from_secs(86_400), ..sure },
        ] {
            assert_eq!(of(unsure), None);
        }
    }
}

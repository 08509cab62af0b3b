//! What the end of an attempt does to its run: an end, a doubt, or another attempt. Pure, total, and the only place that
//! says so. How the answer was fetched is the engine's business; `docs/agent_api.md` has the table for people.

use std::time::Duration;

use super::answer::{Answer, Reach, Verdict};
use super::mode::Mode;
use super::policy::Policy;
use super::state::Cause;

/// What earlier deliveries of a run may have done. Written to `dot_queue.past`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Past {
    /// No byte of any delivery has left.
    #[default]
    None,
    /// Something was sent, and it is certain that it changed nothing.
    Untaken,
    /// Something was sent that may have had its effect.
    Unknown,
}

impl Past {
    /// All of them.
    pub const ALL: [Past; 3] = [Past::None, Past::Untaken, Past::Unknown];

    /// Its name in the queue.
    pub fn as_str(self) -> &'static str {
        match self {
            Past::None => "none",
            Past::Untaken => "untaken",
            Past::Unknown => "unknown",
        }
    }

    /// Reads its name; what is no name is taken for the worst.
    pub fn parse(text: &str) -> Past {
        Past::ALL.into_iter().find(|past| past.as_str() == text).unwrap_or(Past::Unknown)
    }

    /// How a queued run ends that cannot be sent (again). What was never sent ends as asked for: refused, expired,
    /// cancelled. What was sent is not called so (invariant 12), and what may have been done is in doubt.
    pub fn end(self, asked: Cause) -> Cause {
        match self {
            Past::None => asked,
            Past::Untaken => Cause::Failed,
            Past::Unknown => Cause::OutcomeUnknown,
        }
    }
}

/// What one attempt did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The agent's word, of the contract.
    Told(Cause),
    /// Nothing, and another attempt would end in the same way: a refusal, a mistake in the configuration.
    NothingAgain,
    /// Nothing, and another attempt may do better.
    NothingYet,
    /// Nobody knows.
    Unknown,
}

/// Why a delivery that was not sent will not be sent either if it is tried again: configuration, not circumstance.
/// The words are those of `engine::reason`, `egress::Denied` and `host`.
const CONFIGURATION: [&str; 15] = [
    "no_egress_rule",
    "scheme_denied",
    "userinfo_denied",
    "host_missing",
    "address_denied",
    "secret_missing",
    "secret_unusable",
    "request_unusable",
    "tls_unusable",
    "program_missing",
    "program_outside_roots",
    "program_not_a_file",
    "program_not_executable",
    "program_writable_by_others",
    "program_owner",
];

/// The reason of a delivery that was closed because somebody asked for it.
pub const CANCELLED: &str = "cancelled";

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Mode.
    pub mode: Mode,
    /// The policy that it was claimed under.
    pub policy: &'a Policy,
    /// Its number, from 1.
    pub number: i32,
    /// What came before it.
    pub past: Past,
    /// Since the run was requested.
    pub age: Duration,
    /// Since the intent of its first attempt.
    pub key_age: Duration,
    /// Somebody has asked to cancel the run.
    pub withdrawn: bool,
    /// What came of it.
    pub answer: &'a Answer,
    /// How long the agent asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// The run ends, or is in doubt.
    End(Cause),
    /// It is sent again.
    Again {
        /// Not before.
        wait: Duration,
        /// What has been done by then, for all that is known.
        past: Past,
    },
}

/// Decides. `chance` is random, 0 to 1.
pub fn next(attempt: &Attempt<'_>, chance: f64) -> Next {
    let effect = effect(attempt.answer, attempt.retry_after);
    let mutates = attempt.mode.mutates();
    let past = after(attempt, effect);
    let unresolved = if past == Past::Unknown { Cause::OutcomeUnknown } else { Cause::Failed };
    let again = match effect {
        Effect::Told(cause) => return Next::End(cause),
        // An answer that is not about the key says nothing of what an earlier delivery did.
        Effect::NothingAgain => false,
        Effect::NothingYet => true,
        Effect::Unknown => attempt.policy.idempotent || !mutates,
    };
    if attempt.withdrawn || attempt.answer.reason == CANCELLED {
        return Next::End(if past == Past::None { Cause::Cancelled } else { unresolved });
    }
    let wait = pause(attempt, chance);
    if again && has_room(attempt, past, wait) { Next::Again { wait, past } } else { Next::End(unresolved) }
}

/// True when a repetition that is sent after `wait` keeps to the limits of the policy.
fn has_room(attempt: &Attempt<'_>, past: Past, wait: Duration) -> bool {
    let policy = attempt.policy;
    let in_window = past == Past::None || key_is_remembered(policy, attempt.key_age + wait);
    i64::from(attempt.number) < policy.max_attempts && attempt.age + wait < seconds(policy.finish_by_s) && in_window
}

/// True when a delivery that begins at this age of the key ends while the agent still remembers it.
pub fn key_is_remembered(policy: &Policy, key_age: Duration) -> bool {
    key_age + millis(policy.connect_timeout_ms + policy.total_timeout_ms) <= seconds(policy.key_window_s)
}

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), and never sooner than the
/// agent asked for.
fn pause(attempt: &Attempt<'_>, chance: f64) -> Duration {
    let doublings = u32::try_from(attempt.number - 1).unwrap_or(0).min(30);
    let ceiling = attempt.policy.retry_base_ms.saturating_mul(1 << doublings).min(attempt.policy.retry_max_ms);
    let jitter = millis(ceiling).mul_f64(chance.clamp(0.0, 1.0));
    jitter.max(attempt.retry_after.unwrap_or_default())
}

fn after(attempt: &Attempt<'_>, effect: Effect) -> Past {
    let now = match (effect, attempt.answer.reach) {
        (Effect::Unknown, _) if attempt.mode.mutates() => Past::Unknown,
        (_, Reach::NotSent) => Past::None,
        // What a verify does is no effect.
        _ => Past::Untaken,
    };
    attempt.past.max(now)
}

fn effect(answer: &Answer, retry_after: Option<Duration>) -> Effect {
    match (answer.reach, answer.verdict) {
        (Reach::NotSent, _) if CONFIGURATION.contains(&answer.reason.as_str()) => Effect::NothingAgain,
        (Reach::NotSent, _) => Effect::NothingYet,
        (Reach::Sent, _) => Effect::Unknown,
        (Reach::Answered, Verdict::Succeeded) => Effect::Told(Cause::Succeeded),
        (Reach::Answered, Verdict::Failed) => Effect::Told(Cause::Failed),
        (Reach::Answered, Verdict::NotTaken) => Effect::NothingYet,
        (Reach::Answered, Verdict::Refused | Verdict::None) if is_untaken(answer, retry_after) => Effect::NothingYet,
        (Reach::Answered, Verdict::Refused) => Effect::Told(Cause::Failed),
        // A bare 409 is no word of the contract: the key may be busy with an earlier delivery.
        (Reach::Answered, Verdict::None) => match answer.http_status {
            Some(300..=499) => Effect::NothingAgain,
            _ => Effect::Unknown,
        },
    }
}

/// RFC 9110, 6585 and 8470: the request was not taken. A 503 says so only when it names a time: gateways also send it for a
/// request that they have passed on.
pub fn is_untaken(answer: &Answer, retry_after: Option<Duration>) -> bool {
    match answer.http_status {
        Some(408 | 425 | 429) => true,
        Some(503) => retry_after.is_some(),
        _ => false,
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
#[path = "retry_model.rs"]
mod model;
#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;

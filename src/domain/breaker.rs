//! The circuit breaker of an endpoint: after so many deliveries in a row that got no useful answer it lets nothing
//! through for a while, then one delivery, and by that one's end it knows.
//!
//! ```text
//! closed(failures in a row) -> open(until) -> half open: one trial -> closed
//!                              open(until, twice as long, up to an hour) <-'
//! ```
//!
//! Lives here: what an answer says about its endpoint, and the state. Does not live here: which calls there are
//! (`limits`), the row (`store::breaker`).

use std::time::{Duration, Instant};

use super::answer::{Answer, Verdict};
use super::decide::one_line;

/// The longest pause, whoever asks for it.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 200;

/// What the end of a delivery says about its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It answered as the contract says, be it with a no.
    Success,
    /// It gave no useful answer; why, for people.
    Failure(String),
    /// It answered, and asked to be left alone for so long.
    Pause(Duration),
    /// Nothing: the trouble was on our side, or nobody knows.
    Neither,
}

/// Troubles of the way to an agent, or of its answer, that have no status of 500 and more.
const FAILURES: [&str; 14] = [
    "dns_failed",
    "connect_failed",
    "connect_timeout",
    "tls_failed",
    "timeout",
    "connection_lost",
    "answer_incomplete",
    "accepted_without_location",
    "bad_status_location",
    "answer_too_large",
    "bad_content_encoding",
    "bad_content_type",
    "bad_answer",
    "redirect_refused",
];

/// What an answer says about its endpoint. Pure, total, and the only place that says so.
///
/// 429 and 503 with a `Retry-After` are a wish and no failure. Every other status from 500 on is a failure, every one
/// of 400 to 499 an answer. What is not known here (a missing secret, egress, a lost worker, a cancelled call) is ours.
pub fn effect(answer: &Answer, retry_after: Option<Duration>) -> Effect {
    if answer.verdict != Verdict::None {
        return Effect::Success;
    }
    let failure = || Effect::Failure(format!("{}: {}", answer.reason, answer.message));
    match (answer.http_status, retry_after) {
        (Some(429 | 503), Some(Duration::ZERO)) => Effect::Neither,
        (Some(429 | 503), Some(pause)) => Effect::Pause(pause.min(LONGEST)),
        (Some(500..), _) => failure(),
        _ if FAILURES.contains(&answer.reason.as_str()) => failure(),
        (Some(400..), _) => Effect::Success,
        _ => Effect::Neither,
    }
}

/// How an endpoint's breaker is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it; 0: it does not open by itself.
    pub failures: u32,
    /// How long it is open first.
    pub pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { failures: 5, pause: Duration::from_secs(30) }
    }
}

/// What an operator ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Let nothing through until ordered otherwise.
    Open,
    /// Forget what was, and go on.
    Closed,
    /// Take an `Open` back: one delivery tries.
    Auto,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Open, Order::Closed, Order::Auto];

    /// The word for it in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Open => "open",
            Order::Closed => "closed",
            Order::Auto => "auto",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Order> {
        Order::ALL.into_iter().find(|order| order.as_str() == word)
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything may pass.
    Closed,
    /// Nothing may pass until then; afterwards it is half open: one delivery may pass and decides.
    Open(Instant),
}

/// One endpoint's breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Where it stands.
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// How long the next opening lasts.
    pub pause: Option<Duration>,
    /// The endpoint asked to be left alone until then.
    pub paused_until: Option<Instant>,
    /// An operator said that nothing may pass.
    pub forced: bool,
    /// The number of the last order that was followed.
    pub order: i64,
    /// Why it stands where it stands; empty for no reason.
    pub reason: String,
    /// A trial is out.
    pub trying: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            state: State::Closed,
            failures: 0,
            pause: None,
            paused_until: None,
            forced: false,
            order: 0,
            reason: String::new(),
            trying: false,
        }
    }
}

/// Why nothing may pass now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// When to ask again; `None`: when something else has happened (the trial's end, an order).
    pub until: Option<Instant>,
}

impl Breaker {
    /// Whether a delivery may pass: `Ok(true)` says that it would be the trial.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, now: Instant) -> Result<bool, Stop> {
        if self.forced {
            return Err(Stop { until: None });
        }
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Err(Stop { until: Some(until) });
        }
        match self.state {
            State::Closed => Ok(false),
            State::Open(until) if now < until => Err(Stop { until: Some(until) }),
            State::Open(_) if self.trying => Err(Stop { until: None }),
            State::Open(_) => Ok(true),
        }
    }

    /// A trial has been let through.
    pub fn try_it(&mut self) {
        self.trying = true;
    }

    /// The trial was not sent after all.
    pub fn untried(&mut self) {
        self.trying = false;
    }

    /// Takes note of a delivery's end. True when something is different now that outlives this worker.
    pub fn end(&mut self, effect: &Effect, is_trial: bool, settings: Settings, now: Instant) -> bool {
        let before = self.clone();
        if is_trial {
            self.trying = false;
        }
        let open = matches!(self.state, State::Open(_));
        match effect {
            Effect::Neither => {}
            Effect::Pause(pause) => {
                let until = now + *pause;
                self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
                self.reason = format!("the agent asked for a pause of {} s", pause.as_secs());
            }
            // Calls from before it opened say nothing that is not known.
            Effect::Success | Effect::Failure(_) if open && !is_trial => {}
            Effect::Success => self.close(),
            Effect::Failure(why) => {
                self.failures = self.failures.saturating_add(1);
                self.reason = one_line(why).chars().take(MAX_REASON).collect();
                if open || (settings.failures > 0 && self.failures >= settings.failures) {
                    self.open(settings, now);
                }
            }
        }
        Breaker { trying: before.trying, ..self.clone() } != before
    }

    /// Follows an operator's order, if it is a new one. True when it was.
    pub fn follow(&mut self, number: i64, order: Order, now: Instant) -> bool {
        if number == self.order {
            return false;
        }
        self.order = number;
        match order {
            Order::Open => self.forced = true,
            Order::Closed => {
                self.close();
                (self.forced, self.paused_until) = (false, None);
            }
            Order::Auto => {
                if self.forced {
                    self.state = State::Open(now);
                }
                self.forced = false;
            }
        }
        true
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.failures = 0;
        self.pause = None;
        self.reason.clear();
    }

    fn open(&mut self, settings: Settings, now: Instant) {
        let pause = self.pause.unwrap_or(settings.pause).clamp(Duration::from_secs(1), LONGEST);
        self.state = State::Open(now + pause);
        self.pause = Some((pause * 2).min(LONGEST));
    }
}

#[cfg(test)]
#[path = "breaker/tests.rs"]
mod tests;

//! Follows a delivery that the agent accepted: asks its status URL until it ends or the time is over.
//!
//! Only an answer of the contract ends it as answered. Whatever else comes back says nothing about the work that was
//! accepted, so it ends as sent: an apply is then in doubt.

use std::time::Duration;

use hyper::Method;
use tokio::time::{Instant, sleep_until};
use url::Url;

use super::body::after;
use super::exchange::Delivery;
use super::failure::Failure;
use super::reply::Meaning;
use super::{Outcome, mask, reason};
use crate::domain::answer::{Answer, Reach, Verdict};

/// Between two questions when the agent names no time.
const PAUSE: Duration = Duration::from_secs(1);
/// Bounds of what the agent may name.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause after questions that failed, when the agent names no time.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest status URL, in bytes; it is kept in a table.
const MAX_URL: usize = 2048;

/// The status URL that an answer names.
///
/// # Errors
/// The end of the attempt: it was accepted, and cannot be followed.
pub(super) fn locate(delivery: &Delivery, location: Option<String>) -> Result<Url, Failure> {
    let unknown = |reason, message: &str| Err(Failure::unknown(reason, message));
    let Some(location) = location else {
        return unknown(reason::ACCEPTED_WITHOUT_LOCATION, "the agent accepted it and named no status URL");
    };
    let Ok(mut url) = delivery.request.url.join(&location) else {
        return unknown(reason::BAD_STATUS_LOCATION, "the status URL is not a URL");
    };
    url.set_fragment(None);
    check(delivery, &url)?;
    Ok(url)
}

/// How long to wait before the next question, given what the agent said about it.
pub(super) fn pause(hint: Option<Duration>) -> Duration {
    hint.unwrap_or(PAUSE).clamp(MIN_PAUSE, MAX_PAUSE)
}

/// Asks until the delivery ends. `wait` stands before the first question.
pub(super) async fn follow(delivery: &Delivery, url: &Url, mut wait: Duration) -> Outcome {
    if let Err(failure) = check(delivery, url) {
        return failure.into();
    }
    let mut failures = 0;
    let mut last = String::from("it is still running");
    loop {
        sleep_until(after(Instant::now(), wait).min(delivery.deadline)).await;
        if Instant::now() >= delivery.deadline {
            let message = format!("the time was over before the accepted work ended; last: {last}");
            return Failure::unknown(reason::TIMEOUT, message).into();
        }
        match ask(delivery, url).await {
            Step::Ended(outcome) => return outcome,
            Step::Running(hint) => {
                failures = 0;
                last = "it is still running".into();
                wait = pause(hint);
            }
            Step::Failed(why, hint) => {
                last = why;
                let backoff = PAUSE.saturating_mul(1 << failures).min(MAX_BACKOFF);
                failures = (failures + 1).min(5);
                wait = pause(hint.or(Some(backoff)));
            }
        }
    }
}

enum Step {
    Ended(Outcome),
    Running(Option<Duration>),
    /// Nothing learned; asking again is safe.
    Failed(String, Option<Duration>),
}

/// One question, and the whole answer to it.
///
/// # Errors
/// Why no answer's head came.
pub(super) async fn question(delivery: &Delivery, url: &Url) -> Result<Meaning, Failure> {
    let patience = delivery.call.limits.connect.saturating_add(delivery.call.limits.idle);
    let response = delivery.send(Method::GET, url, after(Instant::now(), patience)).await?;
    Ok(delivery.read(response).await)
}

async fn ask(delivery: &Delivery, url: &Url) -> Step {
    let meaning = match question(delivery, url).await {
        Ok(meaning) => meaning,
        Err(failure) => return Step::Failed(failure.message, None),
    };
    let outcome = match meaning {
        Meaning::Running { retry_after, .. } => return Step::Running(retry_after),
        Meaning::Final(outcome) | Meaning::NeverSeen(outcome) => outcome,
    };
    let answer = &outcome.answer;
    match answer.http_status {
        Some(200 | 201) if answer.reach == Reach::Answered && answer.verdict != Verdict::None => Step::Ended(outcome),
        Some(200 | 201) if answer.reach == Reach::Sent => Step::Failed(outcome.answer.message, None),
        Some(408 | 425 | 429 | 500..=599) => Step::Failed(outcome.answer.message, outcome.retry_after),
        _ => Step::Ended(
            Answer { reach: Reach::Sent, verdict: Verdict::None, result: None, observations: None, ..outcome.answer }
                .into(),
        ),
    }
}

/// A status URL must be where the request went, allowed as that was, and fit to be stored.
pub(super) fn check(delivery: &Delivery, url: &Url) -> Result<(), Failure> {
    let why = if url.origin() != delivery.request.url.origin() {
        "the status URL is at another origin than the request".to_owned()
    } else if url.as_str().len() > MAX_URL {
        format!("the status URL is longer than {MAX_URL} bytes")
    } else if mask::shows(url.as_str(), delivery.secret.as_ref()) {
        "the status URL holds the secret".to_owned()
    } else if let Err(denied) = delivery.call.egress.check_url(url) {
        format!("the status URL is not allowed: {}", denied.message)
    } else {
        return Ok(());
    };
    Err(Failure::unknown(reason::BAD_STATUS_LOCATION, why))
}

//! Asks an agent once what it knows of a key. Only what the agent itself can have said is believed; what it means for the
//! run is decided elsewhere.

use std::sync::Arc;

use tokio::time::Instant;
use url::Url;

use super::body::after;
use super::departure::Departure;
use super::exchange::{Delivery, Shared};
use super::failure::Failure;
use super::reply::Meaning;
use super::{Call, MESSAGE, mask, poll};
use crate::domain::answer::{Reach, Verdict};
use crate::domain::doubt::Finding;

/// Asks. Always ends, at `limits.total` at the latest.
pub(super) async fn ask(call: Call, url: &Url, departure: Arc<Departure>, shared: Arc<Shared>) -> Finding {
    let started = Instant::now();
    let deadline = after(started, call.limits.total);
    let delivery = match Delivery::open(call, departure, shared, deadline).await {
        Ok(delivery) => delivery,
        Err(failure) => return nothing(failure),
    };
    let line = |text: &str| mask::line(text, delivery.secret.as_ref(), MESSAGE);
    let mut finding = match poll::check(&delivery, url) {
        Ok(()) => poll::question(&delivery, url).await.map_or_else(nothing, finding),
        Err(failure) => nothing(failure),
    };
    match &mut finding {
        Finding::Ended(answer) => {
            answer.message = line(&answer.message);
            answer.elapsed = started.elapsed();
        }
        Finding::NoAnswer { message, .. } => *message = line(message),
        Finding::Running { .. } | Finding::NeverSeen => {}
    }
    finding
}

fn nothing(failure: Failure) -> Finding {
    Finding::NoAnswer { message: failure.message, retry_after: None }
}

fn finding(meaning: Meaning) -> Finding {
    let outcome = match meaning {
        Meaning::Running { retry_after, .. } => return Finding::Running { retry_after },
        Meaning::NeverSeen(_) => return Finding::NeverSeen,
        Meaning::Final(outcome) => outcome,
    };
    let answer = outcome.answer;
    let told = matches!(answer.http_status, Some(200 | 201)) && answer.verdict != Verdict::None;
    if told && answer.reach == Reach::Answered {
        Finding::Ended(Box::new(answer))
    } else {
        Finding::NoAnswer { message: answer.message, retry_after: outcome.retry_after }
    }
}

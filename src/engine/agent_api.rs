//! One call of an HTTP agent, from reading the secret to the end of the work. `docs/agent_api.md` is the contract.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use tokio::time::Instant;
use url::Url;

use super::body::after;
use super::departure::Departure;
use super::exchange::{Delivery, Shared};
use super::reply::Meaning;
use super::reports::Reports;
use super::{Call, Errand, MESSAGE, Outcome, Report, inquiry, mask, poll};
use crate::domain::answer::Reach;

/// Makes the call. Always ends, at `limits.total` at the latest.
pub(super) async fn make(call: Call, departure: Arc<Departure>, shared: Arc<Shared>, reports: &Reports) -> Report {
    let (run_id, attempt) = (call.run_id, call.attempt);
    let outcome = match call.errand.clone() {
        Errand::Inquire(url) => {
            let finding = inquiry::ask(call, &url, departure, shared).await;
            return Report::Learned { run_id, attempt, finding };
        }
        Errand::Deliver => deliver(call, None, departure, shared, reports).await,
        Errand::Follow(url) => deliver(call, Some(&url), departure, shared, reports).await,
    };
    Report::Ended { run_id, attempt, answer: outcome.answer, retry_after: outcome.retry_after }
}

/// Sends and follows, or only follows.
async fn deliver(
    call: Call,
    status_url: Option<&Url>,
    departure: Arc<Departure>,
    shared: Arc<Shared>,
    reports: &Reports,
) -> Outcome {
    let started = Instant::now();
    let deadline = after(started, call.limits.total);
    let mut outcome = match Delivery::open(call, departure, shared, deadline).await {
        Err(failure) => failure.into(),
        Ok(delivery) => {
            let mut outcome = match status_url {
                Some(url) => poll::follow(&delivery, url, Duration::ZERO).await,
                None => post(&delivery, reports).await,
            };
            outcome.answer.message = mask::line(&outcome.answer.message, delivery.secret.as_ref(), MESSAGE);
            outcome
        }
    };
    if status_url.is_some() && outcome.answer.reach == Reach::NotSent {
        // It was sent and accepted before the restart; what keeps us from asking now does not undo that.
        outcome.answer.reach = Reach::Sent;
    }
    outcome.answer.elapsed = started.elapsed();
    outcome
}

async fn post(delivery: &Delivery, reports: &Reports) -> Outcome {
    let response = match delivery.send(Method::POST, &delivery.request.url, delivery.deadline).await {
        Ok(response) => response,
        Err(failure) => return failure.under(delivery.departure.close()).into(),
    };
    let (status, remote) = (response.status, response.remote);
    let (location, retry_after) = match delivery.read(response).await {
        Meaning::Final(outcome) | Meaning::NeverSeen(outcome) => return outcome,
        Meaning::Running { location, retry_after } => (location, retry_after),
    };
    let mut outcome = match poll::locate(delivery, location) {
        Err(failure) => failure.into(),
        Ok(status_url) => {
            let (run_id, attempt) = (delivery.call.run_id, delivery.call.attempt);
            reports.send(Report::Accepted { run_id, attempt, status_url: status_url.clone() });
            poll::follow(delivery, &status_url, poll::pause(retry_after)).await
        }
    };
    // Where the last question got no answer, the first answer is the last that is known.
    outcome.answer.http_status = outcome.answer.http_status.or(Some(status));
    outcome.answer.remote = outcome.answer.remote.or(remote);
    outcome
}

//! Runs in doubt: their agents are asked what became of the key, and what they say resolves them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use url::Url;

use super::claim::Delivery;
use super::recover;
use super::session::Session;
use super::settle;
use crate::domain::answer::{Answer, Verdict};
use crate::domain::error::DotError;
use crate::domain::policy::Policy;
use crate::domain::render;
use crate::domain::retry::{self, Past};
use crate::domain::state::{Cause, RunStatus, next};
use crate::store::attempt::{self, Open};
use crate::store::extension::Extension;
use crate::store::queue;
use crate::store::transition::{self, Move};

/// Asked about in one transaction.
const BATCH: i64 = 50;

/// A question to be put.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// As for the delivery that it is about; its terms say when that was.
    pub delivery: Delivery,
    /// Where to ask.
    pub url: Url,
    /// The agent had accepted the run: a key that it does not know now is one that it has lost.
    pub accepted: bool,
    /// The delivery's deadline has passed: one that has not arrived by now is refused for being late.
    pub is_over: bool,
}

/// What the agent says of a key.
#[derive(Clone, Debug)]
pub enum Finding {
    /// How it ended.
    Ended(Box<Answer>),
    /// It is at work.
    Running(Option<Duration>),
    /// It has never seen the key.
    NeverSeen,
    /// Nothing that helps.
    Nothing,
}

/// Takes the runs in doubt that it is time to ask about.
///
/// # Errors
/// XX000 and 55000 only.
pub fn due(extension: &Extension) -> Result<Vec<Inquiry>, DotError> {
    let open = attempt::doubts(BATCH)?;
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let codes: Vec<String> = open.iter().map(|run| run.code.clone()).collect();
    let session = Session::open(extension, Some(&codes))?;
    let (mut inquiries, mut mute) = (Vec::new(), Vec::new());
    for run in open {
        match inquiry(&session, &run) {
            Some(inquiry) => inquiries.push(inquiry),
            None => mute.push(run.run_id),
        }
    }
    // An hour later somebody may have set a status_path; fn_dot_resolve does not wait for it.
    attempt::ask_later(&mute, Some(3_600_000))?;
    Ok(inquiries)
}

fn inquiry(session: &Session, run: &Open) -> Option<Inquiry> {
    if !recover::is_permitted(session, run) {
        return None;
    }
    let findings = recover::form(session, run);
    let (policy, request) = (findings.policy?, findings.request?);
    let endpoint = session.config.endpoints.iter().find(|e| Some(&e.name) == policy.endpoint.as_ref())?;
    let accepted = run.status_url.as_deref().and_then(|url| Url::parse(url).ok());
    let url = match (&accepted, render::status_url(endpoint, run.run_id)) {
        (_, Some(url)) => url,
        (Some(url), None) => url.clone(),
        (None, None) => return None,
    };
    let delivery = Delivery {
        run_id: run.run_id,
        attempt: run.attempt,
        code: run.code.clone(),
        key: None,
        terms: recover::terms(run, policy),
        request,
        egress: Arc::clone(&session.config.egress),
    };
    Some(Inquiry { delivery, url, accepted: run.was_accepted, is_over: run.left_ms <= 0.0 })
}

/// Records what agents said.
///
/// # Errors
/// XX000 only.
pub fn learned(list: &[(Inquiry, Finding)]) -> Result<(), DotError> {
    // What somebody has locked is asked about again.
    let busy = queue::busy(&list.iter().map(|(inquiry, _)| inquiry.delivery.run_id).collect::<Vec<_>>())?;
    let moves: Vec<Move> = list.iter().filter_map(|(inquiry, finding)| resolved(inquiry, finding)).collect();
    let moves: Vec<Move> = moves.into_iter().filter(|step| !busy.contains(&step.run_id)).collect();
    let moved = transition::apply(RunStatus::InDoubt, None, &moves)?;
    for (inquiry, finding) in list {
        if let Finding::Running(Some(wait)) = finding {
            attempt::ask_later(&[inquiry.delivery.run_id], i64::try_from(wait.as_millis()).ok())?;
        }
    }
    settle::release(&moved)
}

fn window(policy: &Policy) -> Duration {
    Duration::from_secs(u64::try_from(policy.key_window_s).unwrap_or(0))
}

fn resolved(inquiry: &Inquiry, finding: &Finding) -> Option<Move> {
    let (delivery, terms) = (&inquiry.delivery, &inquiry.delivery.terms);
    let from = |cause| next(terms.mode, Some(RunStatus::InDoubt), cause);
    let plain = |to, reason: &str, message: &str| Move {
        fencing_token: terms.fencing_token,
        detail: json!({"reason": reason, "message": message, "resolved_by": "agent"}),
        ..Move::new(delivery.run_id, delivery.attempt, to, reason, message)
    };
    match finding {
        Finding::Ended(answer) => {
            let succeeded = answer.verdict == Verdict::Succeeded;
            let to = from(if succeeded { Cause::Succeeded } else { Cause::Failed })?;
            let mut detail = answer.to_detail();
            detail["resolved_by"] = json!("agent");
            Some(Move {
                reason: (!succeeded).then(|| answer.reason.clone()),
                message: (!succeeded).then(|| answer.message.clone()),
                result: answer.result.clone(),
                observations: answer.observations.clone(),
                detail,
                ..plain(to, "", "")
            })
        }
        Finding::NeverSeen if inquiry.accepted || !inquiry.is_over => None,
        // An agent may forget a key when its window is over; then it says the same.
        Finding::NeverSeen if terms.key_age + terms.read_at.elapsed() >= window(&terms.policy) => None,
        Finding::NeverSeen if terms.withdrawn => {
            Some(plain(from(Cause::Failed)?, retry::CANCELLED, "the agent has never seen it, and never will"))
        }
        Finding::NeverSeen if i64::from(delivery.attempt) < terms.policy.max_attempts => Some(Move {
            wait_ms: Some(0),
            past: Some(Past::Untaken),
            ..plain(from(Cause::Requeued)?, "never_seen", "the agent has never seen it; it is sent again")
        }),
        Finding::NeverSeen => Some(plain(from(Cause::Failed)?, "never_seen", "the agent has never seen it")),
        Finding::Running(_) | Finding::Nothing => None,
    }
}

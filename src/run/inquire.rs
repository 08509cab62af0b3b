//! Runs in doubt: their agents are asked what became of the key, and what they say resolves them.

use std::sync::Arc;

use serde_json::json;
use url::Url;

use super::claim::Delivery;
use super::recover;
use super::session::Session;
use super::settle;
use crate::domain::doubt::{self, Doubt, Finding, Resolution};
use crate::domain::error::DotError;
use crate::domain::render;
use crate::domain::retry::Past;
use crate::domain::state::{Cause, RunStatus, next};
use crate::pg;
use crate::store::attempt::{self, Open};
use crate::store::extension::{self, Extension};
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

/// Takes the runs in doubt that it is time to ask about; none in a database that may not execute.
///
/// # Errors
/// XX000 and 55000 only.
pub fn due(extension: &Extension) -> Result<Vec<Inquiry>, DotError> {
    if !extension::instance(pg::session::system_identifier())?.is_here {
        return Ok(Vec::new());
    }
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
    let endpoint = session.config.endpoints().iter().find(|e| Some(&e.name) == policy.endpoint.as_ref())?;
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
        egress: Arc::clone(session.config.egress()),
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
        if let Finding::Running { retry_after: Some(wait) } = finding {
            attempt::ask_later(&[inquiry.delivery.run_id], i64::try_from(wait.as_millis()).ok())?;
        }
    }
    settle::release(&moved)
}

fn resolved(inquiry: &Inquiry, finding: &Finding) -> Option<Move> {
    let (delivery, terms) = (&inquiry.delivery, &inquiry.delivery.terms);
    let doubt = Doubt {
        policy: &terms.policy,
        attempts: delivery.attempt,
        key_age: terms.key_age + terms.read_at.elapsed(),
        withdrawn: terms.withdrawn,
        accepted: inquiry.accepted,
        is_over: inquiry.is_over,
    };
    let from = |cause| next(terms.mode, Some(RunStatus::InDoubt), cause);
    let step = |to, reason: &str, message: &str| Move {
        fencing_token: terms.fencing_token,
        detail: json!({"reason": reason, "message": message, "resolved_by": "agent"}),
        ..Move::new(delivery.run_id, delivery.attempt, to, reason, message)
    };
    match (doubt::resolve(&doubt, finding), finding) {
        (Resolution::Told(cause), Finding::Ended(answer)) => {
            let explained = cause != Cause::Succeeded;
            let mut detail = answer.to_detail();
            detail["resolved_by"] = json!("agent");
            Some(Move {
                reason: explained.then(|| answer.reason.clone()),
                message: explained.then(|| answer.message.clone()),
                result: answer.result.clone(),
                observations: answer.observations.clone(),
                detail,
                ..step(from(cause)?, "", "")
            })
        }
        (Resolution::Untouched { cause, reason, message }, _) => {
            let again = cause == Cause::Requeued;
            Some(Move {
                wait_ms: again.then_some(0),
                past: again.then_some(Past::Untaken),
                ..step(from(cause)?, reason, message)
            })
        }
        _ => None,
    }
}

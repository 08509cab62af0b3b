//! What a dead worker left: runs whose intent is on disk and whose end is not.
//!
//! Called only by the worker that holds the database's worker lock, which proves that nobody else is on these calls;
//! elapsed time is never taken as proof. What the agent had accepted is asked about; of the rest nobody knows whether it
//! was sent, and `retry` says what that means.

use std::sync::Arc;
use std::time::Instant;

use url::Url;
use uuid::Uuid;

use super::claim::Delivery;
use super::gates::{self, Disk, Findings, Question};
use super::second_gate;
use super::session::Session;
use super::settle::{self, Outcome, Terms};
use crate::domain::answer::{Answer, Reach};
use crate::domain::error::DotError;
use crate::domain::permit::{self, Claims};
use crate::domain::policy::Policy;
use crate::pg::fail_point::{self, Point};
use crate::pg::user;
use crate::store::attempt::{self, Open};
use crate::store::extension::{self, Extension};

/// Orphans handled in one transaction.
const BATCH: i64 = 200;

/// What recovery came to.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Deliveries that the agent had accepted: they are asked about, not sent again.
    pub resumed: Vec<(Delivery, Url)>,
    /// Runs of which nobody knows whether they were sent.
    pub lost: usize,
    /// True when there may be more.
    pub more: bool,
}

/// Which of them to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// A batch.
    All,
    /// This one.
    Only(Uuid),
}

/// Takes over one batch.
///
/// # Errors
/// XX000 and 55000 only.
pub fn recover(extension: &Extension, worker: Uuid, which: Orphans) -> Result<Recovered, DotError> {
    // A copy is left as it is until somebody resumes it: a restore may still be under way.
    if !extension::instance(crate::pg::session::system_identifier())?.is_here {
        return Ok(Recovered::default());
    }
    let orphans = match which {
        Orphans::All => attempt::orphans(worker, BATCH)?,
        Orphans::Only(run_id) => attempt::orphan(worker, run_id)?,
    };
    if orphans.is_empty() {
        return Ok(Recovered::default());
    }
    let more = orphans.len() as i64 == BATCH;
    attempt::adopt(worker, &orphans.iter().map(|orphan| orphan.run_id).collect::<Vec<_>>())?;
    let codes: Vec<String> = orphans.iter().map(|orphan| orphan.code.clone()).collect();
    let session = Session::open(extension, Some(&codes))?;
    let (mut resumed, mut lost) = (Vec::new(), Vec::new());
    for orphan in orphans {
        let findings = form(&session, &orphan);
        match resume(&session, &orphan, &findings) {
            Some(delivery) => resumed.push(delivery),
            None => lost.push(interrupted(&orphan, &findings)),
        }
    }
    // Locked by this very transaction, and so by nobody else.
    settle::settle(worker, &lost)?;
    fail_point::each(Point::RecoverBeforeCommit, codes.iter().map(String::as_str));
    Ok(Recovered { resumed, lost: lost.len(), more })
}

/// The request of an open attempt as it would be formed now. Asked about, not sent: what has changed since does not matter,
/// except to egress, which the engine checks.
pub(super) fn form(session: &Session, open: &Open) -> Findings {
    let question = Question {
        code: &open.code,
        mode: open.mode,
        args: &open.args,
        run_id: open.run_id,
        process_run_id: open.process_run_id,
        disk: Disk::Later(None),
    };
    gates::form(session, &question, true)
}

/// True when the run came through `fn_dot_run` in this database.
pub(super) fn is_permitted(session: &Session, open: &Open) -> bool {
    let claims = Claims {
        run_id: open.run_id,
        process_run_id: open.process_run_id,
        code: &open.code,
        mode: open.mode,
        args: &open.args,
        requested_by: open.requested_by_oid.to_u32(),
        lease_key: open.lease_key.as_deref(),
        source: open.source,
        decided: open.decided.as_deref(),
    };
    session.instance.is_here && permit::verify(&session.instance.permit_key, &claims, &open.permit)
}

/// What the end of an open attempt is judged by.
pub(super) fn terms(open: &Open, policy: Policy) -> Terms {
    Terms {
        mode: open.mode,
        fencing_token: open.fencing_token,
        lease_key: open.lease_key.clone(),
        policy: Arc::new(policy),
        past: open.past,
        withdrawn: open.withdrawn,
        age: open.age,
        key_age: open.key_age,
        read_at: Instant::now(),
    }
}

/// The delivery that asks the agent, when it said 202, there is time left, and the run is permitted here.
fn resume(session: &Session, orphan: &Open, findings: &Findings) -> Option<(Delivery, Url)> {
    let url = Url::parse(orphan.status_url.as_deref()?).ok()?;
    if orphan.left_ms < 1.0 || !is_permitted(session, orphan) {
        return None;
    }
    let (mut policy, request) = (findings.policy.clone()?, findings.request.clone()?);
    #[allow(clippy::cast_possible_truncation)] // bounded by the policy's own range
    let left_ms = orphan.left_ms as i64;
    policy.total_timeout_ms = left_ms.clamp(1, policy.total_timeout_ms);
    let delivery = Delivery {
        run_id: orphan.run_id,
        attempt: orphan.attempt,
        code: orphan.code.clone(),
        key: second_gate::in_flight_key(
            &policy,
            &orphan.code,
            &orphan.args,
            &user::name_of(orphan.requested_by_oid),
            orphan.lease_key.as_deref(),
        ),
        terms: terms(orphan, policy),
        request,
        egress: Arc::clone(session.config.egress()),
    };
    Some((delivery, url))
}

/// A tool that is not in the catalogue any more has promised nothing.
fn interrupted(orphan: &Open, findings: &Findings) -> Outcome {
    Outcome {
        run_id: orphan.run_id,
        attempt: orphan.attempt,
        terms: terms(orphan, findings.policy.clone().unwrap_or_else(Policy::cautious)),
        answer: Answer::failure(
            Reach::Sent,
            "worker_lost",
            "the worker ended after the intent was recorded; whether the request was sent is not known",
        ),
        retry_after: None,
    }
}

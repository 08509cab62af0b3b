//! What a dead worker left: runs whose intent is on disk and whose end is not.
//!
//! Called only by the worker that holds the database's worker lock, which proves that nobody else is on these calls;
//! elapsed time is never taken as proof.

use std::sync::Arc;

use uuid::Uuid;

use super::claim::Delivery;
use super::gates::{self, Question};
use super::session::Session;
use super::settle::{self, Outcome};
use crate::domain::answer::{Answer, Reach};
use crate::domain::error::DotError;
use crate::domain::permit::{self, Claims};
use crate::pg::fail_point::{self, Point};
use crate::store::attempt::{self, Orphan};
use crate::store::extension::{self, Extension};

/// Orphans handled in one transaction.
const BATCH: i64 = 200;

/// What recovery came to.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Deliveries that the agent had accepted: they are asked about, not sent again.
    pub resumed: Vec<(Delivery, String)>,
    /// Runs whose outcome nobody knows.
    pub doubted: usize,
    /// True when there may be more.
    pub more: bool,
}

/// Takes over one batch.
///
/// # Errors
/// XX000 and 55000 only.
pub fn recover(extension: &Extension, worker: Uuid) -> Result<Recovered, DotError> {
    // A copy is left as it is until somebody resumes it: a restore may still be under way.
    if !extension::instance(crate::pg::session::system_identifier())?.is_here {
        return Ok(Recovered::default());
    }
    let orphans = attempt::orphans(worker, BATCH)?;
    if orphans.is_empty() {
        return Ok(Recovered::default());
    }
    let more = orphans.len() as i64 == BATCH;
    attempt::adopt(worker, &orphans.iter().map(|orphan| orphan.run_id).collect::<Vec<_>>())?;
    let codes: Vec<String> = orphans.iter().map(|orphan| orphan.code.clone()).collect();
    let session = Session::open(extension, Some(&codes))?;
    let (mut resumed, mut lost) = (Vec::new(), Vec::new());
    for orphan in orphans {
        match resume(&session, &orphan) {
            Some(delivery) => resumed.push(delivery),
            None => lost.push(interrupted(&orphan)),
        }
    }
    settle::settle(worker, &lost)?;
    fail_point::each(Point::RecoverBeforeCommit, codes.iter().map(String::as_str));
    Ok(Recovered { resumed, doubted: lost.len(), more })
}

/// The delivery that asks the agent, when it said 202, there is time left, and the run is permitted here.
fn resume(session: &Session, orphan: &Orphan) -> Option<(Delivery, String)> {
    let url = orphan.status_url.clone()?;
    let claims = Claims {
        run_id: orphan.run_id,
        process_run_id: orphan.process_run_id,
        code: &orphan.code,
        mode: orphan.mode,
        args: &orphan.args,
        requested_by: orphan.requested_by_oid.to_u32(),
        lease_key: orphan.lease_key.as_deref(),
    };
    let permitted = session.instance.is_here && permit::verify(&session.instance.permit_key, &claims, &orphan.permit);
    if !permitted || orphan.left_ms < 1.0 {
        return None;
    }
    let question = Question {
        code: &orphan.code,
        mode: orphan.mode,
        args: &orphan.args,
        run_id: orphan.run_id,
        process_run_id: orphan.process_run_id,
    };
    // Asked about, not sent: what has changed since does not matter, except to egress, which the engine checks.
    let findings = gates::form(session, &question, true);
    let (mut policy, request) = (findings.policy?, findings.request?);
    #[allow(clippy::cast_possible_truncation)] // bounded by the policy's own range
    let left_ms = orphan.left_ms as i64;
    policy.total_timeout_ms = left_ms.clamp(1, policy.total_timeout_ms);
    let delivery = Delivery {
        run_id: orphan.run_id,
        attempt: orphan.attempt,
        mode: orphan.mode,
        code: orphan.code.clone(),
        fencing_token: orphan.fencing_token,
        request,
        policy,
        egress: Arc::clone(&session.config.egress),
    };
    Some((delivery, url))
}

fn interrupted(orphan: &Orphan) -> Outcome {
    Outcome {
        run_id: orphan.run_id,
        attempt: orphan.attempt,
        mode: orphan.mode,
        fencing_token: orphan.fencing_token,
        answer: Answer::failure(
            Reach::Sent,
            "worker_lost",
            "the worker ended after the intent was recorded; whether the request was sent is not known",
        ),
    }
}

//! Keeping leases while runs are not over, and letting them go afterwards.

use std::collections::HashMap;

use serde_json::json;
use uuid::Uuid;

use crate::domain::decide::{self, PortAnswer};
use crate::domain::error::DotError;
use crate::domain::gate::Decision;
use crate::domain::lease;
use crate::pg::xact;
use crate::store::event::{self, Remark};
use crate::store::grant::{self, Grant};
use crate::store::port::{self, Ports};

/// Grants handled in one transaction.
const BATCH: i64 = 200;
/// Leases asked for in one statement. The functions have three seconds for it: see `store::port`.
const TOGETHER: usize = 100;

/// A lease to be held for a run.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// The key.
    pub key: &'a str,
    /// The run.
    pub run_id: Uuid,
    /// Seconds.
    pub ttl_s: i64,
}

/// Renews the leases of these runs in one statement, and prolongs their grants in another: by run, what the lease gate says and
/// the token in force. A run that is not among them has to be asked about by itself: its grant has run out, somebody has it
/// locked, or the functions did not answer for all of them at once.
///
/// # Errors
/// XX000 only.
pub fn hold_all(ports: &Ports, holds: &[Hold<'_>]) -> Result<HashMap<Uuid, (Decision, Option<i64>)>, DotError> {
    let mut held = HashMap::with_capacity(holds.len());
    for part in holds.chunks(TOGETHER) {
        let holders: Vec<String> = part.iter().map(|hold| lease::holder(hold.run_id)).collect();
        let asked: Vec<_> = part.iter().zip(&holders).map(|(hold, by)| (hold.key, by.as_str(), hold.ttl_s)).collect();
        let Some(answers) = ports.acquire_all(&asked) else { return Ok(held) };
        let decisions = part
            .iter()
            .zip(answers)
            .map(|(hold, answer)| (hold, decide::lease(Some(hold.key), Some(&PortAnswer::Value(answer)))));
        let (refused, taken): (Vec<_>, Vec<_>) = decisions.partition(|(_, decision)| decision.blocks());
        held.extend(refused.into_iter().map(|(hold, decision)| (hold.run_id, (decision, None))));
        let grants: Vec<_> = taken.iter().map(|(hold, _)| (hold.key, hold.run_id, hold.ttl_s)).collect();
        let tokens = match xact::subtransaction(|| grant::prolong_all(&grants)) {
            Ok(tokens) => tokens?,
            Err(caught) if caught.is_lock_timeout() => return Ok(held),
            Err(caught) => caught.raise(),
        };
        for (hold, decision) in taken {
            if let Some(token) = tokens.get(&hold.run_id) {
                held.insert(hold.run_id, (decision, Some(*token)));
            }
        }
    }
    Ok(held)
}

/// Lets the leases of finished runs go. Where the substrate does not answer, the grant stays and it is tried again; the
/// lease runs out by itself in any case.
///
/// # Errors
/// XX000 only.
pub fn release_all(ports: &Ports, held: &[(&str, Uuid)]) -> Result<(), DotError> {
    for part in held.chunks(TOGETHER) {
        let holders: Vec<String> = part.iter().map(|(_, run_id)| lease::holder(*run_id)).collect();
        let asked: Vec<_> = part.iter().zip(&holders).map(|((key, _), by)| (*key, by.as_str())).collect();
        if part.len() > 1 && ports.release_all(&asked) {
            grant::forget_all(part)?;
            continue;
        }
        for (key, run_id) in part {
            release(ports, key, *run_id)?;
        }
    }
    Ok(())
}

fn release(ports: &Ports, key: &str, run_id: Uuid) -> Result<(), DotError> {
    match ports.release(key, &lease::holder(run_id)) {
        PortAnswer::Value(_) => grant::forget_all(&[(key, run_id)]),
        failed => {
            pgrx::log!("dot_wrapper: lease {key:?} of run {run_id} is not released yet: {}", describe(&failed));
            grant::later(key, run_id)
        }
    }
}

/// Makes sure, before what these runs' agents say is believed, that no lease has gone to somebody else after it ran out:
/// a worker that was stopped, or whose clock stepped, learns of it here. Asks the substrate only where one has run out.
///
/// # Errors
/// XX000 only.
pub fn confirm(run_ids: &[Uuid]) -> Result<(), DotError> {
    let lapsed = grant::lapsed(run_ids)?;
    if lapsed.is_empty() {
        return Ok(());
    }
    let ports = port::load()?;
    let mut lost = Vec::new();
    for grant in &lapsed {
        if !renew_one(&ports, grant)? {
            lost.push(lease_lost(grant));
        }
    }
    event::remark(&lost)
}

fn lease_lost(grant: &Grant) -> Remark {
    let detail = json!({"lease_key": grant.key});
    Remark { run_id: grant.run_id, attempt: None, event: "lease_lost", detail }
}

/// Renews what is due and releases what is owed, from `from` on (see [`grant::next_due`]). True when there is more to do at once.
///
/// # Errors
/// XX000 only.
pub fn tend(ports: &Ports, from: f64) -> Result<bool, DotError> {
    let (due, more) = grant::due(BATCH, from)?;
    let (owed, renew): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, is_over)| *is_over);
    let mut lost = Vec::new();
    for (grant, _) in &renew {
        if !renew_one(ports, grant)? {
            lost.push(lease_lost(grant));
        }
    }
    event::remark(&lost)?;
    release_all(ports, &owed.iter().map(|(grant, _)| (grant.key.as_str(), grant.run_id)).collect::<Vec<_>>())?;
    Ok(more)
}

/// False when somebody else holds the lease: the grant is forgotten, so that the run cannot end as if it had held it.
fn renew_one(ports: &Ports, grant: &Grant) -> Result<bool, DotError> {
    let answer = ports.acquire(&grant.key, &lease::holder(grant.run_id), i64::from(grant.ttl_s));
    match &answer {
        PortAnswer::Value(_) if !decide::lease(Some(&grant.key), Some(&answer)).blocks() => {
            grant::revive(grant)?;
            Ok(true)
        }
        PortAnswer::Value(_) => {
            pgrx::warning!("dot_wrapper: run {} has lost its lease {:?}", grant.run_id, grant.key);
            grant::forget_all(&[(grant.key.as_str(), grant.run_id)])?;
            Ok(false)
        }
        failed => {
            pgrx::log!(
                "dot_wrapper: lease {:?} of run {} is not renewed yet: {}",
                grant.key,
                grant.run_id,
                describe(failed)
            );
            grant::later(&grant.key, grant.run_id)?;
            Ok(true)
        }
    }
}

fn describe(answer: &PortAnswer) -> String {
    match answer {
        PortAnswer::Unbound(why) => why.clone(),
        PortAnswer::Failed { sqlstate, message } => format!("{sqlstate} {}", decide::one_line(message)),
        PortAnswer::Value(value) => value.to_string(),
    }
}

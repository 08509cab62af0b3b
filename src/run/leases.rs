//! Keeping leases while runs are not over, and letting them go afterwards.

use serde_json::json;
use uuid::Uuid;

use crate::domain::decide::{self, PortAnswer};
use crate::domain::error::DotError;
use crate::domain::lease;
use crate::store::event::{self, Remark};
use crate::store::grant::{self, Grant};
use crate::store::port::{self, Ports};

/// Grants handled in one transaction.
const BATCH: i64 = 200;

/// Lets a finished run's lease go. When the substrate does not answer, the grant stays and it is tried again; the lease
/// runs out by itself in any case.
///
/// # Errors
/// XX000 only.
pub fn release(ports: &Ports, key: &str, run_id: Uuid) -> Result<(), DotError> {
    match ports.release(key, &lease::holder(run_id)) {
        PortAnswer::Value(_) => grant::forget(key, run_id),
        failed => {
            pgrx::log!("dot_wrapper: lease {key:?} of run {run_id} is not released yet: {}", describe(&failed));
            Ok(())
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

/// Renews what is due and releases what is owed. True when there is more to do at once.
///
/// # Errors
/// XX000 only.
pub fn tend(ports: &Ports) -> Result<bool, DotError> {
    let (renew, owed) = (grant::to_renew(BATCH)?, grant::to_release(BATCH)?);
    let more = renew.len() as i64 == BATCH;
    let mut lost = Vec::new();
    for grant in &renew {
        if !renew_one(ports, grant)? {
            lost.push(lease_lost(grant));
        }
    }
    event::remark(&lost)?;
    for grant in &owed {
        release(ports, &grant.key, grant.run_id)?;
    }
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
            grant::forget(&grant.key, grant.run_id)?;
            Ok(false)
        }
        failed => {
            pgrx::log!(
                "dot_wrapper: lease {:?} of run {} is not renewed yet: {}",
                grant.key,
                grant.run_id,
                describe(failed)
            );
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

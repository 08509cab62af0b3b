//! `fn_dot_verify`: whether ledger and seals are what they were, and `fn_dot_seal_head`: what to keep elsewhere to be
//! sure of it.

use uuid::Uuid;

use super::wait::may_see;
use crate::domain::canonical::hex;
use crate::domain::error::{DotError, SqlState};
use crate::domain::seal::chain::{Break, DIGEST, Head, Walk, key_id};
use crate::domain::seal::{EventFacts, is_marked, steps};
use crate::pg::{session, user};
use crate::store::chain as links;
use crate::store::extension::{self, Extension, Instance};
use crate::store::verify::{self, Finding, MOST, Open, Scope, Totals};

/// Seals and open events are read so many at a time.
const CHUNK: i64 = 5000;
/// Events are sealed within seconds; what is older than this is told.
const OPEN_FOR_S: i64 = 600;
/// Verdicts that ask for a look and accuse nobody.
const MILD: [&str; 2] = ["unknown_origin", "unsealed"];

/// A seal that was kept elsewhere.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// Its number.
    pub seal_id: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

impl Anchor {
    /// From the arguments: both or none.
    ///
    /// # Errors
    /// 22023 for one without the other, and for a hash that is none.
    pub fn parse(seal_id: Option<i64>, hash: Option<Vec<u8>>) -> Result<Option<Anchor>, DotError> {
        let wrong = |why: &str| Err(DotError::new(SqlState::InvalidParameterValue, why));
        match (seal_id, hash) {
            (None, None) => Ok(None),
            (Some(seal_id), Some(hash)) if seal_id >= 1 && hash.len() == DIGEST => Ok(Some(Anchor { seal_id, hash })),
            (Some(_), Some(_)) => wrong("an anchor is the number of a seal and its hash of 32 bytes"),
            _ => wrong("anchor_seal and anchor_hash go together"),
        }
    }
}

/// Verifies a process run, or with `None` the whole ledger. The first finding is the summary.
///
/// # Errors
/// 42501 for the whole ledger and a caller who may not read all of it, 42704 for a process run of which he may see
/// nothing, 22023 for an anchor and a process run.
pub fn verify(process_run_id: Option<Uuid>, anchor: Option<Anchor>) -> Result<Vec<Finding>, DotError> {
    let caller = user::current();
    let extension = extension::current()?;
    let reads_all = reads_all(caller, &extension);
    if process_run_id.is_some() && anchor.is_some() {
        return Err(DotError::new(SqlState::InvalidParameterValue, "an anchor is for the whole ledger")
            .hint("Leave process_run_id out."));
    }
    if process_run_id.is_none() && !reads_all {
        return Err(all_only("verify the whole ledger").hint("Pass the process_run_id of runs of yours."));
    }
    extension::as_owner(&extension, || {
        let scope = match process_run_id {
            None => Scope::Ledger,
            Some(id) => Scope::Runs { process_run_id: id, run_ids: runs_to_see(id, caller, reads_all)? },
        };
        // Without a key no mark says anything; the seals still do.
        let instance = extension::instance(session::system_identifier())
            .unwrap_or_else(|_| Instance { is_here: false, permit_key: Vec::new() });
        let compared = verify::compare(&scope, steps())?;
        let (mut findings, totals) = (compared.findings, compared.totals);
        findings.extend(open_events(&totals, &instance)?);
        match scope {
            Scope::Ledger => findings.extend(chain(&totals, &instance, anchor.as_ref())?),
            Scope::Runs { .. } => findings.extend(links::loose(&scope, totals.newest)?),
        }
        findings.extend(waiting(&totals));
        findings.insert(0, summary(process_run_id.is_none(), &totals, &findings));
        Ok(findings)
    })
}

/// The newest seal: number, hash, and when it was made. `None` when nothing is sealed.
///
/// # Errors
/// 42501 for callers who may not read the whole ledger: how it grows is nobody else's business.
pub fn head() -> Result<Option<(i64, Vec<u8>, pgrx::datum::TimestampWithTimeZone)>, DotError> {
    let extension = extension::current()?;
    if !reads_all(user::current(), &extension) {
        return Err(all_only("see the newest seal"));
    }
    extension::as_owner(&extension, links::newest)
}

fn reads_all(caller: pgrx::pg_sys::Oid, extension: &Extension) -> bool {
    user::has_privileges_of(caller, extension.owner)
        || user::has_privileges_of(caller, pgrx::pg_sys::ROLE_PG_READ_ALL_DATA.into())
}

fn all_only(what: &str) -> DotError {
    DotError::new(SqlState::InsufficientPrivilege, format!("permission denied to {what}"))
        .detail("That is for the owner of dot_wrapper and for members of pg_read_all_data.")
}

/// The runs that the caller may see. Who may see all that are left is told of those that are gone.
fn runs_to_see(process_run_id: Uuid, caller: pgrx::pg_sys::Oid, reads_all: bool) -> Result<Vec<Uuid>, DotError> {
    let (left, gone): (Vec<_>, Vec<_>) = verify::runs_of(process_run_id)?.into_iter().partition(|run| run.by.is_some());
    let seen: Vec<Uuid> = left
        .iter()
        .filter(|run| reads_all || run.by.as_ref().is_some_and(|by| may_see(caller, by)))
        .map(|run| run.run_id)
        .collect();
    let sees_gone = reads_all || (!seen.is_empty() && seen.len() == left.len());
    let gone = gone.into_iter().filter(|_| sees_gone).map(|run| run.run_id);
    let all: Vec<Uuid> = seen.into_iter().chain(gone).collect();
    if all.is_empty() {
        return Err(DotError::new(SqlState::UndefinedObject, format!("there is no process run {process_run_id}"))
            .detail("Either it has no runs, or they were requested by roles whose runs you may not see."));
    }
    Ok(all)
}

/// Events that no seal covers: they need the mark of this database, and a number that is yet to be sealed.
fn open_events(totals: &Totals, instance: &Instance) -> Result<Vec<Finding>, DotError> {
    let key = &instance.permit_key;
    let head = totals.head.as_ref().map_or_else(Head::genesis, verify::HeadRow::head);
    let is_foreign =
        |event: &Open| !instance.is_here || head.key_id != key_id(key) || event.event_id <= head.foreign_to;
    let mut findings = Vec::new();
    for ids in totals.open.chunks(CHUNK as usize) {
        for event in verify::events(ids)? {
            let (verdict, detail) = if is_marked(key, &facts(&event), event.mark.as_deref()) {
                if event.event_id > head.low {
                    continue;
                }
                ("inserted", "no seal covers it, although the sealing has come past it")
            } else if is_foreign(&event) {
                ("unknown_origin", "it has no mark of this database, as what was not sealed before a restore")
            } else {
                ("inserted", "it did not come through dot_wrapper; not sealed yet")
            };
            findings.push(finding("event", Some(event.run_id), Some(event.event_id), verdict, detail));
        }
    }
    findings.truncate(MOST as usize);
    Ok(findings)
}

fn facts(event: &Open) -> EventFacts<'_> {
    EventFacts {
        run_id: event.run_id,
        event: &event.event,
        attempt: event.attempt,
        from_status: event.from_status.as_deref(),
        to_status: event.to_status.as_deref(),
        detail: &event.detail,
    }
}

/// All seals, one after the other, and what stands at their end.
fn chain(totals: &Totals, instance: &Instance, anchor: Option<&Anchor>) -> Result<Vec<Finding>, DotError> {
    let mut walk = Walk::default();
    let mut findings = Vec::new();
    let mut anchored = None;
    loop {
        let next = links::after(walk.last(), totals.newest, CHUNK)?;
        for link in &next {
            for found in walk.step(link) {
                findings.push(broken(link.seal_id, link.run_id, found));
            }
            if anchor.is_some_and(|anchor| anchor.seal_id == link.seal_id) {
                anchored = Some(link.hash.clone());
            }
        }
        if next.is_empty() {
            break;
        }
    }
    findings.truncate(MOST as usize);
    findings.extend(head_row(totals, &walk, instance));
    if let Some(anchor) = anchor {
        let end = |verdict, detail: &str| finding("anchor", None, Some(anchor.seal_id), verdict, detail);
        match anchored {
            None => findings.push(end("removed", "there is no such seal")),
            Some(hash) if hash != anchor.hash => findings.push(end("changed", "that seal has another hash")),
            Some(_) => {}
        }
    }
    Ok(findings)
}

fn broken(seal_id: i64, run_id: Uuid, found: Break) -> Finding {
    match found {
        Break::Missing(first) if first == seal_id - 1 => {
            finding("seal", None, Some(first), "removed", "it is not there")
        }
        Break::Missing(first) => {
            finding("seal", None, Some(first), "removed", &format!("it and those up to {} are not there", seal_id - 1))
        }
        Break::Changed => finding("seal", Some(run_id), Some(seal_id), "changed", "its hash is another"),
        Break::Loose => {
            finding("seal", Some(run_id), Some(seal_id), "chain_broken", "it does not follow on the one before it")
        }
    }
}

/// The second record of the newest seal.
fn head_row(totals: &Totals, walk: &Walk, instance: &Instance) -> Vec<Finding> {
    let end = |item, verdict, detail: &str| vec![finding("head", None, Some(item), verdict, detail)];
    let Some(row) = &totals.head else {
        return if walk.last() == 0 { Vec::new() } else { end(walk.last(), "removed", "the row of seal_head is gone") };
    };
    let head = row.head();
    let is_own_key = head.key_id == key_id(&instance.permit_key);
    if head.seal_id > walk.last() {
        end(walk.last() + 1, "removed", &format!("seals up to {} were made and are not there", head.seal_id))
    } else if head.seal_id < walk.last() {
        end(head.seal_id + 1, "inserted", "the sealing has not come so far")
    } else if head.seal_id > 0 && head.hash != walk.hash() {
        end(head.seal_id, "changed", "the newest seal and the row of seal_head have different hashes")
    } else if is_own_key && row.mark() != head.mark(&instance.permit_key) {
        end(head.seal_id, "changed", "the row of seal_head was not written by the worker")
    } else if instance.is_here && !is_own_key {
        end(head.seal_id, "unknown_origin", "the row of seal_head was written under another key, as before a restore")
    } else {
        Vec::new()
    }
}

fn waiting(totals: &Totals) -> Option<Finding> {
    let oldest = totals.oldest_open_s.filter(|age| *age > OPEN_FOR_S)?;
    let n = totals.open.len();
    let detail =
        format!("{n} events are not sealed, the oldest for {oldest} s; fn_dot_doctor() tells whether a worker runs");
    Some(finding("event", None, None, "unsealed", &detail))
}

fn summary(is_ledger: bool, totals: &Totals, findings: &[Finding]) -> Finding {
    let Totals { runs, events, attempts, seals, .. } = totals;
    let mut detail = format!("runs: {runs}, events: {events}, attempts: {attempts}, seals: {seals}");
    if !totals.open.is_empty() {
        detail += &format!("; events not sealed yet: {}", totals.open.len());
    }
    if !findings.is_empty() {
        detail += &format!("; findings: {}", findings.len());
    }
    if let Some(head) = totals.head.as_ref().filter(|_| is_ledger).map(verify::HeadRow::head) {
        detail += &format!("; the newest seal is {} with hash {}", head.seal_id, hex(&head.hash));
    }
    let verdict = if findings.is_empty() {
        "OK"
    } else if findings.iter().all(|finding| MILD.contains(&finding.verdict.as_str())) {
        "WARN"
    } else {
        "BROKEN"
    };
    finding(if is_ledger { "ledger" } else { "process_run" }, None, None, verdict, &detail)
}

fn finding(kind: &'static str, run_id: Option<Uuid>, item: Option<i64>, verdict: &str, detail: &str) -> Finding {
    Finding { kind, run_id, item, verdict: verdict.to_owned(), detail: detail.to_owned() }
}

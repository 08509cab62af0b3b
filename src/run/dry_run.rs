//! `fn_dot_dry_run_report`: a verdict on each tool that a process run planned and verified, held against an earlier one.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::wait_all::shares;
use crate::domain::dry_run::{Change, Outcome, Tried, compare};
use crate::domain::error::{DotError, SqlState};
use crate::domain::mode::Mode;
use crate::pg::object::Use;
use crate::pg::user;
use crate::store::extension::{self, Extension};
use crate::store::{catalogue, process_run};

/// One tool of the report.
#[derive(Clone, Debug)]
pub struct Line {
    /// How it stands; `None` for a tool that only the baseline has.
    pub now: Option<Outcome>,
    /// How it stood.
    pub before: Option<Outcome>,
    /// Its name in the catalogue of today.
    pub name: Option<String>,
    /// The verdict in one line.
    pub why: Option<String>,
    /// Against the baseline; `None` without one.
    pub change: Option<Change>,
}

/// What to compare with.
#[derive(Clone, Debug)]
pub enum Baseline {
    /// Nothing.
    None,
    /// Another process run of this ledger.
    Run(Uuid),
    /// A report that was kept.
    Kept(Vec<Outcome>),
}

impl Baseline {
    /// From the arguments.
    ///
    /// # Errors
    /// 22023 for both at once, and for a report that is none.
    pub fn parse(run: Option<Uuid>, report: Option<Value>) -> Result<Baseline, DotError> {
        let wrong = |why: &str| DotError::new(SqlState::InvalidParameterValue, why.to_owned());
        match (run, report) {
            (None, None) => Ok(Baseline::None),
            (Some(run), None) => Ok(Baseline::Run(run)),
            (Some(_), Some(_)) => {
                Err(wrong("baseline and baseline_report are two baselines").hint("Pass one of them."))
            }
            (None, Some(mut report)) => {
                let mut list = report.get_mut("tools").map(Value::take).unwrap_or(report);
                // Tools that were gone in that report, as against one before it, have no verdict.
                if let Value::Array(tools) = &mut list {
                    tools.retain(|tool| tool.get("verdict") != Some(&Value::Null));
                }
                let kept = serde_json::from_value(list).map_err(|e| {
                    wrong("baseline_report is no report")
                        .detail(e.to_string())
                        .hint("Pass what jsonb_agg(to_jsonb(r)) made of the rows of fn_dot_dry_run_report.")
                })?;
                Ok(Baseline::Kept(kept))
            }
        }
    }
}

/// The report, in the order of codes.
///
/// # Errors
/// 42704 for a process run, or a baseline, of which the caller may see nothing.
pub fn report(process_run_id: Uuid, baseline: Baseline) -> Result<Vec<Line>, DotError> {
    let caller = user::current();
    let extension = extension::current()?;
    let now = outcomes(&extension, caller, process_run_id)?;
    let before: Option<Vec<Outcome>> = match baseline {
        Baseline::None => None,
        Baseline::Run(run) => {
            Some(outcomes(&extension, caller, run)?.into_iter().map(|(outcome, _)| outcome).collect())
        }
        Baseline::Kept(kept) => Some(kept),
    };
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for (outcome, why) in now {
        let line = Line { now: Some(outcome.clone()), before: None, name: None, why: Some(why), change: None };
        lines.insert(outcome.code, line);
    }
    for outcome in before.iter().flatten() {
        let gone = || Line { now: None, before: None, name: None, why: None, change: None };
        lines.entry(outcome.code.clone()).or_insert_with(gone).before = Some(outcome.clone());
    }
    // Not of codes that the caller has merely written into a baseline.
    let asked = lines.iter().filter(|(_, line)| line.now.is_some()).map(|(code, _)| code.clone());
    let names = names(&extension, asked.collect());
    for (code, line) in &mut lines {
        line.name = names.get(code).cloned();
        line.change = before.as_ref().map(|_| compare(line.now.as_ref(), line.before.as_ref()));
    }
    Ok(lines.into_values().collect())
}

fn outcomes(
    extension: &Extension,
    caller: pgrx::pg_sys::Oid,
    process_run_id: Uuid,
) -> Result<Vec<(Outcome, String)>, DotError> {
    let roles: Vec<_> =
        shares(extension, caller, process_run_id)?.into_iter().map(|share| share.requested_by).collect();
    let looked = extension::as_owner(extension, || process_run::looked(process_run_id, &roles))?;
    let mut tools: BTreeMap<String, Tried> = BTreeMap::new();
    for run in looked {
        let tool = tools.entry(run.code).or_default();
        if run.mode == Mode::Plan {
            tool.plan = Some(run.seen);
            tool.fingerprint = run.fingerprint;
        } else {
            tool.verify = Some(run.seen);
        }
    }
    Ok(tools.into_iter().map(|(code, tried)| tried.outcome(code)).collect())
}

/// What the catalogue calls them, as far as it can be read.
fn names(extension: &Extension, codes: Vec<String>) -> HashMap<String, String> {
    extension::as_owner(extension, || {
        let found = catalogue::find(extension, Use::Read).and_then(|catalogue| catalogue.read(Some(&codes)).ok());
        found.map(|rows| rows.tools.into_iter().map(|tool| (tool.code, tool.name)).collect()).unwrap_or_default()
    })
}

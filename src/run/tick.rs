//! `fn_dot_tick`: the run of a schedule's latest tick, asked for like any other.

use super::request::{self, Requested, Requester, WorkerFacts};
use crate::domain::call::{Raw, shorten};
use crate::domain::cron::Cron;
use crate::domain::error::{DotError, SqlState};
use crate::domain::schedule::{Schedule, Trigger};
use crate::domain::tick::Tick;
use crate::domain::tool::Tool;
use crate::pg::clock::{self, Zone};
use crate::pg::object::Use;
use crate::pg::settings;
use crate::store::extension::{self, Extension};
use crate::store::{catalogue, schedule};

/// Asks for the run of the latest tick at or before now. The run of a tick is always the same: called again, this returns
/// the row that is there, unless that was a refusal.
///
/// # Errors
/// 22004 for a NULL code; 42501 when the caller may not call `fn_dot_run`; 55000 when the tool has no schedule that could
/// come due, or its trigger type says that none runs it; what [`request::one_via`] raises.
pub fn tick(code: Option<String>, worker: WorkerFacts) -> Result<Requested, DotError> {
    let code = code.ok_or_else(|| {
        DotError::new(SqlState::NullValueNotAllowed, "code must not be null")
            .hint("name a tool, for example 'DOT-KG-017'")
    })?;
    let requester = Requester::current();
    let extension = extension::for_writing()?;
    let (schedule, trigger) = extension::as_owner(&extension, || {
        requester.must_be_allowed(&extension, "fn_dot_tick")?;
        find(&extension, &code)
    })?;
    let now_us = clock::now_us();
    let tick = Tick { code: &code, at: latest(&code, &schedule, now_us.div_euclid(1_000_000))? };
    let via = schedule.via(tick, now_us, trigger.is_dual());
    let raw = Raw {
        code: Some(code.clone()),
        mode: Some(schedule.mode.as_str().to_owned()),
        process_run_id: Some(tick.process_run_id()),
        args: Some(schedule.args),
        idempotency_key: Some(tick.key()),
    };
    request::one_via(raw, via, worker)
}

/// What is declared for a tool now.
fn find(extension: &Extension, code: &str) -> Result<(Schedule, Trigger), DotError> {
    let codes = [code.to_owned()];
    let rows = catalogue::find(extension, Use::Read).map(|catalogue| catalogue.read(Some(&codes)));
    let tool: Option<Tool> = rows.and_then(Result::ok).and_then(|rows| rows.tools.into_iter().next());
    let Some(tool) = tool else {
        return Err(unscheduled(code, "The catalogue has no such tool, or cannot be read."));
    };
    let trigger = Trigger::of(&tool);
    if !trigger.cron {
        return Err(unscheduled(code, "Its trigger_type is neither cron nor dual."));
    }
    let own = schedule::declared(Some(&codes))?.remove(code);
    own.or_else(|| Schedule::of(&tool)).map(|schedule| (schedule, trigger)).ok_or_else(|| {
        unscheduled(code, "Neither dot_wrapper.schedule nor a column schedule of the catalogue says when it is due.")
    })
}

fn latest(code: &str, schedule: &Schedule, now: i64) -> Result<i64, DotError> {
    let cron =
        Cron::parse(&schedule.text).map_err(|why| unscheduled(code, &format!("Its schedule is unusable: {why}.")))?;
    // pg_cron goes by Greenwich, and newer versions by this setting.
    let zone = settings::of_others(c"cron.timezone").and_then(|name| Zone::find(&name));
    let found = cron.latest(now, |at| zone.map_or(0, |zone| zone.offset(at)));
    found.ok_or_else(|| unscheduled(code, "Its schedule never comes due."))
}

fn unscheduled(code: &str, why: &str) -> DotError {
    let message = format!("no schedule runs tool \"{}\"", shorten(code));
    DotError::new(SqlState::ObjectNotInPrerequisiteState, message).detail(why).hint(
        "Declare one, then SELECT * FROM fn_dot_schedule_sync(), which also removes jobs that are not wanted any more.",
    )
}

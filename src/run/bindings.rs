//! `fn_dot_trigger_sync`: triggers on tables out of what is bound, with the caller's own rights over those tables.

use super::request::Requester;
use crate::domain::binding::Binding;
use crate::domain::call::{self, shorten};
use crate::domain::error::DotError;
use crate::domain::schedule::{Schedule, Trigger};
use crate::domain::tick;
use crate::domain::tool::Tool;
use crate::guc;
use crate::pg::{role as roles, user};
use crate::store::binding::{self, Standing, Table};
use crate::store::extension::{self, Extension};
use crate::store::{catalogue, role, schedule};

/// What became of one trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The tool.
    pub code: Option<String>,
    /// The table.
    pub relation: String,
    /// The trigger.
    pub trigger_name: String,
    /// `created`, `changed`, `kept`, `removed`, or `invalid`.
    pub action: &'static str,
    /// What there is to say.
    pub detail: Option<String>,
}

/// Makes, changes and drops triggers.
///
/// # Errors
/// 55000 without the extension or a catalogue.
pub fn sync() -> Result<Vec<Synced>, DotError> {
    let caller = Requester::current();
    let extension = extension::for_writing()?;
    let (tools, bindings, schedules) = extension::as_owner(&extension, || {
        Ok::<_, DotError>((catalogue::by_code(&extension)?, binding::all()?, schedule::declared(None)?))
    })?;
    let mut standing = binding::standing()?;
    let mut done = Vec::new();
    for binding in &bindings {
        let tool = tools.get(&binding.code);
        let mut row = settle(&extension, &caller, tool, binding, &mut standing)?;
        if matches!(row.action, "created" | "changed" | "kept") {
            let why = tool.and_then(|tool| leaves(tool, schedules.get(&binding.code), binding));
            let why = why.map(|why| format!("its events cover no tick of the tool's schedule: {why}"));
            row.detail = [row.detail, why].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
        }
        done.push(row);
    }
    for trigger in standing {
        done.push(remove(trigger, None)?);
    }
    Ok(done)
}

/// Why both act where a dual tool's schedule is due and its table changes; `None` where one of them does, or there is no
/// schedule.
pub(super) fn leaves(tool: &Tool, declared: Option<&Schedule>, binding: &Binding) -> Option<&'static str> {
    if !Trigger::of(tool).is_dual() {
        return None;
    }
    match declared {
        Some(schedule) => binding.leaves(schedule),
        None => binding.leaves(&Schedule::of(tool)?),
    }
}

fn settle(
    extension: &Extension,
    caller: &Requester,
    tool: Option<&Tool>,
    binding: &Binding,
    standing: &mut Vec<Standing>,
) -> Result<Synced, DotError> {
    let name = tick::job_name(&binding.code);
    let row = |action, detail| Synced {
        code: Some(binding.code.clone()),
        relation: binding.relation.clone(),
        trigger_name: name.clone(),
        action,
        detail,
    };
    // The caller may not even see it; then PostgreSQL says so when the trigger is to be made.
    let table = extension::as_owner(extension, || binding::table(extension, &binding.relation))?;
    let found = table.as_ref().and_then(|table| standing.iter().position(|t| t.table == table.oid && t.name == name));
    let found = found.map(|at| standing.remove(at));
    if let Err(why) = wanted(extension, tool, binding, table.as_ref())? {
        return match found {
            Some(trigger) => remove(trigger, Some(why)).map(|done| Synced { code: Some(binding.code.clone()), ..done }),
            None => Ok(row("invalid", Some(why))),
        };
    }
    let definition = binding::definition(binding, &name)?;
    if let Some(trigger) = &found
        && trigger.definition == definition
    {
        let off = "it is switched off, or fires for replicated changes; see ALTER TABLE ... ENABLE TRIGGER";
        return Ok(row("kept", (!trigger.is_enabled).then(|| off.to_owned())));
    }
    let run_as = roles::lookup(&binding.run_as);
    if !run_as.is_some_and(|role| user::has_privileges_of(caller.oid, role)) {
        let why = format!("you are not a member of role {}, as which it would run", binding.run_as);
        return Ok(row("invalid", Some(why)));
    }
    let action = if found.is_some() { "changed" } else { "created" };
    Ok(match binding::create(&definition)? {
        Ok(()) => row(action, None),
        Err(caught) => row("invalid", Some(format!("PostgreSQL says: {}", caught.message))),
    })
}

/// Whether there is to be a trigger, or why not.
fn wanted(
    extension: &Extension,
    tool: Option<&Tool>,
    binding: &Binding,
    table: Option<&Table>,
) -> Result<Result<(), String>, DotError> {
    let Some(tool) = tool else { return Ok(Err("there is no such tool".to_owned())) };
    if !Trigger::of(tool).event {
        return Ok(Err("its trigger_type is neither event nor dual".to_owned()));
    }
    if !tool.is_active() {
        return Ok(Err(format!("its status is {}", shorten(&tool.status))));
    }
    // What would be misuse in a call would fail every write to the table.
    if let Err(error) = call::check_declared(&binding.code, &binding.args, guc::max_args_bytes()) {
        return Ok(Err(error.message));
    }
    let Some(table) = table else { return Ok(Err("there is no such table".to_owned())) };
    if !matches!(table.kind.as_str(), "r" | "p") {
        return Ok(Err("it is not a table".to_owned()));
    }
    if table.is_ours {
        return Ok(Err("it is a table of dot_wrapper itself, which runs write to".to_owned()));
    }
    if binding.per_row && !table.has_key {
        return Ok(Err("it has no primary key to tell its rows by; bind it per statement".to_owned()));
    }
    let run_as = &binding.run_as;
    let Some(oid) = roles::lookup(run_as) else { return Ok(Err(format!("role {run_as} does not exist"))) };
    let may_call = extension::as_owner(extension, || role::requesters(extension, &[oid]))?;
    if !may_call.iter().any(|requester| requester.may_call) {
        return Ok(Err(format!("role {run_as} may not call fn_dot_run")));
    }
    Ok(Ok(()))
}

fn remove(trigger: Standing, why: Option<String>) -> Result<Synced, DotError> {
    let done = binding::drop(&trigger)?;
    let why = why.unwrap_or_else(|| "nothing binds it any more".to_owned());
    let (action, detail) = match done {
        Ok(()) => ("removed", why),
        Err(caught) => ("invalid", format!("{why}, and PostgreSQL says: {}", caught.message)),
    };
    let code = trigger.name.strip_prefix(tick::PREFIX).map(str::to_owned);
    Ok(Synced { code, relation: trigger.relation, trigger_name: trigger.name, action, detail: Some(detail) })
}

//! `fn_dot_schedule_sync`: pg_cron jobs out of what is declared, with the caller's own rights over pg_cron.

use std::collections::{BTreeMap, HashMap};

use super::bindings;
use super::request::Requester;
use crate::domain::binding::Binding;
use crate::domain::call::{self, shorten};
use crate::domain::cron::Cron;
use crate::domain::error::{DotError, SqlState};
use crate::domain::schedule::{Schedule, Trigger};
use crate::domain::tick;
use crate::domain::tool::Tool;
use crate::guc;
use crate::pg::{clock, settings};
use crate::store::extension::{self, Extension};
use crate::store::pg_cron::{self, Job};
use crate::store::{binding, catalogue, role, schedule};

/// What became of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The tool.
    pub code: Option<String>,
    /// The job.
    pub jobname: Option<String>,
    /// When.
    pub schedule: Option<String>,
    /// `created`, `changed`, `kept`, `removed`, `invalid`, or `unavailable`.
    pub action: &'static str,
    /// What there is to say.
    pub detail: Option<String>,
}

/// Makes, changes and removes the caller's jobs.
///
/// # Errors
/// 42501 when the caller could not run the jobs, or may not look into pg_cron's schema; 55000 without the extension or a
/// catalogue.
pub fn sync() -> Result<Vec<Synced>, DotError> {
    let caller = Requester::current();
    let extension = extension::for_writing()?;
    let (tools, declared, bindings) = extension::as_owner(&extension, || {
        caller.must_be_allowed(&extension, "fn_dot_tick")?;
        Ok::<_, DotError>((catalogue::by_code(&extension)?, schedule::declared(None)?, binding::all()?))
    })?;
    if !role::may_execute(&extension, "fn_dot_tick", 1)? {
        return Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for function fn_dot_tick")
            .detail("The jobs run as the role that makes them, and call it.")
            .hint("GRANT EXECUTE ON FUNCTION fn_dot_tick to that role."));
    }
    if let Some(detail) = unavailable()? {
        return Ok(vec![Synced { action: "unavailable", detail: Some(detail), ..Synced::default() }]);
    }
    let mut jobs = pg_cron::jobs()?;
    let mut done = Vec::new();
    for (code, wanted) in wanted(&tools, declared) {
        let left = wanted.as_ref().ok().and_then(|schedule| left(tools.get(&code)?, schedule, &bindings));
        for mut row in settle(&extension, code, wanted, &mut jobs)? {
            if matches!(row.action, "created" | "changed" | "kept") {
                row.detail =
                    [row.detail, left.clone()].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
            }
            done.push(row);
        }
    }
    let opening = pg_cron::opening(&extension.schema);
    for job in jobs.into_iter().filter(|job| job.command.starts_with(&opening)) {
        done.push(remove(job)?);
    }
    Ok(done)
}

/// Why there is nobody to make jobs with, and what to do.
fn unavailable() -> Result<Option<String>, DotError> {
    let found = pg_cron::find()?;
    let database = &found.database;
    let Some(home) = settings::of_others(c"cron.database_name") else {
        return Ok(Some(format!(
            "pg_cron is not loaded; add it to shared_preload_libraries, set cron.database_name = '{database}', restart, and CREATE EXTENSION pg_cron"
        )));
    };
    if home != *database {
        return Ok(Some(format!(
            "pg_cron keeps its jobs in database {home}; set cron.database_name = '{database}' and restart, or call cron.schedule_in_database there"
        )));
    }
    if !found.is_installed {
        return Ok(Some("pg_cron is loaded, but not installed in this database; CREATE EXTENSION pg_cron".to_owned()));
    }
    if !found.is_genuine {
        return Ok(Some(
            "the functions of schema cron are not those of the extension pg_cron 1.3 or newer; nothing of it is called"
                .to_owned(),
        ));
    }
    if !found.may_use {
        return Err(DotError::new(SqlState::InsufficientPrivilege, "permission denied for schema cron")
            .hint("GRANT USAGE ON SCHEMA cron to the role that is to run the jobs."));
    }
    Ok(None)
}

/// A schedule, or why there is to be no job.
type Wanted = Result<Schedule, String>;

/// Everything that is declared, whether it can be had or not, in the order of the codes.
fn wanted(tools: &HashMap<String, Tool>, mut declared: HashMap<String, Schedule>) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    for (code, tool) in tools {
        let own = declared.remove(code);
        if !Trigger::of(tool).cron {
            if own.is_some() {
                all.insert(code.clone(), Err("its trigger_type is neither cron nor dual".to_owned()));
            }
            continue;
        }
        let schedule = match own.or_else(|| Schedule::of(tool)) {
            _ if !tool.is_active() => Err(format!("its status is {}", shorten(&tool.status))),
            Some(schedule) => usable(code, &schedule).map(|()| schedule),
            None => Err("no schedule is declared; see dot_wrapper.schedule".to_owned()),
        };
        all.insert(code.clone(), schedule);
    }
    all.extend(declared.into_keys().map(|code| (code, Err("there is no such tool".to_owned()))));
    all
}

fn usable(code: &str, schedule: &Schedule) -> Result<(), String> {
    call::check_declared(code, &schedule.args, guc::max_args_bytes()).map_err(|error| error.message)?;
    let cron = Cron::parse(&schedule.text)?;
    let ever = cron.latest(clock::now_us() / 1_000_000, |_| 0);
    ever.map(drop).ok_or_else(|| "it never comes due".to_owned())
}

/// The tables whose events cover no tick of this schedule, of a dual tool.
fn left(tool: &Tool, schedule: &Schedule, bindings: &[Binding]) -> Option<String> {
    let own = bindings.iter().filter(|binding| binding.code == tool.code);
    let why = own.filter_map(|binding| Some((&binding.relation, bindings::leaves(tool, Some(schedule), binding)?)));
    why.map(|(table, why)| format!("events of {table} cover no tick: {why}"))
        .reduce(|one, other| format!("{one}; {other}"))
}

/// Brings one tool's job in line, and takes it out of the list of those that nobody has asked for, with those that other
/// roles have made of the same tool: they stay, and where there is one, nobody needs another.
fn settle(extension: &Extension, code: String, wanted: Wanted, jobs: &mut Vec<Job>) -> Result<Vec<Synced>, DotError> {
    let name = tick::job_name(&code);
    let command = pg_cron::command(&extension.schema, &code)?;
    let row = |schedule: Option<String>, action, detail| Synced {
        code: Some(code.clone()),
        jobname: Some(name.clone()),
        schedule,
        action,
        detail,
    };
    let schedule = match wanted {
        Ok(schedule) => schedule.text,
        Err(why) => {
            let found: Vec<Job> = jobs.extract_if(.., |job| job.name == name && job.command == command).collect();
            if found.is_empty() {
                return Ok(vec![row(None, "invalid", Some(why))]);
            }
            return found
                .into_iter()
                .map(|job| remove(job).map(|removed| merge(row(None, "removed", Some(why.clone())), removed)))
                .collect();
        }
    };
    let own = jobs.iter().position(|job| job.name == name && job.is_own).map(|at| jobs.remove(at));
    let others = jobs.extract_if(.., |job| job.name == name && job.command == command).map(|job| {
        let detail = format!("it runs as role {}, and stays as that role has made it", job.role);
        row(Some(job.schedule), "kept", Some(detail))
    });
    let others: Vec<Synced> = others.collect();
    let (action, detail) = match own {
        None if !others.is_empty() => return Ok(others),
        Some(job) if job.command != command => ("invalid", Some("a job of this name does something else".to_owned())),
        Some(job) if job.schedule == schedule => {
            ("kept", (!job.is_active).then(|| "it is switched off; cron.alter_job switches it on".to_owned()))
        }
        own => match pg_cron::schedule(&name, &schedule, &command)? {
            Err(caught) => ("invalid", Some(format!("pg_cron says: {}", caught.message))),
            Ok(()) => match own {
                Some(job) => ("changed", Some(format!("it was {}", job.schedule))),
                None => ("created", None),
            },
        },
    };
    Ok([row(Some(schedule), action, detail)].into_iter().chain(others).collect())
}

/// What there is to say about a removal and its reason.
fn merge(row: Synced, removed: Synced) -> Synced {
    if removed.action == "removed" { Synced { schedule: removed.schedule, ..row } } else { removed }
}

fn remove(job: Job) -> Result<Synced, DotError> {
    let done = pg_cron::unschedule(job.id)?;
    let (action, detail) = match done {
        Ok(()) => ("removed", "it is not needed any more".to_owned()),
        Err(caught) => ("invalid", format!("it is not needed any more, and pg_cron says: {}", caught.message)),
    };
    let code = job.name.strip_prefix(tick::PREFIX).map(str::to_owned);
    Ok(Synced { code, jobname: Some(job.name), schedule: Some(job.schedule), action, detail: Some(detail) })
}

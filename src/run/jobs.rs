//! Jobs of the job queue: those that wait become runs, and those whose runs have moved are told. Each in a subtransaction
//! of its own, so that one that goes wrong holds up no other.
//!
//! The worker may not request runs, and is granted nothing for this: for the length of one request it acts as the
//! extension's owner, as `fn_dot_run` does in a caller's session, and the run is the configured role's. The table of jobs is
//! read and written with its own owner's rights. No right of any job's author is in it.

use std::time::Duration;

use super::doctor::{self, Check};
use super::request::{self, WorkerFacts};
use crate::domain::call::shorten;
use crate::domain::decide::one_line;
use crate::domain::error::{DotError, SqlState};
use crate::domain::job::{self as rules, Job, Standing};
use crate::domain::via::{Overlap, Source as Origin, Via};
use crate::guc;
use crate::pg::caught::Caught;
use crate::pg::fail_point::{self, Point};
use crate::pg::{log, session, user, xact};
use crate::store::extension::{self, Extension};
use crate::store::foreign::{self, Refused};
use crate::store::job::{self, Found, Source, Table};
use crate::store::job_link;

/// How long a job rests that could not be read or written.
const REST: Duration = Duration::from_secs(60);
/// How long a job rests that somebody has locked, or whose request was in somebody's way.
const MOMENT: Duration = Duration::from_secs(2);

/// What a look came to.
#[derive(Debug, Default)]
pub struct Looked {
    /// There is a source, and this database may execute.
    pub is_set_up: bool,
    /// There may be more at once.
    pub more: bool,
    /// Something rests that is to be looked at again then.
    pub again: Option<Duration>,
    /// Tools of the runs that were requested.
    pub codes: Vec<String>,
    /// Why nothing can be taken or told at all.
    pub trouble: Option<String>,
}

impl Looked {
    fn rest(&mut self, pause: Duration) {
        self.again = Some(self.again.map_or(pause, |again| again.min(pause)));
    }
}

/// Tells jobs how their runs stand, and takes those that wait if `queue.worker.enabled` says so.
///
/// # Errors
/// XX000 only.
pub fn look(extension: &Extension) -> Result<Looked, DotError> {
    let mut looked = Looked::default();
    let Some(source) = job::source()? else { return Ok(looked) };
    if !extension::instance(session::system_identifier())?.is_here {
        return Ok(looked);
    }
    looked.is_set_up = true;
    let table = match job::open(extension, &source) {
        Ok(table) => table,
        Err(why) => {
            looked.trouble = Some(why);
            return Ok(looked);
        }
    };
    tell(&source, &table, &mut looked)?;
    match (job::is_enabled(extension), source.run_as.1) {
        (Ok(false), _) => {}
        (Err(why), _) => looked.trouble = Some(why),
        (Ok(true), None) => looked.trouble = Some(no_role(&source)),
        (Ok(true), Some(requester)) => take(&source, &table, requester, &mut looked)?,
    }
    Ok(looked)
}

fn no_role(source: &Source) -> String {
    format!("there is no role {}, as which jobs would run", source.run_as.0)
}

/// Jobs whose runs have moved.
fn tell(source: &Source, table: &Table, looked: &mut Looked) -> Result<(), DotError> {
    let moved = job_link::changed(&source.relation, source.batch)?;
    looked.more |= i64::try_from(moved.len()).is_ok_and(|n| n == source.batch);
    for (id, run_id) in moved {
        if !foreign::has_time() {
            looked.more = true;
            break;
        }
        let (standing, code) = job_link::standing(run_id)?;
        match tell_one(source, table, &id, &standing) {
            Ok(()) => fail_point::at(Point::JobTold, &code),
            Err(Refused::NotNow(why)) => {
                job_link::trouble(&source.relation, &id, MOMENT, &why)?;
                looked.rest(MOMENT);
            }
            Err(Refused::Failed(why)) => {
                complain(source, &id, &format!("its outcome cannot be written: {why}"));
                job_link::trouble(&source.relation, &id, REST, &why)?;
                looked.rest(REST);
            }
        }
    }
    Ok(())
}

fn tell_one(source: &Source, table: &Table, id: &str, standing: &Standing) -> Result<(), Refused> {
    let own = |error: DotError| Refused::Failed(error.message);
    let is_there = match table.lock(id)? {
        Found::Busy => return Err(Refused::NotNow("somebody has the job locked".to_owned())),
        Found::Gone => false,
        Found::Locked => true,
    };
    if is_there {
        table.write(id, standing)?;
    }
    // Who has deleted the job wants to hear no more of it.
    let over = standing.is_over() || !is_there;
    if over { job_link::unlink(&source.relation, id) } else { job_link::shown(&source.relation, id) }.map_err(own)
}

/// Jobs that wait.
fn take(source: &Source, table: &Table, requester: pgrx::pg_sys::Oid, looked: &mut Looked) -> Result<(), DotError> {
    let but = job_link::passed_over(&source.relation)?;
    let max_payload = guc::max_args_bytes() + rules::MARGIN;
    let jobs = match table.waiting(&source.families, &but, max_payload, source.batch) {
        Ok(jobs) => jobs,
        Err(refused) => {
            looked.trouble = Some(format!("{}: {}", source.relation, refused.text()));
            return Ok(());
        }
    };
    looked.more |= i64::try_from(jobs.len()).is_ok_and(|n| n == source.batch);
    for job in jobs {
        if !foreign::has_time() {
            looked.more = true;
            break;
        }
        match take_one(source, table, requester, &job) {
            Ok(code) => looked.codes.extend(code),
            Err(Fault::Misuse(why)) => refuse(source, table, &job, &why, looked)?,
            Err(Fault::NotNow(why)) => {
                job_link::trouble(&source.relation, &job.id, MOMENT, &why)?;
                looked.rest(MOMENT);
            }
            Err(Fault::Failed(why)) => rest(source, &job, &why, looked)?,
        }
    }
    Ok(())
}

/// Why a job has not become a run.
enum Fault {
    /// It never can.
    Misuse(DotError),
    /// Somebody is in the way.
    NotNow(String),
    /// Something is wrong that somebody may put right.
    Failed(String),
}

impl From<DotError> for Fault {
    fn from(error: DotError) -> Fault {
        if rules::is_final(error.state) { Fault::Misuse(error) } else { Fault::Failed(error.message) }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        match refused {
            Refused::NotNow(why) => Fault::NotNow(why),
            Refused::Failed(why) => Fault::Failed(why),
        }
    }
}

impl From<Caught> for Fault {
    fn from(caught: Caught) -> Fault {
        if caught.is_retryable_or_cancel() {
            caught.raise();
        }
        if caught.is_lock_timeout() {
            return Fault::NotNow(caught.message);
        }
        if rules::is_final_code(&caught.sqlstate) {
            return Fault::Misuse(DotError::new(SqlState::InvalidParameterValue, caught.message));
        }
        Fault::Failed(caught.message)
    }
}

/// One job: the run, the job's row and the link between them, or none of it. The tool of a run that was requested anew.
fn take_one(source: &Source, table: &Table, requester: pgrx::pg_sys::Oid, job: &Job) -> Result<Option<String>, Fault> {
    xact::subtransaction_or_rollback(|| {
        let raw = rules::request(&source.relation, job)?;
        let via = Via {
            source: Origin::Job,
            source_ref: Some(job.id.clone()),
            actor: job.actor.clone().filter(|actor| !actor.is_empty()),
            requester: Some(requester.to_u32()),
            waits: true,
            start_by_s: None,
            overlap: Overlap::Allow,
            coalesce: false,
        };
        let requested = request::one_via(raw, via, WorkerFacts { preloaded: true, alive: true })?;
        let (standing, code) = job_link::standing(requested.run_id)?;
        table.write(&job.id, &standing)?;
        if standing.is_over() {
            job_link::unlink(&source.relation, &job.id)?;
        } else {
            job_link::link(&source.relation, &job.id, requested.run_id, !requested.admitted)?;
        }
        fail_point::at(Point::JobTaken, &code);
        Ok(Some(code))
    })?
}

/// A job that can never become a run ends here.
fn refuse(source: &Source, table: &Table, job: &Job, why: &DotError, looked: &mut Looked) -> Result<(), DotError> {
    let standing = Standing::misuse(why);
    let said = one_line(standing.message.as_deref().unwrap_or_default());
    match table.write(&job.id, &standing) {
        Ok(()) => {
            log::line(&format!("dot_wrapper: job {} of {} is refused: {said}", shorten(&job.id), source.relation));
            job_link::unlink(&source.relation, &job.id)
        }
        Err(refused) => rest(source, job, &format!("{said}; and it cannot be refused: {}", refused.text()), looked),
    }
}

fn rest(source: &Source, job: &Job, why: &str, looked: &mut Looked) -> Result<(), DotError> {
    complain(source, &job.id, why);
    looked.rest(REST);
    job_link::trouble(&source.relation, &job.id, REST, &one_line(why))
}

fn complain(source: &Source, id: &str, why: &str) {
    let (id, relation, why) = (shorten(id), &source.relation, one_line(why));
    log::line(&format!("dot_wrapper: job {id} of {relation}: {why}; it is tried again in {} s", REST.as_secs()));
}

/// The doctor's findings about jobs.
///
/// # Errors
/// XX000 only.
pub(super) fn checks(extension: &Extension) -> Result<Vec<Check>, DotError> {
    const NAME: &str = "jobs";
    let schema = &extension.schema;
    let enabled = job::is_enabled(extension);
    let Some(source) = job::source()? else {
        return Ok(vec![match enabled {
            Ok(true) => doctor::warn(
                NAME,
                "queue.worker.enabled is true, but dot_wrapper.job_source has no row; no job is taken",
                "INSERT INTO dot_wrapper.job_source (run_as) VALUES ('a role that may call fn_dot_run');",
            ),
            _ => doctor::ok(NAME, "dot_wrapper.job_source has no row; no job is taken"),
        }]);
    };
    let (troubles, example, strays) = job_link::troubles(Some(&source.relation))?;
    let mut checks = vec![one_check(extension, &source, enabled, schema)];
    if let (true, Some(example)) = (troubles > 0, example) {
        let found = format!("{troubles} jobs could not be read or written, one of them {example}");
        checks.push(doctor::warn(NAME, found, "They are tried again every minute; see the server's log."));
    }
    if strays > 0 {
        let found = format!("{strays} jobs of another table wait to hear of their runs");
        checks.push(doctor::warn(NAME, found, "Set dot_wrapper.job_source.relation back until they have."));
    }
    Ok(checks)
}

fn one_check(extension: &Extension, source: &Source, enabled: Result<bool, String>, schema: &str) -> Check {
    const NAME: &str = "jobs";
    let of = format!("{} of {}", source.families.join(", "), source.relation);
    let table = match job::open(extension, source) {
        Ok(table) => table,
        Err(why) => {
            let advice = "Put the row of dot_wrapper.job_source right; NULL for a column that the table does not have.";
            return doctor::block(NAME, format!("{why}; no job is taken"), advice);
        }
    };
    let unknown = table.unknown_words();
    if !unknown.is_empty() {
        let found = format!("the status column of {} cannot be {}", source.relation, unknown.join(", "));
        return doctor::block(NAME, found, "Name the table's own words in dot_wrapper.job_source.status_words.");
    }
    let Some(requester) = source.run_as.1 else {
        return doctor::block(NAME, no_role(source), "UPDATE dot_wrapper.job_source SET run_as = …");
    };
    match enabled {
        Err(why) => doctor::block(NAME, why, "Give dot_config to a trusted role."),
        Ok(false) => doctor::warn(
            NAME,
            format!("queue.worker.enabled is not the word true; {of} wait"),
            format!("UPDATE {schema}.dot_config SET value = 'true' WHERE key = 'queue.worker.enabled';"),
        ),
        Ok(true) if user::is_superuser(requester) => doctor::warn(
            NAME,
            format!("{of} run as {}, a superuser", source.run_as.0),
            "A role that may call fn_dot_run and nothing else is enough.",
        ),
        Ok(true) => doctor::ok(NAME, format!("{of} run as {}", source.run_as.0)),
    }
}

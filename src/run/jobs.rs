//! Jobs of the job queue: those that wait become runs, and those whose runs have moved are told. Each in a subtransaction
//! of its own, so that one that goes wrong holds up no other.
//!
//! The worker may not request runs, and is granted nothing for this: for the length of one request it acts as the
//! extension's owner, as `fn_dot_run` does in a caller's session, and the run is the configured role's. The table of jobs is
//! read and written with its own owner's rights. No right of any job's author is in it.

use std::time::Duration;

use super::request::{self, WorkerFacts};
use super::session::Session;
use crate::domain::call::{Raw, shorten};
use crate::domain::decide::one_line;
use crate::domain::error::{DotError, SqlState};
use crate::domain::job::{self as rules, Job, Standing};
use crate::domain::state::RunStatus;
use crate::domain::via::{Source as Origin, Via};
use crate::guc;
use crate::pg::caught::Caught;
use crate::pg::fail_point::{self, Point};
use crate::pg::object::Use;
use crate::pg::{lock, log, session, xact};
use crate::store::extension::{self, Extension};
use crate::store::foreign::{self, Refused};
use crate::store::job::{self, Found, Source, Table};
use crate::store::job_link;

/// How long a job rests that could not be read or written.
const REST: Duration = Duration::from_secs(60);
/// How long a job rests that somebody has locked, or whose request was in somebody's way.
const MOMENT: Duration = Duration::from_secs(2);

/// How long a job rests whose run was let in and then refused: whatever the gates say in turns, that many runs and no more.
const AGAIN: Duration = Duration::from_secs(10);

/// What a look came to.
#[derive(Debug, Default)]
pub struct Looked {
    /// There is a source, and this database may execute.
    pub is_set_up: bool,
    /// There may be more at once.
    pub more: bool,
    /// When the next of those that rest is to be touched again.
    pub again: Option<Duration>,
    /// Tools of the runs that were requested.
    pub codes: Vec<String>,
    /// Why nothing can be taken or told at all.
    pub trouble: Option<String>,
    /// Why jobs wait that could be taken otherwise.
    pub held: Option<String>,
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
    let table = match job::open(extension, &source, Use::Write) {
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
        (Ok(true), Some(requester)) => {
            Taking { extension, source: &source, table: &table, requester }.take(&mut looked)?
        }
    }
    looked.again = looked.again.into_iter().chain(job_link::next_due(&source.relation)?).min();
    Ok(looked)
}

pub(super) fn no_role(source: &Source) -> String {
    format!("there is no role {}, as which jobs would run", source.run_as.0)
}

/// Jobs whose runs have moved.
fn tell(source: &Source, table: &Table, looked: &mut Looked) -> Result<(), DotError> {
    let moved = job_link::changed(&source.relation, source.batch)?;
    looked.more |= is_full(&moved, source);
    let mut complaints = Complaints::default();
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
            }
            Err(Refused::Failed(why)) => {
                complaints.add(&id, format!("its outcome cannot be written: {why}"));
                job_link::trouble(&source.relation, &id, REST, &why)?;
            }
        }
    }
    complaints.log(source);
    Ok(())
}

fn is_full<T>(found: &[T], source: &Source) -> bool {
    i64::try_from(found.len()).is_ok_and(|n| n == source.batch)
}

fn tell_one(source: &Source, table: &Table, id: &str, standing: &Standing) -> Result<(), Refused> {
    let own = |error: DotError| Refused::Failed(error.message);
    let is_there = match table.lock(id)? {
        Found::Busy => return Err(Refused::NotNow("somebody has the job locked".to_owned())),
        Found::Gone => false,
        Found::Locked => true,
    };
    if is_there && put_back(source, table, id, standing)? {
        return Ok(());
    }
    if is_there {
        table.write(id, standing)?;
    }
    // Who has deleted the job wants to hear no more of it.
    let over = standing.is_over() || !is_there;
    if over { job_link::unlink(&source.relation, id) } else { job_link::shown(&source.relation, id) }.map_err(own)
}

/// Lets a job wait again whose run was let in and then refused, as when the toggle went off meanwhile. False where the
/// refusal is the job's end, or the table wants no job to wait again.
fn put_back(source: &Source, table: &Table, id: &str, standing: &Standing) -> Result<bool, Refused> {
    let own = |error: DotError| Refused::Failed(error.message);
    let Some(run_id) = standing.run_id else { return Ok(false) };
    if !job_link::is_put_off(run_id, standing).map_err(own)? {
        return Ok(false);
    }
    match table.put_back(id) {
        Ok(()) => {
            job_link::unlink(&source.relation, id).map_err(own)?;
            let why = one_line(standing.message.as_deref().unwrap_or_default());
            job_link::trouble(&source.relation, id, AGAIN, &why).map_err(own)?;
            Ok(true)
        }
        Err(Refused::NotNow(why)) => Err(Refused::NotNow(why)),
        Err(Refused::Failed(_)) => Ok(false),
    }
}

/// What jobs are taken with.
struct Taking<'a> {
    extension: &'a Extension,
    source: &'a Source,
    table: &'a Table,
    requester: pgrx::pg_sys::Oid,
}

impl Taking<'_> {
    /// Jobs that wait.
    fn take(&self, looked: &mut Looked) -> Result<(), DotError> {
        let source = self.source;
        let but = job_link::passed_over(&source.relation)?;
        if but.len() >= job_link::PASSED_OVER {
            // Those behind could not be told from those that rest.
            looked.trouble = Some(format!("{} jobs of {} could not be taken or told", but.len(), source.relation));
            return Ok(());
        }
        let max_payload = guc::max_args_bytes() + rules::MARGIN;
        let jobs = match self.table.waiting(&but, max_payload, source.batch) {
            Ok(jobs) => jobs,
            Err(refused) => {
                looked.trouble = Some(format!("{}: {}", source.relation, refused.text()));
                return Ok(());
            }
        };
        if !jobs.is_empty() {
            // Or the gates would not know of what was committed together with a job.
            if !lock::are_all_told() {
                looked.again = Some(Duration::ZERO);
                return Ok(());
            }
            lock::hear();
        }
        if !jobs.is_empty() && !self.each(&jobs, looked)? {
            // A table that objects to all of them is not worn out.
            looked.again = Some(MOMENT);
        } else {
            looked.more |= is_full(&jobs, source);
        }
        Ok(())
    }

    /// One after the other. Whether any of them has got on.
    fn each(&self, jobs: &[Job], looked: &mut Looked) -> Result<bool, DotError> {
        let source = self.source;
        let wishes: Vec<_> = jobs.iter().map(|job| rules::request(&source.relation, job)).collect();
        let codes: Vec<String> = wishes.iter().flatten().filter_map(|raw| raw.code.clone()).collect();
        // One sitting of the gates for all of them. The second gate asks again before anything is sent.
        let mut session = extension::as_owner(self.extension, || Session::open(self.extension, Some(&codes)))?;
        let mut complaints = Complaints::default();
        let (mut moves, mut put_off) = (false, PutOff::default());
        for (job, raw) in jobs.iter().zip(wishes) {
            if !foreign::has_time() {
                looked.more = true;
                break;
            }
            if put_off.covers(&raw) {
                continue;
            }
            let kind = kind_of(&raw);
            match self.one(&mut session, job, raw) {
                Ok(code) => {
                    moves = true;
                    looked.codes.push(code);
                }
                Err(Fault::Misuse(why)) => moves |= self.refuse(job, &why, &mut complaints)?,
                Err(Fault::NotNow(why)) => job_link::trouble(&source.relation, &job.id, MOMENT, &why)?,
                Err(Fault::PutOff(why)) => {
                    looked.held.get_or_insert_with(|| why.clone());
                    job_link::trouble(&source.relation, &job.id, MOMENT, &why)?;
                    put_off.0.extend(kind);
                }
                Err(Fault::Failed(why)) => self.rest(job, &why, &mut complaints)?,
            }
        }
        complaints.log(source);
        Ok(moves)
    }

    /// One job: the run, the job's row and the link between them, or none of it. The run's tool.
    fn one(&self, session: &mut Session, job: &Job, raw: Result<Raw, DotError>) -> Result<String, Fault> {
        let relation = &self.source.relation;
        xact::subtransaction_or_rollback(|| {
            let via = Via {
                source: Origin::Job,
                source_ref: Some(job.id.clone()),
                actor: job.actor.clone().filter(|actor| !actor.is_empty()),
                requester: Some(self.requester.to_u32()),
                waits: true,
                ..Via::call()
            };
            let worker = WorkerFacts { preloaded: true, alive: true };
            let raw = raw?;
            let requested = extension::as_owner(self.extension, || request::in_session(session, raw, via, worker))?;
            let (standing, code) = job_link::standing(requested.run_id)?;
            if let Some(why) = put_off(&standing, &code) {
                // With the run's row: what remains is a job that waits.
                return Err(Fault::PutOff(why));
            }
            self.table.write(&job.id, &standing)?;
            if standing.is_over() {
                job_link::unlink(relation, &job.id)?;
            } else {
                job_link::link(relation, &job.id, requested.run_id, !requested.admitted)?;
            }
            fail_point::at(Point::JobTaken, &code);
            Ok(code)
        })?
    }

    /// A job that can never become a run ends here; false when it cannot be written.
    fn refuse(&self, job: &Job, why: &DotError, complaints: &mut Complaints) -> Result<bool, DotError> {
        let standing = Standing::misuse(why);
        let said = one_line(standing.message.as_deref().unwrap_or_default());
        match self.table.write(&job.id, &standing) {
            Ok(()) => {
                let (id, relation) = (shorten(&job.id), &self.source.relation);
                log::line(&format!("dot_wrapper: job {id} of {relation} is refused: {said}"));
                job_link::unlink(relation, &job.id).map(|()| true)
            }
            Err(refused) => {
                let why = format!("{said}; and it cannot be refused: {}", refused.text());
                self.rest(job, &why, complaints).map(|()| false)
            }
        }
    }

    /// A job with which something is wrong that somebody may put right.
    fn rest(&self, job: &Job, why: &str, complaints: &mut Complaints) -> Result<(), DotError> {
        complaints.add(&job.id, why.to_owned());
        job_link::trouble(&self.source.relation, &job.id, REST, &one_line(why))
    }
}

/// Kinds of jobs that are let in later: the rest of them is not asked for in this look, and keeps its place.
#[derive(Default)]
struct PutOff(Vec<Kind>);

/// Tool and mode.
type Kind = (Option<String>, Option<String>);

fn kind_of(raw: &Result<Raw, DotError>) -> Option<Kind> {
    raw.as_ref().ok().map(|raw| (raw.code.clone(), raw.mode.clone()))
}

impl PutOff {
    fn covers(&self, raw: &Result<Raw, DotError>) -> bool {
        !self.0.is_empty() && kind_of(raw).is_some_and(|kind| self.0.contains(&kind))
    }
}

/// Why the job waits whose run was refused; `None` when it does not.
fn put_off(standing: &Standing, code: &str) -> Option<String> {
    let reason = standing.reason.as_deref().filter(|_| standing.status == RunStatus::Refused)?;
    let said = standing.message.as_deref().unwrap_or(reason);
    match reason {
        reason if !rules::is_put_off(reason) => None,
        "toggle_off" => Some(said.to_owned()),
        _ => Some(format!("{}: {said}", shorten(code))),
    }
}

/// Why a job has not become a run.
enum Fault {
    /// It never can.
    Misuse(DotError),
    /// Somebody is in the way.
    NotNow(String),
    /// Nothing of its kind is let in at the moment.
    PutOff(String),
    /// Something is wrong that somebody may put right.
    Failed(String),
}

impl From<DotError> for Fault {
    fn from(error: DotError) -> Fault {
        if error.state == SqlState::LockNotAvailable {
            return Fault::NotNow(error.message);
        }
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
        if foreign::is_for_a_moment(&caught) {
            return Fault::NotNow(caught.message);
        }
        if caught.is_retryable_or_cancel() {
            caught.raise();
        }
        if rules::is_final_code(&caught.sqlstate) {
            return Fault::Misuse(DotError::new(SqlState::InvalidParameterValue, caught.message));
        }
        Fault::Failed(caught.message)
    }
}

/// Jobs that rest from now on: one line in the log, however many they are.
#[derive(Default)]
struct Complaints {
    first: Option<(String, String)>,
    others: usize,
}

impl Complaints {
    fn add(&mut self, id: &str, why: String) {
        match self.first {
            Some(_) => self.others += 1,
            None => self.first = Some((shorten(id), why)),
        }
    }

    fn log(self, source: &Source) {
        let Some((id, why)) = self.first else { return };
        let more = if self.others > 0 { format!(" (and {} more)", self.others) } else { String::new() };
        let (relation, why) = (&source.relation, one_line(&why));
        let rest = REST.as_secs();
        log::line(&format!("dot_wrapper: job {id} of {relation}{more}: {why}; it is tried again in {rest} s"));
    }
}

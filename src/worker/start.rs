//! Starting one worker, or saying why not.
//!
//! Lives here: what the launcher remembers of one database, the check of the role, the registration. Does not live here:
//! when to do it (`launcher`).

use std::time::Instant;

use pgrx::pg_sys::Oid;

use super::pace;
use super::slots::{self, Reason, State};
use crate::pg::bgworker::{self, Handle};
use crate::pg::role::{self, RoleProblem};
use crate::pg::{entry, xact};

/// What the launcher remembers of one database, besides its slot. Lost with the launcher, and rebuilt.
pub struct Watch {
    /// For messages.
    pub name: String,
    /// The worker that this launcher has started. One that an earlier launcher started has none.
    pub handle: Option<Handle>,
    /// Whether there was a worker at the last look.
    pub present: bool,
    /// Whether the extension is known to be there.
    pub wanted: bool,
    /// Whether the database was in the last list of those that can be served.
    pub listed: bool,
    /// Which role its worker was started as: see the launcher's count.
    pub generation: u32,
    /// When the last worker was started, or first seen.
    pub started: Instant,
    /// Not before this.
    pub due: Instant,
    said: Option<(Reason, Instant)>,
}

impl Watch {
    /// A database never seen before.
    pub fn new(now: Instant, generation: u32) -> Self {
        Watch {
            name: String::new(),
            handle: None,
            present: false,
            wanted: false,
            listed: false,
            generation,
            started: now,
            due: now,
            said: None,
        }
    }

    /// Whether a worker has been asked for that has not ended.
    pub fn is_on_its_way(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_over())
    }

    /// Says in the log why there is no worker: at once when it is news, once a minute while it lasts. Where nobody is
    /// known to have the extension, once has to do.
    pub fn complain(&mut self, reason: Reason, now: Instant) {
        let again = match self.said {
            Some((said, when)) if said == reason => self.wanted && now.duration_since(when) >= pace::COMPLAINT,
            _ => true,
        };
        if !again {
            return;
        }
        self.said = Some((reason, now));
        let Some(text) = reason.text() else { return };
        if self.wanted || reason == Reason::NoProcess {
            pgrx::warning!("dot_wrapper: no worker in database \"{}\": {text}", self.name);
        } else {
            pgrx::debug1!("dot_wrapper: cannot look into database \"{}\": {text}", self.name);
        }
    }
}

/// Starts a worker for a database, as the role in the setting, or notes why there can be none.
pub fn worker(database: Oid, watch: &mut Watch, role_name: &str, now: Instant) {
    let (state, failures) = slots::look(database).map_or((State::Unknown, 0), |view| (view.state, view.failures));
    let role = match find_role(role_name, database) {
        Ok(role) => role,
        Err(reason) => {
            let refusals = failures.saturating_add(1);
            slots::note(database, State::Refused, reason, refusals);
            watch.due = now + pace::after_refusals(refusals);
            watch.complain(reason, now);
            return;
        }
    };
    // A refusal that is over says nothing about the worker.
    let failures = if state == State::Refused { 0 } else { failures };
    // Before the request: the worker may be quicker than the next line.
    slots::note(database, State::Starting, Reason::None, failures);
    watch.started = now;
    watch.present = true;
    let name = c"dot_wrapper worker";
    watch.handle = bgworker::start_dynamic(name, entry::DATABASE, database.to_u32(), role.to_u32());
    if watch.handle.is_none() {
        watch.present = false;
        let failures = failures.saturating_add(1);
        slots::note(database, State::Failed, Reason::NoProcess, failures);
        // Nothing was started, and nothing but the complaint shows in the log.
        watch.due = now + pace::after_refusals(failures);
        watch.complain(Reason::NoProcess, now);
    }
}

/// The role, if it may serve.
pub fn find_role(name: &str, database: Oid) -> Result<Oid, Reason> {
    let role = match xact::transaction(|| role::lookup_afresh(name)) {
        Ok(found) => found.ok_or(Reason::RoleMissing)?,
        Err(error) => {
            pgrx::log!("dot_wrapper: could not look up the worker's role: {error}");
            return Err(Reason::NeverStarted);
        }
    };
    match xact::transaction(|| role::check_worker(role, database)) {
        Ok(Err(problem)) => Err(reason(problem)),
        // An error here says that the question cannot be decided without a database: the worker asks it again in one.
        Ok(Ok(())) | Err(_) => Ok(role),
    }
}

/// The reason that a role's problem makes.
pub fn reason(problem: RoleProblem) -> Reason {
    match problem {
        RoleProblem::Missing => Reason::RoleMissing,
        RoleProblem::Superuser => Reason::RoleSuperuser,
        RoleProblem::BypassRls => Reason::RoleBypassRls,
        RoleProblem::CreateRole => Reason::RoleCreateRole,
        RoleProblem::Replication => Reason::RoleReplication,
        RoleProblem::NoLogin => Reason::RoleNoLogin,
        RoleProblem::NoConnect => Reason::RoleNoConnect,
        RoleProblem::Membership => Reason::RoleMembership,
    }
}

//! The process of one database's worker, from its start to its first turn, and its end.
//!
//! Lives here: seat, connection, session, the checks that let it work. Does not live here: the work (`cycle`).
//!
//! It exits with 0 when it leaves on purpose; the launcher knows why from the table. An error ends it with 1, and the
//! launcher starts another. It never restarts itself.

use pgrx::pg_sys::Oid;
use uuid::Uuid;

use super::context::{Context, Ended};
use super::cycle;
use super::hold::Seat;
use super::slots::{Reason, State};
use super::start;
use crate::pg::lock::{SessionLock, try_session_lock};
use crate::pg::role::RoleProblem;
use crate::pg::{bgworker, process, role, session, signals, xact};
use crate::store::extension;

/// The process. `role` is what the launcher found for dot_wrapper.worker_role.
pub fn main(database: Oid, role: Oid) {
    signals::install();
    let Some(seat) = Seat::take(database) else { process::exit(0) };
    bgworker::connect(database, role);
    session::force_settings();
    session::set_application_name(c"dot_wrapper worker");
    let extension = match look_around(database) {
        Ok(extension) => extension,
        Err((state, reason)) => leave(&seat, state, reason),
    };
    if !try_session_lock(SessionLock::Worker) {
        leave(&seat, State::Failed, Reason::Twice);
    }
    seat.running();
    let context = Context::new(extension, Uuid::now_v7(), seat);
    match cycle::run(&context) {
        Ended::NoExtension => leave(context.seat(), State::NoExtension, Reason::None),
        Ended::Left => leave(context.seat(), State::Left, Reason::None),
    }
}

/// The extension's oid, if there is one and this role may serve it.
fn look_around(database: Oid) -> Result<Oid, (State, Reason)> {
    let looked = xact::transaction(|| {
        let problem: Option<RoleProblem> = role::check_worker(role::session_role(), database).err();
        let fits = extension::fits().ok().flatten();
        session::extension_oid(super::EXTENSION).map(|extension| (extension, problem, fits))
    });
    match looked {
        Err(error) => error.raise(),
        Ok(None) => Err((State::NoExtension, Reason::None)),
        Ok(Some((_, Some(problem), _))) => Err((State::Refused, start::reason(problem))),
        Ok(Some((_, None, Some(false)))) => Err((State::Refused, Reason::OtherVersion)),
        Ok(Some((extension, None, _))) => Ok(extension),
    }
}

fn leave(seat: &Seat, state: State, reason: Reason) -> ! {
    seat.leaving(state, reason);
    process::exit(0)
}

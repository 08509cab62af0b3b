//! How many files this process may have open: more than it was started with, and what it was started with, for programs.
//!
//! Servers are started with a soft limit of 1024 as a rule, so that programs which use select() are safe; a call holds a
//! connection, and a worker may have thousands. PostgreSQL's own files are not more for that: the postmaster has counted before
//! how many it dares to open. Does not live here: the limits of what is started (`child`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More than a worker with all that it may have out needs: 4,096 calls, 256 scripts with three pipes each, and PostgreSQL's files.
pub const ENOUGH: u64 = 65_536;

/// Until it is raised, the limit in force.
const NOT_RAISED: u64 = u64::MAX;
static BEFORE: AtomicU64 = AtomicU64::new(NOT_RAISED);

/// Raises the soft limit to the hard one, to [`ENOUGH`] at most, for this process and its threads. Never lowers it. Once, before
/// another thread starts programs; where the system does not let it, everything stays as it was.
pub fn raise() {
    let Some(now) = look() else { return };
    let wanted = now.rlim_max.min(ENOUGH);
    if wanted > now.rlim_cur {
        let raised = libc::rlimit { rlim_cur: wanted, ..now };
        // SAFETY: the structure is initialised and only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            BEFORE.store(now.rlim_cur, Relaxed);
        }
    }
}

/// The soft limit that this process was started with.
pub fn at_start() -> u64 {
    match BEFORE.load(Relaxed) {
        NOT_RAISED => look().map_or(NOT_RAISED, |now| now.rlim_cur),
        before => before,
    }
}

fn look() -> Option<libc::rlimit> {
    // SAFETY: the structure is plain data that the call fills.
    unsafe {
        let mut now: libc::rlimit = std::mem::zeroed();
        (libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) == 0).then_some(now)
    }
}

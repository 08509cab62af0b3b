//! Waking the worker after a commit, when it can know all of it: woken sooner it would look, see what was so before, and rest.
//!
//! Lives here: the two requests that the API makes. Does not live here: anything that a run depends on. A wake is a hint;
//! what gets lost (PREPARE TRANSACTION, a worker just starting) is found by the worker's poll.

use super::slots;
use crate::pg::session;
use crate::pg::xact::{AtEnd, End};

static WAKE: AtEnd = AtEnd::new(|end| {
    if end == End::Committed && !slots::wake_worker(session::database()) {
        slots::nudge(session::database());
    }
});

static SEAL: AtEnd = AtEnd::new(|end| {
    if end == End::Committed {
        slots::note_unsealed(session::database());
    }
});

/// Tells this database's worker when the current transaction commits that there is something to seal: a plan or a
/// refusal, for which it has nothing else to do.
pub fn request_seal() {
    SEAL.once();
}

/// Wakes this database's worker when the current transaction commits, once, however often this is called in it. Where
/// there is no worker, the launcher may be asked to look.
pub fn request_wake() {
    WAKE.once();
}

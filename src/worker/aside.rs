//! Stepping aside: what happens around the commands that the utility hook sees.
//!
//! Lives here: hold, ask, wait, release; and telling launcher or worker about the extension at commit. Does not live here:
//! recognising a command and who may give it (`pg::utility`).
//!
//! A hold ends with the transaction, whichever way that ends, so an error in the command needs no handling here. After
//! PREPARE TRANSACTION of a rename the lock on the database keeps a new worker waiting by itself.

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use super::{hold, slots};
use crate::pg::utility::{Command, Handlers};
use crate::pg::xact::{AtEnd, End};
use crate::pg::{latch, process, session};

/// For `pg::utility`.
pub const HANDLERS: Handlers = Handlers { before, after };

/// As long as PostgreSQL itself waits for other sessions of a database.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a worker gets to finish calls in, before SIGTERM turns them into doubts.
const GRACE: Duration = Duration::from_secs(3);
/// The same when the database is about to vanish with all its runs.
const GRACE_DROP: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(10);

static RELEASE: AtEnd = AtEnd::new(|_| hold::release_all());
static CREATED: AtEnd = AtEnd::new(|end| {
    if end == End::Committed {
        slots::ask_for_probe(session::database());
    }
});
static TOUCHED: AtEnd = AtEnd::new(|end| {
    let database = session::database();
    if end == End::Committed && !slots::wake_worker(database) {
        // A version that could not be served may have become one that can.
        if slots::look(database).is_some_and(|view| view.state == slots::State::Refused) {
            slots::ask_for_probe(database);
        }
    }
});

fn before(command: Command) {
    if let Command::NeedsEmpty { database, drop } = command
        && !session::in_recovery()
    {
        RELEASE.once();
        let worker = hold::hold(database);
        if worker != 0 {
            wait_until_gone(database, worker, if drop { GRACE_DROP } else { GRACE });
        }
    }
}

fn after(command: Command) {
    match command {
        Command::NeedsEmpty { .. } => {}
        Command::ExtensionCreated => {
            if session::extension_oid(super::EXTENSION).is_some() {
                // The slot is made here, where an error is still allowed.
                slots::ensure(session::database());
                CREATED.once();
            }
        }
        Command::ExtensionTouched => TOUCHED.once(),
    }
}

/// Cancel and terminate end the wait with their error, which ends the transaction, which ends the hold.
fn wait_until_gone(database: Oid, worker: i32, grace: Duration) {
    let start = Instant::now();
    let mut signalled = false;
    loop {
        let seated =
            slots::find(database).is_some_and(|slot| slot.pid.load(std::sync::atomic::Ordering::Acquire) == worker);
        // Off the seat it is on its way out, but PostgreSQL counts it until it has left the process array.
        if !seated && !process::is_connected(worker) {
            return;
        }
        let waited = start.elapsed();
        if waited >= PATIENCE {
            return;
        }
        if seated && !signalled && waited >= grace {
            process::terminate(worker);
            signalled = true;
        }
        latch::pause(STEP);
    }
}

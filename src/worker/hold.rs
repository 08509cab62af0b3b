//! Seats and holds: who may be in a database, decided under the table's lock.
//!
//! Lives here: sitting down as a database's worker, and keeping workers out of a database. Does not live here: waiting
//! for a worker to go (`aside`), or starting one (`launcher`).

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use pgrx::pg_sys::Oid;

use super::slots::{self, Reason, State};
use crate::pg::shmem::{self, Slot};
use crate::pg::{process, session, signals};

/// This process as the worker of one database, in the table from before it connects until it exits.
pub struct Seat(&'static Slot);

impl Seat {
    /// Sits down, unless the database is held or somebody else sits there.
    pub fn take(database: Oid) -> Option<Seat> {
        slots::ensure(database);
        // Registered first: it clears nothing but what carries our pid.
        process::before_exit(stand_up);
        let slot = shmem::locked(|_| {
            let slot = slots::find(database)?;
            if slot.pid.load(Acquire) != 0 {
                return None;
            }
            if is_held(slot) {
                slot.state.store(State::Left as u8, Release);
                return None;
            }
            slot.leave.store(false, Release);
            slot.state.store(State::Starting as u8, Release);
            slot.latch.publish();
            slot.pid.store(session::pid(), Release);
            Some(slot)
        });
        slot.flatten().map(Seat)
    }

    /// From here on this is a worker at work.
    pub fn running(&self) {
        self.0.reason.store(Reason::None as u8, Release);
        self.0.state.store(State::Running as u8, Release);
        // It may have been holding others back.
        if let Some(table) = shmem::table() {
            table.launcher_latch.set();
        }
    }

    /// Says why this process is about to exit, when that is not an error.
    pub fn leaving(&self, state: State, reason: Reason) {
        self.0.reason.store(reason as u8, Release);
        self.0.state.store(state as u8, Release);
    }

    /// Whether a commit has left work since the last call.
    pub fn take_wake(&self) -> bool {
        self.0.wake.swap(false, AcqRel)
    }

    /// Whether a commit has left events to seal since they were taken note of.
    pub fn has_unsealed(&self) -> bool {
        self.0.unsealed.load(Acquire)
    }

    /// Whether a commit has left events to seal since the last call.
    pub fn take_unsealed(&self) -> bool {
        self.0.unsealed.swap(false, AcqRel)
    }

    /// Whether the worker is to finish what it has in hand and exit.
    pub fn must_leave(&self) -> bool {
        self.0.leave.load(Acquire)
    }
}

/// At exit, by whichever way: the seat is free, and the launcher hears of it.
fn stand_up() {
    let Some(table) = shmem::table() else { return };
    let me = session::pid();
    for slot in &table.slots {
        if slot.pid.load(Acquire) != me {
            continue;
        }
        slot.latch.clear();
        let unsaid = [(State::Running, Reason::Ended), (State::Starting, Reason::NeverStarted)];
        for (state, reason) in unsaid {
            if slot.state.load(Acquire) == state as u8 {
                // Who was told to end has not failed: no reason to wait before the next one is started.
                let told = signals::told_to_end();
                let (state, reason) = if told { (State::Left, Reason::None) } else { (State::Failed, reason) };
                slot.reason.store(reason as u8, Release);
                slot.state.store(state as u8, Release);
            }
        }
        slot.pid.store(0, Release);
    }
    table.launcher_latch.set();
}

/// Keeps workers out of a database for this session, and asks the one in it to leave. Returns that one's pid, 0 for none.
///
/// Nothing is kept when the table is full: the command then meets the worker as it would without us.
pub fn hold(database: Oid) -> i32 {
    slots::ensure(database);
    let me = session::pid();
    shmem::locked(|_| {
        if let Some(slot) = slots::find(database) {
            // Their own exit has cleared dead ones, unless it was a crash, which clears everything.
            let free = slot.holders.iter().find(|holder| [0, me].contains(&holder.load(Acquire)));
            if let Some(holder) = free {
                holder.store(me, Release);
            }
        }
    });
    slots::ask_to_leave(database)
}

/// Ends all holds of this session, and lets the launcher know. Never fails: fit for the end of a transaction.
pub fn release_all() {
    let Some(table) = shmem::table() else { return };
    let me = session::pid();
    for holder in table.slots.iter().flat_map(|slot| &slot.holders) {
        let _ = holder.compare_exchange(me, 0, AcqRel, Acquire);
    }
    // What was copied, renamed or dropped shows in the list of databases.
    slots::ask_for_rescan();
}

/// Takes back the request to leave, for the worker that has not left yet, unless somebody needs the database empty.
pub fn let_stay(database: Oid) {
    shmem::locked(|_| {
        // Who takes a hold asks the worker to leave after that: so either the hold is seen here, or the asking comes later.
        if let Some(slot) = slots::find(database).filter(|slot| !is_held(slot)) {
            slot.leave.store(false, Release);
            slot.latch.set();
        }
    });
}

/// Whether a living session holds this database. Forgets the dead.
pub fn held(database: Oid) -> bool {
    slots::find(database).is_some_and(is_held)
}

fn is_held(slot: &Slot) -> bool {
    slot.holders.iter().any(|holder| {
        let pid = holder.load(Acquire);
        let alive = process::is_connected(pid);
        if pid != 0 && !alive {
            let _ = holder.compare_exchange(pid, 0, AcqRel, Acquire);
        }
        alive
    })
}

//! Who works for which database: the meaning of the shared table.
//!
//! Lives here: every change of a slot, each safe against the others whatever the order. Does not live here: the layout
//! (`pg::shmem`), the decision when to start a worker (`launcher`), or what a hold is for (`aside`).
//!
//! A worker takes its *seat* before it connects to its database, and a session that needs the database empty takes a
//! *hold*; both under the table's lock. So either the session sees the seated worker and asks it to leave, or the worker
//! sees the hold and does not sit down.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicUsize};

use pgrx::pg_sys::Oid;

use crate::pg::shmem::{self, SLOTS, Slot, Table};
use crate::pg::{process, session};

/// What the launcher knows of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nobody has looked yet.
    Unknown = 0,
    /// A worker is on its way.
    Starting = 1,
    /// A worker is at work.
    Running = 2,
    /// A worker has looked: the extension is not installed.
    NoExtension = 3,
    /// The last worker ended by an error; another will be tried.
    Failed = 4,
    /// No worker may run as things are; see the reason.
    Refused = 5,
    /// The worker left because it was asked to.
    Left = 6,
}

impl State {
    fn read(slot: &Slot) -> State {
        match slot.state.load(Acquire) {
            1 => State::Starting,
            2 => State::Running,
            3 => State::NoExtension,
            4 => State::Failed,
            5 => State::Refused,
            6 => State::Left,
            _ => State::Unknown,
        }
    }
}

/// Why there is no worker. The texts are what the log and the doctor say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Nothing is wrong.
    None = 0,
    /// It ended by an error after it had started to work.
    Ended = 1,
    /// It ended by an error before that.
    NeverStarted = 2,
    /// max_worker_processes is used up.
    NoProcess = 3,
    /// Another process has the worker's lock.
    Twice = 4,
    /// The role in dot_wrapper.worker_role does not exist.
    RoleMissing = 5,
    /// That role is a superuser.
    RoleSuperuser = 6,
    /// That role has BYPASSRLS.
    RoleBypassRls = 7,
    /// That role has CREATEROLE.
    RoleCreateRole = 8,
    /// That role has REPLICATION.
    RoleReplication = 9,
    /// That role has no LOGIN.
    RoleNoLogin = 10,
    /// That role may not connect to the database.
    RoleNoConnect = 11,
    /// That role is a member of one that is more.
    RoleMembership = 12,
    /// The library does not know this version of the extension.
    OtherVersion = 13,
}

const REASONS: [(Reason, &str); 13] = [
    (Reason::OtherVersion, "the library does not know this version of the extension: update it, or restart the server"),
    (Reason::Ended, "the worker ended with an error; the server log has it"),
    (Reason::NeverStarted, "the worker could not start; the server log says why"),
    (Reason::NoProcess, "no background worker is free: raise max_worker_processes"),
    (Reason::Twice, "another process has the worker's lock"),
    (Reason::RoleMissing, "the role in dot_wrapper.worker_role does not exist"),
    (Reason::RoleSuperuser, "the role in dot_wrapper.worker_role is a superuser"),
    (Reason::RoleBypassRls, "the role in dot_wrapper.worker_role has BYPASSRLS"),
    (Reason::RoleCreateRole, "the role in dot_wrapper.worker_role has CREATEROLE"),
    (Reason::RoleReplication, "the role in dot_wrapper.worker_role has REPLICATION"),
    (Reason::RoleNoLogin, "the role in dot_wrapper.worker_role has no LOGIN"),
    (Reason::RoleNoConnect, "the role in dot_wrapper.worker_role may not connect to the database"),
    (
        Reason::RoleMembership,
        "the role in dot_wrapper.worker_role is a member of a superuser, or of another role that is more than it may be",
    ),
];

impl Reason {
    fn read(slot: &Slot) -> Reason {
        let code = slot.reason.load(Acquire);
        REASONS.iter().map(|(reason, _)| *reason).find(|reason| *reason as u8 == code).unwrap_or(Reason::None)
    }

    /// In words; `None` when nothing is wrong.
    pub fn text(self) -> Option<&'static str> {
        REASONS.iter().find(|(reason, _)| *reason == self).map(|(_, text)| *text)
    }
}

/// A copy of one slot.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The database.
    pub database: Oid,
    /// Its state.
    pub state: State,
    /// What was last wrong.
    pub reason: Reason,
    /// Failures in a row.
    pub failures: u32,
    /// Its worker's pid; 0 for none.
    pub pid: i32,
    /// Whether the worker was asked to leave.
    pub leaving: bool,
}

/// One database, as it is now.
pub fn look(database: Oid) -> Option<View> {
    find(database).map(view)
}

/// All databases known.
pub fn views() -> Vec<View> {
    shmem::table().map_or_else(Vec::new, |table| {
        table.slots.iter().filter(|slot| slot.database.load(Acquire) != 0).map(view).collect()
    })
}

fn view(slot: &Slot) -> View {
    View {
        database: Oid::from(slot.database.load(Acquire)),
        state: State::read(slot),
        reason: Reason::read(slot),
        failures: slot.failures.load(Relaxed),
        pid: slot.pid.load(Acquire),
        leaving: slot.leave.load(Acquire),
    }
}

/// The slot of a database, if it has one.
pub(super) fn find(database: Oid) -> Option<&'static Slot> {
    shmem::table().and_then(|table| find_in(table, database))
}

fn find_in(table: &'static Table, database: Oid) -> Option<&'static Slot> {
    // Callers look for the same database again and again; remember where it was.
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let wanted = database.to_u32();
    let is_it = |slot: &&Slot| wanted != 0 && slot.database.load(Acquire) == wanted;
    if let Some(slot) = table.slots.get(LAST.load(Relaxed)).filter(is_it) {
        return Some(slot);
    }
    let (index, slot) = table.slots.iter().enumerate().find(|(_, slot)| is_it(slot))?;
    LAST.store(index, Relaxed);
    Some(slot)
}

/// Gives a database a slot, if it has none. `false` when all are taken.
pub fn ensure(database: Oid) -> bool {
    find(database).is_some() || shmem::locked(|table| take(table, database).is_some()).unwrap_or(false)
}

/// Under the lock.
fn take(table: &'static Table, database: Oid) -> Option<&'static Slot> {
    if let Some(slot) = find_in(table, database) {
        return Some(slot);
    }
    let free = table.slots.iter().find(|slot| slot.database.load(Acquire) == 0)?;
    reset(free, database.to_u32());
    Some(free)
}

fn reset(slot: &Slot, database: u32) {
    slot.state.store(State::Unknown as u8, Relaxed);
    slot.reason.store(Reason::None as u8, Relaxed);
    slot.failures.store(0, Relaxed);
    slot.wake.store(false, Relaxed);
    slot.unsealed.store(false, Relaxed);
    slot.leave.store(false, Relaxed);
    slot.probe.store(false, Relaxed);
    slot.database.store(database, Release);
}

/// Frees the slots of databases that are not in `wanted`, unless somebody sits or holds there. Says which.
pub fn retire_others(wanted: &[Oid]) -> Vec<Oid> {
    let mut gone = Vec::with_capacity(SLOTS);
    shmem::locked(|table| {
        for slot in &table.slots {
            let database = Oid::from(slot.database.load(Acquire));
            let empty = slot.pid.load(Acquire) == 0 && slot.holders.iter().all(|holder| holder.load(Acquire) == 0);
            if database != Oid::INVALID && empty && !wanted.contains(&database) {
                reset(slot, 0);
                gone.push(database);
            }
        }
    });
    gone
}

/// Notes a state without a worker: why there is none, and how many failures in a row that makes.
pub fn note(database: Oid, state: State, reason: Reason, failures: u32) {
    if let Some(slot) = find(database) {
        slot.reason.store(reason as u8, Relaxed);
        slot.failures.store(failures, Relaxed);
        slot.state.store(state as u8, Release);
    }
}

/// Forgets the failures in a row.
pub fn forgive(database: Oid) {
    if let Some(slot) = find(database) {
        slot.failures.store(0, Relaxed);
    }
}

/// Takes back the request to look at this database now.
pub fn take_probe(database: Oid) -> bool {
    find(database).is_some_and(|slot| slot.probe.swap(false, AcqRel))
}

/// Asks for a look at this database, and wakes the launcher. Never fails: fit for a commit callback.
pub fn ask_for_probe(database: Oid) {
    if let Some(table) = shmem::table() {
        match find_in(table, database) {
            Some(slot) => slot.probe.store(true, Release),
            None => table.rescan.store(true, Release),
        }
        table.launcher_latch.set();
    }
}

/// There is work, and no worker: asks for a look where the launcher believes that there is no extension. A worker that
/// cannot start as things are is left to its back-off, however many commits ask. Never fails.
pub fn nudge(database: Oid) {
    let settled = [State::Starting, State::Running, State::Failed, State::Refused, State::Left];
    if !find(database).is_some_and(|slot| settled.contains(&State::read(slot))) {
        ask_for_probe(database);
    }
}

/// Asks the launcher to read the list of databases. Never fails.
pub fn ask_for_rescan() {
    if let Some(table) = shmem::table() {
        table.rescan.store(true, Release);
        table.launcher_latch.set();
    }
}

/// Takes back that request.
pub fn take_rescan() -> bool {
    shmem::table().is_some_and(|table| table.rescan.swap(false, AcqRel))
}

/// Tells this database's worker that there is work. `false` when there is no worker. Never fails.
pub fn wake_worker(database: Oid) -> bool {
    let Some(slot) = find(database) else { return false };
    slot.wake.store(true, Release);
    slot.latch.set();
    slot.pid.load(Acquire) != 0
}

/// Tells this database's worker that there is something to seal and nothing else. However many commits do, it is woken
/// once for each time it has sealed. Never fails.
pub fn note_unsealed(database: Oid) {
    if let Some(slot) = find(database)
        && !slot.unsealed.swap(true, AcqRel)
    {
        slot.latch.set();
    }
}

/// Asks this database's worker to finish what it has in hand and exit. Returns its pid, 0 for none.
pub fn ask_to_leave(database: Oid) -> i32 {
    let Some(slot) = find(database) else { return 0 };
    slot.leave.store(true, Release);
    slot.latch.set();
    slot.pid.load(Acquire)
}

/// Makes this process the launcher in the table, until it exits.
pub fn seat_launcher() {
    let Some(table) = shmem::table() else { return };
    process::before_exit(unseat_launcher);
    table.launcher_latch.publish();
    table.launcher.store(session::pid(), Release);
}

fn unseat_launcher() {
    if let Some(table) = shmem::table()
        && table.launcher.compare_exchange(session::pid(), 0, AcqRel, Acquire).is_ok()
    {
        table.launcher_latch.clear();
    }
}

/// What `fn_dot_doctor()` has to say about this database's worker.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Whether the library is in shared_preload_libraries.
    pub preloaded: bool,
    /// The launcher's pid.
    pub launcher_pid: Option<i32>,
    /// The worker's pid.
    pub worker_pid: Option<i32>,
    /// One word: unknown, starting, running, no_extension, backing_off, refused, left, held.
    pub state: &'static str,
    /// What was last wrong.
    pub last_error: Option<&'static str>,
    /// Failures in a row.
    pub failures: u32,
}

/// The facts about the database that this session is in.
pub fn facts() -> Facts {
    let some = |pid: &AtomicI32| Some(pid.load(Acquire)).filter(|pid| *pid != 0);
    let table = shmem::table();
    let slot = table.and_then(|table| find_in(table, session::database()));
    Facts {
        preloaded: table.is_some(),
        launcher_pid: table.and_then(|table| some(&table.launcher)),
        worker_pid: slot.and_then(|slot| some(&slot.pid)),
        state: slot.map_or("unknown", word),
        last_error: slot.and_then(|slot| Reason::read(slot).text()),
        failures: slot.map_or(0, |slot| slot.failures.load(Relaxed)),
    }
}

fn word(slot: &Slot) -> &'static str {
    if slot.holders.iter().any(|holder| holder.load(Acquire) != 0) {
        return "held";
    }
    match State::read(slot) {
        State::Unknown => "unknown",
        State::Starting => "starting",
        State::Running => "running",
        State::NoExtension => "no_extension",
        State::Failed => "backing_off",
        State::Refused => "refused",
        State::Left => "left",
    }
}

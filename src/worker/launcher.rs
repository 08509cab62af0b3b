//! The launcher: one process that keeps a worker in every database that has the extension.
//!
//! Lives here: its loop, the list of databases, what is done about a worker that ended. Does not live here: the table
//! (`slots`), starting one worker (`start`), the numbers (`pace`).
//!
//! It is connected to the shared catalogues only, so it is in no database's way. It never gives up: what fails in a turn
//! is tried again in a later one; what ends the process is answered by the postmaster, which starts it again in a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use super::pace;
use super::slots::{self, Reason, State, View};
use super::start::{self, Watch};
use super::{guc, hold};
use crate::pg::xact;
use crate::pg::{bgworker, databases, entry, latch, role, session, signals};

/// Registers the launcher with the postmaster. Only from `_PG_init`, while preloading.
pub fn register() {
    bgworker::register_static(c"dot_wrapper launcher", entry::LAUNCHER, Duration::from_secs(1));
}

/// The launcher's process.
pub fn main() -> ! {
    signals::install();
    bgworker::connect_shared();
    if let Err(error) = xact::transaction(role::follow_memberships) {
        error.raise();
    }
    session::force_settings();
    session::set_application_name(c"dot_wrapper launcher");
    slots::seat_launcher();
    let mut launcher = Launcher::new(Instant::now());
    loop {
        signals::reload_config_if_asked();
        let pause = launcher.turn(Instant::now());
        session::report_idle();
        latch::wait(None, pause);
    }
}

struct Launcher {
    watches: HashMap<Oid, Watch>,
    next_scan: Instant,
    enabled: bool,
    role: String,
    /// Counts the changes of the role; a worker of an earlier count has to go.
    generation: u32,
    full: bool,
}

impl Launcher {
    fn new(now: Instant) -> Self {
        Launcher {
            watches: HashMap::new(),
            next_scan: now,
            enabled: guc::worker_enabled(),
            role: guc::worker_role(),
            generation: 0,
            full: false,
        }
    }

    /// One look at everything; how long to wait for the next.
    fn turn(&mut self, now: Instant) -> Duration {
        self.follow_settings(now);
        if slots::take_rescan() || now >= self.next_scan {
            self.scan(now);
        }
        let views = slots::views();
        let mut starting = views.iter().filter(|view| self.is_starting(view, now)).count();
        let mut next = self.next_scan;
        for view in views {
            next = next.min(self.look(view, now, starting < pace::PROBES));
            let started = slots::look(view.database).is_some_and(|view| view.state == State::Starting);
            starting += usize::from(started && view.state != State::Starting);
        }
        next.saturating_duration_since(now).max(Duration::from_millis(10))
    }

    fn is_starting(&self, view: &View, now: Instant) -> bool {
        let slow = |watch: &Watch| now.duration_since(watch.started) >= pace::SLOW_START;
        view.state == State::Starting && !self.watches.get(&view.database).is_some_and(slow)
    }

    fn follow_settings(&mut self, now: Instant) {
        self.enabled = guc::worker_enabled();
        let role = guc::worker_role();
        if role != self.role {
            self.role = role;
            self.generation = self.generation.wrapping_add(1);
            for watch in self.watches.values_mut() {
                watch.due = now;
            }
        }
    }

    /// Brings table and watches in line with the shared catalogues.
    fn scan(&mut self, now: Instant) {
        self.next_scan = now + pace::RESCAN;
        let found = match xact::transaction(databases::connectable) {
            Ok(found) => found,
            Err(error) => {
                pgrx::warning!("dot_wrapper: could not read the list of databases: {error}");
                return;
            }
        };
        let oids: Vec<Oid> = found.iter().map(|(oid, _)| *oid).collect();
        for gone in slots::retire_others(&oids) {
            self.watches.remove(&gone);
        }
        for (oid, watch) in &mut self.watches {
            watch.listed = oids.contains(oid);
        }
        let mut full = false;
        for (oid, name) in found {
            full |= !slots::ensure(oid);
            let watch = self.watches.entry(oid).or_insert_with(|| Watch::new(now, self.generation));
            watch.name = name;
            watch.listed = true;
        }
        if full && !self.full {
            pgrx::warning!("dot_wrapper: more databases than the {} that can be served", crate::pg::shmem::SLOTS);
        }
        self.full = full;
        self.check_running();
    }

    /// A worker whose role has meanwhile become too much, or too little, leaves; one whose database does not want
    /// connections any more, too.
    fn check_running(&self) {
        for view in slots::views().into_iter().filter(|view| view.state == State::Running && view.pid != 0) {
            let listed = self.watches.get(&view.database).is_some_and(|watch| watch.listed);
            if !listed || start::find_role(&self.role, view.database).is_err() {
                slots::ask_to_leave(view.database);
            }
        }
    }

    /// One database: notices an end, starts a worker if it is time. When to look again.
    fn look(&mut self, view: View, now: Instant, may_start: bool) -> Instant {
        let soon = now + Duration::from_secs(1);
        let watch = self.watches.entry(view.database).or_insert_with(|| Watch::new(now, self.generation));
        if view.pid != 0 || watch.is_on_its_way() {
            watch.present = true;
            if !self.enabled || watch.generation != self.generation {
                slots::ask_to_leave(view.database);
            } else if view.leaving && watch.listed && start::find_role(&self.role, view.database).is_ok() {
                // It waits for the calls that are out; what it was asked to leave for is over.
                hold::let_stay(view.database);
            }
            return if still_running(&view, watch, now) { now + pace::RESCAN } else { soon };
        }
        if watch.present {
            watch.present = false;
            watch.handle = None;
            ended(view.database, watch, now);
        }
        if slots::take_probe(view.database) {
            watch.wanted = true;
            watch.due = now;
            slots::note(view.database, State::Unknown, Reason::None, 0);
            if !watch.listed {
                slots::ask_for_rescan();
            }
        }
        if !self.enabled || !watch.listed {
            return now + pace::RESCAN;
        }
        if now < watch.due {
            return watch.due;
        }
        if hold::held(view.database) || !may_start {
            return soon;
        }
        watch.generation = self.generation;
        start::worker(view.database, watch, &self.role, now);
        if watch.present { soon } else { watch.due }
    }
}

/// Notes what a worker's being there tells; whether it is at work. Its end is told by the latch.
fn still_running(view: &View, watch: &mut Watch, now: Instant) -> bool {
    if view.state != State::Running {
        return false;
    }
    watch.wanted = true;
    if view.failures != 0 && now.duration_since(watch.started) >= pace::HEALTHY {
        slots::forgive(view.database);
    }
    true
}

/// A worker has gone: what that means, and when to try again.
fn ended(database: Oid, watch: &mut Watch, now: Instant) {
    // Read now: what it wrote last, it wrote before it went.
    let Some(view) = slots::look(database) else { return };
    let lived = now.duration_since(watch.started);
    let failures = pace::count(view.failures, lived);
    match view.state {
        State::NoExtension => {
            watch.wanted = false;
            watch.due = now + pace::REPROBE;
        }
        State::Left | State::Unknown => watch.due = now + pace::after_leaving(lived),
        State::Refused => {
            slots::note(database, State::Refused, view.reason, failures);
            watch.due = now + pace::after_refusals(failures);
            watch.complain(view.reason, now);
        }
        State::Failed | State::Running | State::Starting => {
            // Its own error is in the log, and the postmaster's line about its exit.
            let reason = if view.reason == Reason::None { Reason::NeverStarted } else { view.reason };
            slots::note(database, State::Failed, reason, failures);
            watch.due = now + pace::after_failures(failures);
        }
    }
}

//! What everybody in the storm shares: the server of the moment, the agent, what callers were told, and what was done to
//! the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use uuid::Uuid;

use super::agent::Agent;
use super::server::Server;

/// What a caller knows of the end of his transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// COMMIT returned.
    Committed,
    /// COMMIT returned, with synchronous_commit off.
    Promised,
    /// ROLLBACK, of the transaction or of the savepoint, or an error before COMMIT.
    RolledBack,
    /// The connection was lost in COMMIT, or the transaction is prepared.
    Unknown,
}

/// A run that a caller was given.
#[derive(Clone, Debug)]
pub struct Asked {
    pub run: Uuid,
    pub mode: &'static str,
    pub told: Told,
    /// When he was told.
    pub at: SystemTime,
}

/// A prepared transaction.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub name: String,
    pub runs: Vec<Uuid>,
}

/// Something that ended processes of the server.
#[derive(Clone, Debug)]
pub struct Crash {
    pub kind: &'static str,
    /// Before it was done.
    pub began: SystemTime,
    /// When nobody of before could write any more.
    pub down: SystemTime,
    /// When the server let in again.
    pub accepts: SystemTime,
    /// Whether the whole server went down, so that the time of recovery counts.
    pub whole: bool,
}

impl Crash {
    /// What, and when as the server's log has it.
    pub fn tell(&self) -> String {
        let since = self.accepts.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let day = since % 86_400_000;
        let (h, m, s, ms) = (day / 3_600_000, day / 60_000 % 60, day / 1000 % 60, day % 1000);
        format!("({}, back {h:02}:{m:02}:{s:02}.{ms:03})", self.kind)
    }
}

/// All of it.
pub struct World {
    pub seed: u64,
    pub agent: Agent,
    server: RwLock<Arc<Server>>,
    asked: Mutex<Vec<Asked>>,
    prepared: Mutex<Vec<Prepared>>,
    crashes: Mutex<Vec<Crash>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// Runs that were set aside because a worker died over them.
    pub set_aside: AtomicUsize,
    /// Runs in doubt that the operator has resolved.
    pub resolved: AtomicUsize,
    errors: Mutex<BTreeMap<String, usize>>,
}

impl World {
    pub fn new(seed: u64, agent: Agent, server: Server) -> World {
        World {
            seed,
            agent,
            server: RwLock::new(Arc::new(server)),
            asked: Mutex::default(),
            prepared: Mutex::default(),
            crashes: Mutex::default(),
            wrong: Mutex::default(),
            stop: AtomicBool::new(false),
            set_aside: AtomicUsize::new(0),
            resolved: AtomicUsize::new(0),
            errors: Mutex::default(),
        }
    }

    /// The primary of the moment.
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this one is the primary.
    pub fn change_server(&self, server: Server) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
    }

    pub fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        lock(&self.asked)
    }

    pub fn prepared(&self) -> MutexGuard<'_, Vec<Prepared>> {
        lock(&self.prepared)
    }

    pub fn crashes(&self) -> MutexGuard<'_, Vec<Crash>> {
        lock(&self.crashes)
    }

    /// What callers saw that must not be.
    pub fn wrong(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.wrong)
    }

    /// What ended transactions before their end, by SQLSTATE.
    pub fn errors(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        lock(&self.errors)
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

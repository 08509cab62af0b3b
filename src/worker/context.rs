//! What a worker's process knows of itself, and how its work can end. Made by `database`, used by everything that works.

use pgrx::pg_sys::Oid;
use uuid::Uuid;

use super::hold::Seat;

/// What a worker knows of itself, for as long as it lives.
pub struct Context {
    /// The extension it serves. Another one under the same name is not ours: compare at each turn.
    pub extension: Oid,
    /// This process, and no other ever: pids and names come back.
    pub identity: Uuid,
    seat: Seat,
}

impl Context {
    /// For the process that has taken the seat.
    pub fn new(extension: Oid, identity: Uuid, seat: Seat) -> Self {
        Context { extension, identity, seat }
    }

    /// Its seat in the shared table.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Whether a commit has left work since the last call.
    pub fn take_wake(&self) -> bool {
        self.seat.take_wake()
    }

    /// Whether a commit has left events to seal since they were taken note of.
    pub fn has_unsealed(&self) -> bool {
        self.seat.has_unsealed()
    }

    /// Whether a commit has left events to seal since the last call.
    pub fn take_unsealed(&self) -> bool {
        self.seat.take_unsealed()
    }

    /// Whether to finish what is in hand and return [`Ended::Left`]: somebody needs the database empty, or the settings
    /// changed. After a few seconds SIGTERM follows where a command waits.
    pub fn must_leave(&self) -> bool {
        self.seat.must_leave()
    }
}

/// Why a worker's work is over. Anything else is an error: raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The extension is gone, or is another one.
    NoExtension,
    /// It was asked to leave.
    Left,
}

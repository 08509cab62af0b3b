//! Programs as the engine sees them: what is to be started, what was started, and what both say. Who starts them is handed in,
//! since that takes what the engine does not touch.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::domain::script::Roots;

/// What is to be started: a file that was just looked at.
#[derive(Clone, Debug)]
pub struct Program {
    /// Absolute, links followed.
    pub path: String,
    /// Without the zeroth.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(&'static str, String)>,
    /// After so long it is ended without being asked for: whoever started it was stopped.
    pub most: Duration,
    /// What the kernel holds it to.
    pub limits: crate::domain::script::Limits,
}

/// Where it is heard: ends of pipes to write to, whose other ends are listened to before it is started.
#[derive(Debug)]
pub struct Ends {
    /// What it prints.
    pub stdout: OwnedFd,
    /// What it complains of.
    pub stderr: OwnedFd,
    /// `E` and an errno (little-endian) when it could not be executed, `S` and its wait status when it has ended. The pipe's
    /// end: nothing of it is left.
    pub life: OwnedFd,
}

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// Whom `stop` and `reap` are about.
    pub keeper: i32,
    /// Asks for its end, which comes within some seconds.
    pub stop: fn(i32),
    /// Takes leave of what keeps it; true when that is gone. Never waits. Not to be asked again then.
    pub reap: fn(i32) -> bool,
}

/// Starts one, on the engine's thread. An error: nothing was started.
pub type Start = fn(&Program, Ends) -> io::Result<Started>;

/// How scripts are run.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    /// Where they may be.
    pub roots: Roots,
    /// The server's user.
    pub user: u32,
    /// Without it none is started.
    pub start: Option<Start>,
}

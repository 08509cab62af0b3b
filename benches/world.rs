//! What all figures share: the options, the server, the agent.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::agent::Agent;
use crate::server::Server;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Small sizes: to see that it works, not to quote.
    pub quick: bool,
    /// How often each figure is measured.
    pub rounds: usize,
}

impl Options {
    /// One of two sizes.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// A size that the environment may give: `GROWTH=200000`.
pub fn given(name: &str, otherwise: usize) -> usize {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// One run of the bench.
pub struct World {
    /// How much is measured.
    pub options: Options,
    /// The server of both sides.
    pub server: Server,
    /// Whom both sides call.
    pub agent: Agent,
    databases: AtomicU32,
}

impl World {
    /// Starts all of it.
    pub fn start(options: Options) -> World {
        World { options, server: Server::start(), agent: Agent::start(), databases: AtomicU32::new(0) }
    }

    /// Makes a database; its name.
    pub fn database(&self) -> String {
        let name = format!("bench_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.server.session("postgres").batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
        name
    }

    /// Drops a database that [`World::database`] made.
    pub fn drop_database(&self, name: &str) {
        let _ = self.server.session("postgres").batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }

    /// Before each measurement: what an earlier one left dirty is written now.
    pub fn settle(&self) {
        self.server.session("postgres").batch_execute("CHECKPOINT").expect("a checkpoint");
    }
}

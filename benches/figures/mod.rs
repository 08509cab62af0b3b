//! The figures, a file each. Each is a function that measures and returns lines of the table and pictures.

mod apply;
mod concurrency;
mod drain;
mod growth;
mod idle;
mod memory;
mod refused;
mod run_all;
mod slow;
mod snapshot;
mod tune;
mod wire;

use crate::figure::Outcome;
use crate::world::World;

/// What measures one file's figures.
pub type Measure = fn(&World) -> Outcome;

/// All of them, in the order of the table, under the names that ONLY takes.
pub const ALL: &[(&str, Measure)] = &[
    ("drain", drain::at_once),
    ("drain50", drain::after_50_ms),
    ("latency", wire::measure),
    ("slow", slow::measure),
    ("idle", idle::measure),
    ("concurrency", concurrency::measure),
    ("apply", apply::measure),
    ("run_all", run_all::measure),
    ("refused", refused::measure),
    ("snapshot", snapshot::measure),
    ("memory", memory::measure),
    ("growth", growth::measure),
];

/// Measured only when ONLY names them.
pub const ON_REQUEST: &[(&str, Measure)] = &[("tune", tune::measure)];

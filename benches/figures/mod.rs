//! The figures, a file each. Each is a function that measures and returns lines of the table and pictures.

mod drain;

use crate::figure::Outcome;
use crate::world::World;

/// What measures one file's figures.
pub type Measure = fn(&World) -> Outcome;

/// All of them, in the order of the table, under the names that ONLY takes.
pub const ALL: &[(&str, Measure)] = &[("drain", drain::measure)];

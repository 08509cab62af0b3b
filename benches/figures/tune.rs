//! Whether graphile-worker is given its best: the same drain and the same latency with other options of it. Measured only
//! when ONLY names it; benches/README.md says what came of it.

use serde_json::json;

use super::drain::drain_theirs_with;
use super::wire::{at, time_theirs};
use crate::figure::{Figure, Outcome};
use crate::theirs::{Options, Task, Theirs};
use crate::world::World;

/// What is tried: first what `make bench` uses.
const TRIED: [Options; 7] = [
    Options::USED,
    Options { pool: 64, ..Options::USED },
    Options { complete_delay_ms: -1, ..Options::USED },
    Options { complete_delay_ms: -1, pool: 64, ..Options::USED },
    Options { complete_delay_ms: 50, ..Options::USED },
    Options { queue: 2000, ..Options::USED },
    Options { pool: 64, queue: -1, complete_delay_ms: -1 },
];

/// Each of them.
pub fn measure(world: &World) -> Outcome {
    let mut theirs = Theirs::new(world);
    let mut figures = Vec::new();
    for options in TRIED {
        let (mut rates, mut half, mut most) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..world.options.rounds {
            rates.push(drain_theirs_with(&mut theirs, &options, 0, 64, world.options.size(50_000, 10_000)).rate);
            theirs.start_with(&options, &[Task { name: "fast", wait_ms: 0 }], 64);
            theirs.go();
            theirs.working();
            let samples = time_theirs(&mut theirs, world.options.size(500, 100));
            theirs.stop();
            half.push(at(&samples, 50.0, |one| one.returned));
            most.push(at(&samples, 99.0, |one| one.returned));
        }
        let name = format!("graphile-worker: {options:?}");
        figures.push(Figure::new(&name, "jobs/s", rates).raw(json!({ "p50_ms": half, "p99_ms": most })));
        figures.push(Figure::new("  from the commit to the wire, p50", "ms", half));
        figures.push(Figure::new("  from the commit to the wire, p99", "ms", most));
    }
    Outcome { figures, plots: Vec::new() }
}

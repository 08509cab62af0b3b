//! Draining a full queue: how many runs a second from the moment that the worker may begin until the last one is over.
//! The agent answers at once; each run has its own lease; 8 tools.

use std::time::Instant;

use serde_json::json;

use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::stats::alternate;
use crate::theirs::{Task, Theirs};
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0 };
const IN_FLIGHT: usize = 64;

/// 50,000 of each, in turn.
pub fn measure(world: &World) -> Outcome {
    let count = world.options.size(50_000, 5_000);
    let mut ours = Ours::new(world, &[FAST], IN_FLIGHT);
    let mut theirs = Theirs::new(world);
    let (a, b) = alternate(
        world.options.rounds,
        || drain_ours(&mut ours, &FAST, count),
        || drain_theirs(&mut theirs, 0, IN_FLIGHT, count),
    );
    let figure = Figure::new(&format!("drain {count} applies, agent at once, 64 in flight"), "runs/s", a)
        .against("graphile-worker", b)
        .target(Target::RatioAtLeast(2.5))
        .raw(json!({ "count": count, "in_flight": IN_FLIGHT }));
    Outcome { figures: vec![figure], plots: Vec::new() }
}

/// Runs a second, of so many; the ledger and the agent agree about each of them.
pub fn drain_ours(ours: &mut Ours, kind: &Kind, count: usize) -> f64 {
    ours.switch(false);
    let before = ours.last();
    ours.request(kind, count);
    ours.world.settle();
    ours.world.agent.forget();
    let began = Instant::now();
    ours.switch(true);
    ours.world.agent.until_count(count as u64);
    ours.until_idle();
    let took = began.elapsed();
    ours.verify(before, count);
    count as f64 / took.as_secs_f64()
}

/// Jobs a second, of so many; the agent saw each of them once.
pub fn drain_theirs(theirs: &mut Theirs, wait_ms: u32, concurrency: usize, count: usize) -> f64 {
    theirs.add("fast", count);
    theirs.world.settle();
    theirs.world.agent.forget();
    theirs.start(&[Task { name: "fast", wait_ms }], concurrency);
    let began = Instant::now();
    theirs.go();
    theirs.world.agent.until_count(count as u64);
    theirs.until_idle();
    let took = began.elapsed();
    theirs.verify(count);
    theirs.stop();
    count as f64 / took.as_secs_f64()
}

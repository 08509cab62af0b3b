//! One slow agent among fast ones: what the fast ones' runs notice of thousands of runs that wait for the slow one.
//!
//! Two endpoints, all limits at their defaults. Not beside graphile-worker: its jobs are taken in one order, so a job
//! behind thousands of slow ones waits for all of them, unless the two are given workers of their own.

use std::time::Duration;

use serde_json::json;

use super::wire::{at, time_ours};
use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 4, wait_ms: 0, all_calls: false };
const SLOW: Kind = Kind { name: "SLOW", tools: 4, wait_ms: 1000, all_calls: false };

/// Without, then with, in a database of its own each round.
pub fn measure(world: &World) -> Outcome {
    let count = world.options.size(500, 100);
    let backlog = world.options.size(5000, 1000);
    let (mut with, mut without, mut out) = (Vec::new(), Vec::new(), 0);
    let (mut half_with, mut half_without) = (Vec::new(), Vec::new());
    for _ in 0..world.options.rounds {
        let mut ours = Ours::new(world, &[FAST, SLOW], 64);
        ours.switch(true);
        ours.await_worker();
        time_ours(&mut ours, &FAST, 20);
        let calm = time_ours(&mut ours, &FAST, count);
        ours.request(&SLOW, backlog);
        std::thread::sleep(Duration::from_secs(2));
        let beside = time_ours(&mut ours, &FAST, count);
        out = world.agent.most_out().max(out);
        let waiting: i64 = ours.session.query_one("SELECT count(*) FROM dot_wrapper.dot_queue", &[]).unwrap().get(0);
        assert!(waiting > 0, "the slow runs are over before the fast ones: nothing was measured");
        without.push(at(&calm, 99.0, |one| one.returned));
        with.push(at(&beside, 99.0, |one| one.returned));
        half_without.push(at(&calm, 50.0, |one| one.returned));
        half_with.push(at(&beside, 50.0, |one| one.returned));
    }
    let p99 = Figure::new("one slow agent among fast ones: the fast ones' p99", "ms", with)
        .against("without it", without)
        .target(Target::RatioAtMost(1.2))
        .raw(json!({ "samples_a_round": count, "slow_runs_waiting": backlog, "most_calls_out": out }));
    let p50 = Figure::new("  their p50", "ms", half_with).against("without it", half_without);
    Outcome { figures: vec![p99, p50], plots: Vec::new() }
}

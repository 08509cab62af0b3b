//! A snapshot that is held open for the whole of 500,000 runs: what is dead then stays in the tables and in their indexes, which
//! is the known weakness of queues in tables. Drained once without, once with it; each in a database of its own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::figure::{Figure, Outcome, Plot, Series, Target};
use crate::ours::{Kind, Ours};
use crate::world::{World, given};

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };
const PARTS: usize = 20;

/// Without, then with.
pub fn measure(world: &World) -> Outcome {
    let count = given("SNAPSHOT", world.options.size(500_000, 50_000));
    let without = drain(world, count, false);
    let with = drain(world, count, true);
    let parts = |rates: &[f64]| json!(rates);
    let tenth = |rates: &[f64], from: usize| rates[from..from + PARTS / 10].iter().sum::<f64>() / (PARTS / 10) as f64;
    let share = |name: &str, ours: f64, versus: &'static str, theirs: f64| {
        Figure::new(name, "runs/s", vec![ours]).against(versus, vec![theirs]).target(Target::RatioAtLeast(0.8))
    };
    let figures = vec![
        share(&format!("a snapshot held open for {count} runs: drain"), with.rate, "without", without.rate)
            .raw(json!({ "with": parts(&with.parts), "without": parts(&without.parts) })),
        share("  its last tenth", tenth(&with.parts, PARTS - PARTS / 10), "its first tenth", tenth(&with.parts, 0)),
    ];
    let line = |drained: &Drained| {
        let at = |n: usize| (n as f64 + 0.5) / PARTS as f64 * count as f64;
        drained.parts.iter().enumerate().map(|(n, rate)| (at(n), *rate)).collect()
    };
    let plot = Plot {
        file: "snapshot",
        title: format!("Draining {count} runs, with and without a snapshot that is held open all the time"),
        x: "runs done",
        y: "runs/s",
        log_x: false,
        series: vec![
            Series { name: "snapshot held open", points: line(&with) },
            Series { name: "none", points: line(&without) },
        ],
    };
    Outcome { figures, plots: vec![plot] }
}

struct Drained {
    rate: f64,
    /// The rate of each part.
    parts: Vec<f64>,
}

fn drain(world: &World, count: usize, is_held: bool) -> Drained {
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(false);
    // From before the first request on: nothing that comes to be and dies is ever removed.
    let mut other = world.server.session(&ours.name);
    if is_held {
        other
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM dot_wrapper.dot_run LIMIT 1")
            .expect("a snapshot");
    }
    ours.request(&FAST, count);
    world.settle();
    world.agent.forget();
    let began = Instant::now();
    ours.switch(true);
    let times = watch(world, count);
    ours.until_idle();
    let rate = count as f64 / began.elapsed().as_secs_f64();
    ours.switch(false);
    if is_held {
        other.batch_execute("COMMIT").expect("the snapshot's end");
    }
    ours.verify(None, count);
    let part = count as f64 / PARTS as f64;
    let ends = times.windows(2).map(|pair| part / (pair[1] - pair[0]).as_secs_f64()).collect();
    Drained { rate, parts: ends }
}

/// When each part was done, beginning with the first call.
fn watch(world: &World, count: usize) -> Vec<Duration> {
    world.agent.until_count(1);
    let began = Instant::now();
    let mut times = vec![Duration::ZERO];
    while times.len() <= PARTS {
        world.agent.until_count((count * times.len() / PARTS) as u64);
        times.push(began.elapsed());
    }
    times
}

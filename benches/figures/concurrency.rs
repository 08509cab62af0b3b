//! Throughput against concurrency: an agent that takes 5 ms, and more and more calls in flight.

use super::drain::{both, of};
use crate::figure::{Figure, Outcome, Plot, Series};
use crate::stats::median;
use crate::world::World;

/// From one call at a time to a thousand.
pub fn measure(world: &World) -> Outcome {
    let steps: &[usize] = if world.options.quick { &[1, 16, 256] } else { &[1, 4, 16, 64, 256, 1000] };
    let (mut figures, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        let count = (400 * step).min(world.options.size(20_000, 2_000));
        let (a, b) = both(world, 5, [*step; 2], count);
        let (a, b) = (of(&a, |one| one.rate), of(&b, |one| one.rate));
        ours.push((*step as f64, median(&a)));
        theirs.push((*step as f64, median(&b)));
        let name = format!("agent takes 5 ms, {step} in flight");
        figures.push(Figure::new(&name, "runs/s", a).against("graphile-worker", b));
    }
    let plot = Plot {
        file: "concurrency",
        title: "Runs a second, by calls in flight; the agent takes 5 ms".to_owned(),
        x: "calls in flight",
        y: "runs/s",
        log_x: true,
        series: vec![Series { name: "dot_wrapper", points: ours }, Series { name: "graphile-worker", points: theirs }],
    };
    Outcome { figures, plots: vec![plot] }
}

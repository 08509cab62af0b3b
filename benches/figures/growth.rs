//! Growth: the same figures on a ledger of 5 million finished runs and on an empty one, in turn. GROWTH is the number of runs.
//!
//! Everything that a user feels is asked of both: how fast a queue drains, how soon a run is on the wire, what a call costs
//! (admitted and refused), and how fast a whole catalogue is planned. A picture shows the drain at sizes between.

use serde_json::json;

use super::{drain, refused, run_all, wire};
use crate::figure::{Figure, Outcome, Plot, Series, Target};
use crate::ledger;
use crate::ours::{Kind, Ours};
use crate::pgbench::{self, Script};
use crate::stats::{alternate, median};
use crate::world::{World, given};

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };

/// Both databases are there all the time, and the worker of the other one is idle.
pub fn measure(world: &World) -> Outcome {
    let runs = given("GROWTH", world.options.size(5_000_000, 200_000));
    let sizes = Sizes::new(world, runs);
    let (mut small, mut plot) = (Vec::new(), Vec::new());
    for share in [100, 10] {
        let mut ours = prepared(world, &sizes);
        ledger::fill(&mut ours, &FAST, runs / share);
        let rates: Vec<f64> =
            (0..world.options.rounds).map(|_| drain::drain_ours(&mut ours, &FAST, sizes.drain).rate).collect();
        plot.push(((runs / share) as f64, median(&rates)));
    }
    let (mut empty, mut grown) = (prepared(world, &sizes), prepared(world, &sizes));
    let took = ledger::fill(&mut grown, &FAST, runs);
    let sql = "SELECT pg_database_size(current_database())::float8 / 1e9";
    let size: f64 = grown.session.query_one(sql, &[]).expect("a size").get(0);
    println!("  filled with {runs} runs in {took:.0} s: {size:.1} GB");
    // Each once to get warm; what is measured then is what lasts.
    for ours in [&mut empty, &mut grown] {
        once(ours, &sizes);
    }
    let (on_grown, on_empty) =
        alternate(world.options.rounds, || once(&mut grown, &sizes), || once(&mut empty, &sizes));
    plot.insert(0, (sizes.drain as f64, median(&on_empty.iter().map(|one| one.drain).collect::<Vec<_>>())));
    plot.push((runs as f64, median(&on_grown.iter().map(|one| one.drain).collect::<Vec<_>>())));
    small.extend(figures(&on_grown, &on_empty, runs, size));
    let plot = Plot {
        file: "growth",
        title: "Runs a second, by how many finished runs the ledger has".to_owned(),
        x: "runs in the ledger",
        y: "runs/s",
        log_x: true,
        series: vec![Series { name: "drain", points: plot }],
    };
    Outcome { figures: small, plots: vec![plot] }
}

struct Sizes {
    drain: usize,
    tools: usize,
    samples: usize,
    calls: usize,
    seconds: u64,
    pgbench: bool,
}

impl Sizes {
    fn new(world: &World, runs: usize) -> Sizes {
        let size = |full, quick| world.options.size(full, quick);
        Sizes {
            drain: size(20_000, 3_000).min(runs.max(1000)),
            tools: size(10_000, 1_000),
            samples: size(500, 100),
            calls: size(2_000, 300),
            seconds: size(6, 2) as u64,
            pgbench: pgbench::is_there(),
        }
    }
}

fn prepared<'w>(world: &'w World, sizes: &Sizes) -> Ours<'w> {
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(false);
    run_all::furnish(&mut ours, sizes.tools);
    ours
}

/// What one round gives.
struct Round {
    drain: f64,
    p50: f64,
    p99: f64,
    plans: f64,
    admitted: f64,
    refused: f64,
    tps: f64,
}

fn once(ours: &mut Ours, sizes: &Sizes) -> Round {
    ours.switch(false);
    let plans = run_all::run_all(ours, "plan", "planned", sizes.tools);
    let mut caller = refused::Caller::new(ours);
    let admitted = caller.calls(&refused::ADMITTED, sizes.calls).cpu_us;
    let refused = caller.calls(&refused::TOGGLE, sizes.calls).cpu_us;
    let tps = if sizes.pgbench {
        Script::new(ours, "growth", super::apply::APPLY, &[]).run(ours, 8, sizes.seconds).tps
    } else {
        0.0
    };
    ours.switch(true);
    ours.await_worker();
    ours.until_idle();
    ours.until_sealed();
    ours.world.settle();
    let samples = wire::time_ours(ours, &FAST, sizes.samples);
    ours.until_idle();
    let drain = drain::drain_ours(ours, &FAST, sizes.drain).rate;
    ours.until_sealed();
    let at = |of: f64| wire::at(&samples, of, |one| one.returned);
    Round { drain, p50: at(50.0), p99: at(99.0), plans, admitted, refused, tps }
}

/// A name, a unit, where the value is in a round, and the target.
type Line = (&'static str, &'static str, fn(&Round) -> f64, Target);

fn figures(grown: &[Round], empty: &[Round], runs: usize, size: f64) -> Vec<Figure> {
    let lines: [Line; 7] = [
        ("drain", "runs/s", |one| one.drain, Target::RatioAtLeast(0.9)),
        ("commit to wire, p50", "ms", |one| one.p50, Target::RatioAtMost(1.1)),
        ("commit to wire, p99", "ms", |one| one.p99, Target::RatioAtMost(1.1)),
        ("fn_dot_run apply, 8 connections", "tps", |one| one.tps, Target::RatioAtLeast(0.9)),
        ("fn_dot_run_all, plans", "plans/s", |one| one.plans, Target::RatioAtLeast(0.9)),
        ("a call that is admitted", "us CPU", |one| one.admitted, Target::RatioAtMost(1.1)),
        ("a call that is refused", "us CPU", |one| one.refused, Target::RatioAtMost(1.1)),
    ];
    let line = |(name, unit, what, target): Line| {
        let values = |rounds: &[Round]| rounds.iter().map(what).collect::<Vec<_>>();
        Figure::new(&format!("ledger of {runs} runs: {name}"), unit, values(grown))
            .against("empty ledger", values(empty))
            .target(target)
            .raw(json!({ "runs": runs, "database_gb": size }))
    };
    lines.into_iter().filter(|line| grown.iter().all(|one| line.2(one) > 0.0)).map(line).collect()
}

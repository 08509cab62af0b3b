//! `make bench`: one private server, one agent, and every figure measured in turn for both sides; then one table.
//!
//! Environment, as `.ci/bench` sets it: ONLY (names of figures, comma-separated), QUICK, ROUNDS, BENCH_OUT (a folder),
//! BENCH_NODE, BENCH_GRAPHILE. What the lines mean, and what is fair: benches/README.md.
//!
//!     world   what all share        ours    a database of ours      figures  what is measured, a file each
//!     server  PostgreSQL            theirs  one of graphile-worker  figure   its result     report  what is printed
//!     agent   who is called         stats   medians                 facts    the machine    plot    pictures
//!     bare    calls alone           process processor time
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

mod agent;
mod bare;
mod facts;
mod figure;
mod figures;
#[allow(dead_code, unused_imports)]
#[path = "../pg_test/cluster/harness/mod.rs"]
mod harness;
mod ledger;
mod ours;
mod pgbench;
mod plot;
mod process;
mod report;
mod server;
mod stats;
mod theirs;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use figure::{Figure, Outcome};
use world::{Options, World};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benches too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: use make bench");
        return ExitCode::SUCCESS;
    }
    let quick = variable("QUICK").is_some_and(|value| value != "0");
    let rounds = variable("ROUNDS").map_or(if quick { 1 } else { 3 }, |n| n.parse().expect("ROUNDS must be a number"));
    let only = variable("ONLY").map(|names| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>());
    let known: Vec<&str> = figures::ALL.iter().chain(figures::ON_REQUEST).map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().flatten().find(|name| !known.contains(&name.as_str())) {
        eprintln!("error: there is no figure {unknown}; ONLY takes some of {}", known.join(","));
        return ExitCode::FAILURE;
    }
    let world = World::start(Options { quick, rounds });
    let facts = facts::facts(&world);
    let mut all = Outcome::default();
    let named = |name: &str| only.iter().flatten().any(|wanted| wanted == name);
    let usual = figures::ALL.iter().filter(|(name, _)| only.is_none() || named(name));
    for (name, measure) in usual.chain(figures::ON_REQUEST.iter().filter(|(name, _)| named(name))) {
        let began = Instant::now();
        let outcome = measure(&world);
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
        outcome.figures.iter().for_each(tell);
        all.figures.extend(outcome.figures);
        all.plots.extend(outcome.plots);
    }
    let out = variable("BENCH_OUT").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    report::report(&out, &facts, world.options, &all);
    ExitCode::SUCCESS
}

/// Says what the rounds were, as soon as they are over.
fn tell(figure: &Figure) {
    let list = |values: &[f64]| values.iter().map(|value| figure::short(*value)).collect::<Vec<_>>().join(" ");
    println!("  {} ({}): {}; beside: {}", figure.name, figure.unit, list(&figure.ours), list(&figure.theirs));
}

//! Draining a full queue: how many runs a second from the moment that the worker may begin until the last one is over.
//! Each run has its own lease; 8 tools.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bare;
use crate::figure::{Figure, Outcome, Target, short};
use crate::ours::{Kind, Ours};
use crate::process::cpu_ms;
use crate::stats::{alternate, median};
use crate::theirs::{Options, Task, Theirs};
use crate::world::World;

/// How a queue was drained.
pub struct Drained {
    /// Runs or jobs a second.
    pub rate: f64,
    /// Processor time of a run, in microseconds: our worker; their process and its sessions.
    pub cpu_us: f64,
    /// That of the agent for a call.
    pub agent_us: f64,
    /// The most calls that the agent had at the same time.
    pub most_out: u64,
    /// From when the worker might begin until the first call, in ms: it starts and connects within that.
    pub first_ms: f64,
}

/// Calls in flight where the agent answers at once, each side at what suits it: we record what has ended in one transaction,
/// so that more at a time are fewer commits; graphile-worker gains nothing beyond its pool (see `tune`).
const OURS: usize = 1000;
/// As above.
const THEIRS: usize = 64;

/// 50,000 of each, in turn; the agent answers at once.
pub fn at_once(world: &World) -> Outcome {
    let count = world.options.size(50_000, 5_000);
    let (ours, theirs) = both(world, 0, [OURS, THEIRS], count);
    let (note, raw) = beginnings(count, &ours, &theirs);
    let drain = Figure::new(&format!("drain {count} applies, agent at once"), "runs/s", of(&ours, |one| one.rate))
        .against("graphile-worker", of(&theirs, |one| one.rate))
        .target(Target::RatioAtLeast(2.5))
        .note(note)
        .raw(raw);
    Outcome { figures: vec![drain, cost(&ours, &theirs)], plots: Vec::new() }
}

/// The same with an agent that takes 50 ms, and 1,000 calls in flight: 20,000 a second is all there can be. What the
/// machine allows of that, a client without a database says.
pub fn after_50_ms(world: &World) -> Outcome {
    let count = world.options.size(50_000, 5_000);
    let (ours, theirs) = both(world, 50, [1000; 2], count);
    let bare: Vec<f64> = (0..world.options.rounds).map(|_| bare::rate(&world.agent, 50, 1000, count)).collect();
    let name = format!("drain {count} applies, agent takes 50 ms, 1,000 in flight");
    let (note, raw) = beginnings(count, &ours, &theirs);
    let bound = 20_000f64.min(median(&bare));
    let beside = Figure::new(&name, "runs/s", of(&ours, |one| one.rate))
        .against("graphile-worker", of(&theirs, |one| one.rate))
        .note(note)
        .raw(raw);
    let bounded =
        Figure::new("  of the bound: 20,000/s, or calls without a database", "runs/s", of(&ours, |one| one.rate))
            .against(if bound < 20_000.0 { "calls alone" } else { "1,000 / 50 ms" }, vec![bound])
            .target(Target::RatioAtLeast(0.9))
            .note(format!("calls without a database, 1,000 of them out, 50 ms each: {}/s", short(median(&bare))))
            .raw(json!({ "calls_without_a_database": bare }));
    Outcome { figures: vec![beside, cost(&ours, &theirs), bounded], plots: Vec::new() }
}

/// One number of each round.
pub fn of(side: &[Drained], what: fn(&Drained) -> f64) -> Vec<f64> {
    side.iter().map(what).collect()
}

/// The line of processor times.
fn cost(ours: &[Drained], theirs: &[Drained]) -> Figure {
    let agent = |side: &[Drained]| short(median(&of(side, |one| one.agent_us)));
    Figure::new("  processor time of a run", "us", of(ours, |one| one.cpu_us))
        .against("graphile-worker", of(theirs, |one| one.cpu_us))
        .note(format!("the agent's own for a call: {} and {} us", agent(ours), agent(theirs)))
}

/// What both sides had out at most, and how long they took to begin, for people and for programs.
fn beginnings(count: usize, ours: &[Drained], theirs: &[Drained]) -> (String, Value) {
    let first = |side: &[Drained]| median(&of(side, |one| one.first_ms));
    let most = |side: &[Drained]| side.iter().map(|one| one.most_out).max().unwrap_or_default();
    let mut note = format!("first call after {} and {} ms", short(first(ours)), short(first(theirs)));
    // An agent that answers at once has only one call at a time.
    if most(ours).max(most(theirs)) > 1 {
        note += &format!("; at most {} and {} calls out", most(ours), most(theirs));
    }
    let side = |side: &[Drained]| json!({ "first_call_ms": first(side), "most_calls_out": most(side) });
    (note, json!({ "count": count, "ours": side(ours), "theirs": side(theirs) }))
}

/// Both sides in turn.
pub fn both(
    world: &World,
    wait_ms: u32,
    [of_ours, of_theirs]: [usize; 2],
    count: usize,
) -> (Vec<Drained>, Vec<Drained>) {
    let kind = Kind { name: "FAST", tools: 8, wait_ms, all_calls: true };
    let mut ours = Ours::new(world, &[kind], of_ours);
    let mut theirs = Theirs::new(world);
    let rounds = world.options.rounds;
    let ours = || drain_ours(&mut ours, &kind, count);
    alternate(rounds, ours, || drain_theirs(&mut theirs, wait_ms, of_theirs, count))
}

/// So many runs; the ledger and the agent agree about each of them.
pub fn drain_ours(ours: &mut Ours, kind: &Kind, count: usize) -> Drained {
    ours.switch(false);
    let before = ours.last();
    ours.request(kind, count);
    ours.world.settle();
    ours.world.agent.forget();
    let watch = Watch::begin(ours.world);
    ours.switch(true);
    ours.world.agent.until_count(count as u64);
    ours.until_idle();
    let took = watch.began.elapsed();
    let spent = ours.worker().map_or(0.0, cpu_ms);
    ours.verify(before, count);
    // Not in the time, and not in theirs.
    ours.until_sealed();
    watch.drained(count, took, spent)
}

/// So many jobs; the agent saw each of them once.
pub fn drain_theirs(theirs: &mut Theirs, wait_ms: u32, concurrency: usize, count: usize) -> Drained {
    drain_theirs_with(theirs, &Options::used(concurrency), wait_ms, concurrency, count)
}

/// The same with other options.
pub fn drain_theirs_with(
    theirs: &mut Theirs,
    options: &Options,
    wait_ms: u32,
    concurrency: usize,
    count: usize,
) -> Drained {
    theirs.add("fast", count);
    theirs.world.settle();
    theirs.world.agent.forget();
    theirs.start_with(options, &[Task { name: "fast", wait_ms }], concurrency);
    let before = cpu_ms(theirs.pid());
    let watch = Watch::begin(theirs.world);
    theirs.go();
    theirs.world.agent.until_count(count as u64);
    theirs.until_idle();
    let took = watch.began.elapsed();
    let spent = cpu_ms(theirs.pid()) - before + theirs.backends().into_iter().map(cpu_ms).sum::<f64>();
    theirs.verify(count);
    theirs.stop();
    watch.drained(count, took, spent)
}

/// What is noted when a drain begins.
struct Watch<'w> {
    world: &'w World,
    agent_ms: f64,
    began: Instant,
}

impl Watch<'_> {
    fn begin(world: &World) -> Watch<'_> {
        Watch { world, agent_ms: world.agent.cpu_ms(), began: Instant::now() }
    }

    fn drained(&self, count: usize, took: Duration, cpu_ms: f64) -> Drained {
        let (count, agent) = (count as f64, &self.world.agent);
        let first = agent.seen().values().map(|seen| seen.first).min().unwrap_or(self.began);
        Drained {
            rate: count / took.as_secs_f64(),
            cpu_us: cpu_ms * 1e3 / count,
            agent_us: (agent.cpu_ms() - self.agent_ms) * 1e3 / count,
            most_out: agent.most_out(),
            first_ms: first.saturating_duration_since(self.began).as_secs_f64() * 1e3,
        }
    }
}

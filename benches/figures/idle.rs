//! A worker that has nothing to do: its transactions and its processor time.
//!
//! Transactions are the database's own count, read from another database and after the worker has reported them. So that
//! nobody else is counted, nobody else is there, and autovacuum is off meanwhile.

use std::time::{Duration, Instant};

use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::process::cpu_ms;
use crate::server::until;
use crate::stats::alternate;
use crate::theirs::{Task, Theirs};
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };

/// In a minute: transactions, and milliseconds of processor time.
struct Idle {
    transactions: f64,
    cpu_ms: f64,
}

/// A minute of each a round.
pub fn measure(world: &World) -> Outcome {
    let span = Duration::from_secs(world.options.size(60, 20) as u64);
    world.server.set("autovacuum", Some("off"));
    let (ours, theirs) = alternate(
        if world.options.quick { 1 } else { world.options.rounds },
        || ours(world, span),
        || theirs(world, span),
    );
    world.server.set("autovacuum", None);
    let of = |side: &[Idle], what: fn(&Idle) -> f64| side.iter().map(what).collect::<Vec<_>>();
    let transactions = Figure::new("idle worker: transactions a minute", "1/min", of(&ours, |one| one.transactions))
        .against("graphile-worker", of(&theirs, |one| one.transactions))
        .target(Target::AtMost(2.0));
    // A thousandth of one core: what /proc's hundredths of a second cannot show in a minute.
    let cpu = Figure::new("idle worker: processor time", "ms/min", of(&ours, |one| one.cpu_ms))
        .against("graphile-worker", of(&theirs, |one| one.cpu_ms))
        .target(Target::AtMost(10.0));
    Outcome { figures: vec![transactions, cpu], plots: Vec::new() }
}

fn ours(world: &World, span: Duration) -> Idle {
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(true);
    ours.request(&FAST, 100);
    ours.until_idle();
    let worker = ours.await_worker();
    let name = ours.name.clone();
    // Without a session, whose transactions would be counted when it reports them.
    ours.session = world.server.session("postgres");
    watch(world, &name, &[worker], span, || {
        ours.session = world.server.session(&name);
        ours.request(&FAST, 10);
    })
}

fn theirs(world: &World, span: Duration) -> Idle {
    let mut theirs = Theirs::new(world);
    theirs.add("fast", 100);
    theirs.start(&[Task { name: "fast", wait_ms: 0 }], 64);
    theirs.go();
    theirs.working();
    theirs.until_idle();
    let mut pids = theirs.backends();
    pids.push(theirs.pid());
    let name = theirs.name.clone();
    theirs.session = world.server.session("postgres");
    watch(world, &name, &pids, span, || {
        theirs.session = world.server.session(&name);
        theirs.add("fast", 10);
    })
}

fn watch(world: &World, database: &str, pids: &[i32], span: Duration, wake: impl FnOnce()) -> Idle {
    let mut session = world.server.session("postgres");
    let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
    let mut count = || session.query_one(sql, &[&database]).expect("a count").get::<_, i64>(0);
    // What was done before is reported within a second, and what is still to be tidied is tidied within ten.
    let calm = Instant::now();
    until("everything is calm", || calm.elapsed() > Duration::from_secs(10));
    let cpu = || pids.iter().map(|pid| cpu_ms(*pid)).sum::<f64>();
    let (transactions, spent, began) = (count(), cpu(), Instant::now());
    std::thread::sleep(span);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let idle = Idle { transactions: (count() - transactions) as f64 / minutes, cpu_ms: (cpu() - spent) / minutes };
    // The instruments must be able to show something.
    let (transactions, spent) = (count(), cpu());
    wake();
    until("work is counted", || count() > transactions && cpu() > spent);
    idle
}

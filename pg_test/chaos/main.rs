//! The storm: random callers, random faults, an agent with a record of its own, and at the end a checker that holds the
//! ledger against that record, run by run. Started by `make chaos`.
//!
//! Environment: CYCLES (25), SEED (random; the same seed gives the same plan of calls and faults).
//! The last line says how it went; the exit code is 1 when a promise was broken.
//!
//!     tools, deeds   what is run, and how the agent behaves    book, agent   the agent and its record
//!     load           the callers                               server        one PostgreSQL server
//!     faults         what happens to the server                ledger, check what the ledger must say
//!     world          what they share                           report        what is printed
//!     operator       who looks after what nobody else can      selftest      proves that the checker can find
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod agent;
mod book;
mod check;
mod deeds;
mod faults;
#[allow(dead_code, unused_imports)]
#[path = "../cluster/harness/mod.rs"]
mod harness;
mod ledger;
mod load;
mod operator;
mod report;
mod rng;
mod selftest;
mod server;
mod tools;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use agent::Agent;
use rng::Rng;
use server::Server;
use world::World;

/// Sessions that call.
const CALLERS: u64 = 5;
/// What is not over so long after the last fault is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn random() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    now.as_nanos() as u64 % 1_000_000_000
}

fn main() -> ExitCode {
    let (cycles, seed) = (number("CYCLES").unwrap_or(25), number("SEED").unwrap_or_else(random));
    println!("chaos: SEED={seed} CYCLES={cycles}");
    selftest::run();
    let world = World::new(seed, Agent::start(), Server::start());
    tools::furnish(&mut world.server().admin(), world.agent.port).expect("tools");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let world = &world;
            scope.spawn(move || load::run(world, number));
        }
        scope.spawn(|| operator::run(&world));
        storm(&world, cycles);
        world.stop();
    });
    let stuck = heal(&world);
    let took = began.elapsed();
    let ledger = ledger::read(&mut world.server().admin()).expect("a ledger that can be read");
    let mut found = check::all(check::Facts {
        ledger: &ledger,
        book: &world.agent.book(),
        asked: &world.asked(),
        crashes: &world.crashes(),
        wrong: &world.wrong(),
    });
    found.extend(stuck);
    found.extend(amcheck(&world.server()));
    report::print(&world, &ledger, &found, cycles, took)
}

/// All cycles. A fault comes at a random moment of the load, and the load goes on for a while after it.
fn storm(world: &World, cycles: u64) {
    let every = if cycles >= 50 { 25 } else { 0 };
    for cycle in 0..cycles {
        let fault = faults::plan(world.seed, cycle, every);
        let mut rng = Rng::new(world.seed, 3, cycle);
        std::thread::sleep(Duration::from_millis(rng.between(50, 350)));
        if std::env::var_os("VERBOSE").is_some() {
            println!("cycle {cycle}: {fault:?}");
        }
        faults::strike(world, fault, cycle);
        std::thread::sleep(Duration::from_millis(rng.between(100, 400)));
    }
}

/// No more faults; everything that waits is ended, and everything that is not over has its chance. What is stuck.
fn heal(world: &World) -> Vec<check::Finding> {
    world.agent.book().healed = true;
    let server = world.server();
    server.surely("the toggle is on", |session| tools::toggle(session, true));
    server.surely("prepared transactions are ended", |session| load::finish_all(world, session));
    let end = Instant::now() + PATIENCE;
    let (mut waiting, mut leases, mut unasked) = (Vec::new(), Vec::new(), Vec::new());
    while Instant::now() < end {
        let _ = operator::look_after(world, &mut server.admin());
        waiting = server.surely("the ledger is read", ledger::waiting);
        leases = server.surely("the leases are read", ledger::leftover_leases);
        unasked = server.surely("the doubts are read", ledger::unasked);
        if waiting.is_empty() && leases.is_empty() && unasked.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let kinds = [(check::Kind::Stuck, waiting), (check::Kind::Lease, leases), (check::Kind::Doubt, unasked)];
    let found =
        kinds.into_iter().flat_map(|(kind, list)| list.into_iter().map(move |what| check::Finding { kind, what }));
    found.collect()
}

/// What pg_amcheck finds, where it is there.
fn amcheck(server: &Server) -> Vec<check::Finding> {
    let mut command = server.client("pg_amcheck");
    command.args(["--install-missing", "--heapallindexed", "-d", server::DATABASE]);
    match harness::os::try_run(&mut command) {
        Ok(_) => Vec::new(),
        Err(why)
            if why.contains("No such file")
                || why.contains("not available")
                || why.contains("could not open extension") =>
        {
            println!("chaos: no pg_amcheck here");
            Vec::new()
        }
        Err(what) => vec![check::Finding { kind: check::Kind::Corrupt, what }],
    }
}

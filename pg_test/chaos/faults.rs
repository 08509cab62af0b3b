//! What happens to the server, and to the agent as a whole, once per cycle.

use std::time::{Duration, Instant, SystemTime};

use super::harness::{os, until};
use super::rng::Rng;
use super::server::{DATABASE, Server};
use super::tools;
use super::world::{Crash, World};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    KillWorker,
    KillBackend,
    KillPostmaster,
    Immediate,
    /// SIGSTOP, and SIGCONT after a while.
    StopWorker,
    /// SIGTERM, which is no crash.
    TerminateWorker,
    /// The agent closes every connection for a while.
    AgentDown,
    /// The master toggle is off for a while.
    ToggleOff,
    /// A process dies when it comes by this point.
    FailPoint(&'static str),
    /// Worker and another process die at the same point one after the other.
    Recovery,
    /// A standby takes over.
    Promote,
}

const POINTS: [&str; 9] = [
    "request_before_return",
    "claim_gate",
    "claim_before_commit",
    "claim_after_commit",
    "submitted",
    "report_received",
    "accepted_recorded",
    "settle_before_commit",
    "settle_after_commit",
];

/// The fault of a cycle. Every 25th is a promotion.
pub fn plan(seed: u64, cycle: u64, promote_every: u64) -> Fault {
    if promote_every > 0 && cycle % promote_every == promote_every / 2 {
        return Fault::Promote;
    }
    let mut rng = Rng::new(seed, 1, cycle);
    let point = rng.pick(&POINTS);
    rng.weighted(&[
        (4, Fault::None),
        (18, Fault::KillWorker),
        (9, Fault::KillBackend),
        (9, Fault::KillPostmaster),
        (9, Fault::Immediate),
        (7, Fault::StopWorker),
        (5, Fault::TerminateWorker),
        (6, Fault::AgentDown),
        (5, Fault::ToggleOff),
        (24, Fault::FailPoint(point)),
        (4, Fault::Recovery),
    ])
}

/// Does it, and returns when the server lets in again.
pub fn strike(world: &World, fault: Fault, cycle: u64) {
    let mut rng = Rng::new(world.seed, 2, cycle);
    let a_while = Duration::from_millis(rng.between(100, 500));
    let server = world.server();
    match fault {
        Fault::None => {}
        Fault::KillWorker => kill(world, "worker killed", server.worker_soon()),
        Fault::KillBackend => kill(world, "backend killed", backend(&server, &mut rng)),
        Fault::KillPostmaster => {
            let began = SystemTime::now();
            if let Some(pid) = server.postmaster() {
                os::signal(pid, "KILL");
                // Its children notice at once, those that run a statement a little later.
                let down = SystemTime::now() + Duration::from_millis(50);
                server.start_again();
                note(world, "postmaster killed", began, down, true);
            }
        }
        Fault::Immediate => {
            let began = SystemTime::now();
            server.stop("immediate");
            let down = SystemTime::now();
            server.start_again();
            note(world, "stopped at once", began, down, true);
        }
        Fault::StopWorker => {
            if let Some(pid) = server.worker_soon() {
                os::signal(pid, "STOP");
                std::thread::sleep(a_while);
                os::signal(pid, "CONT");
            }
        }
        Fault::TerminateWorker => {
            let began = SystemTime::now();
            if let Some(pid) = server.worker_soon() {
                os::signal(pid, "TERM");
                until("the worker is another one", || server.worker().filter(|now| *now != pid));
                note(world, "worker terminated", began, began, false);
            }
        }
        Fault::AgentDown => {
            world.agent.book().down_until = Some(Instant::now() + a_while);
            std::thread::sleep(a_while);
        }
        Fault::ToggleOff => {
            server.surely("the toggle is off", |session| tools::toggle(session, false));
            std::thread::sleep(a_while);
            server.surely("the toggle is on", |session| tools::toggle(session, true));
        }
        Fault::FailPoint(point) => fail_at(world, &[point], cycle),
        Fault::Recovery => fail_at(world, &["recover_before_commit", "claim_after_commit"], cycle),
        Fault::Promote => promote(world),
    }
}

/// Kills one process; the postmaster then ends all others and starts again.
fn kill(world: &World, kind: &'static str, pid: Option<i32>) {
    let server = world.server();
    let (Some(pid), mut witness, began) = (pid, server.admin(), SystemTime::now()) else { return };
    if os::signal(pid, "KILL") {
        until("the server has noticed", || witness.batch_execute("").is_err().then_some(()));
        note(world, kind, began, SystemTime::now(), true);
    }
}

/// One of the callers' processes.
fn backend(server: &Server, rng: &mut Rng) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity
               WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY backend_start";
    let pids: Vec<i32> = server.admin().query(sql, &[&DATABASE]).ok()?.iter().map(|row| row.get(0)).collect();
    (!pids.is_empty()).then(|| rng.pick(&pids))
}

/// Lets processes die at fail points, each once. A point that nobody comes by within a while is left.
fn fail_at(world: &World, points: &[&'static str], cycle: u64) {
    let server = world.server();
    let entries: Vec<String> = points.iter().map(|point| format!("{point}=abort once #{cycle}")).collect();
    let began = SystemTime::now();
    server.set("dot_wrapper.fail_points", &entries.join("; "));
    let began_at = Instant::now();
    let dead = || entries.iter().filter_map(|entry| server.reached(entry)).collect::<Vec<_>>();
    // After the first death the second is certain, once the server has come up again.
    let patience = || Duration::from_secs(if dead().is_empty() { 2 } else { 30 });
    while dead().len() < entries.len() && began_at.elapsed() < patience() {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !dead().is_empty() {
        // When the postmaster has buried it, it lets nobody in.
        let gone = |pid: &i32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        until("the server has noticed", || dead().iter().all(gone).then_some(()));
        note(world, points[0], began, SystemTime::now(), true);
    }
    server.set("dot_wrapper.fail_points", "");
    // Until the server has read it, a process could still come by; then this crash belongs to the next cycle.
}

/// A standby takes over, and no acknowledged commit is lost, since commits wait for it.
fn promote(world: &World) {
    let old = world.server();
    let standby = old.standby();
    old.set("synchronous_standby_names", "*");
    // Whoever commits now waits: then it is in force everywhere.
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("commits wait for the standby", || {
        let waiting: i64 = old.session("postgres", "postgres").ok()?.query_one(sql, &[]).ok()?.get(0);
        (waiting > 0).then_some(())
    });
    standby.start_again();
    until("commits come through", || {
        let waiting: i64 = old.session("postgres", "postgres").ok()?.query_one(sql, &[]).ok()?.get(0);
        (waiting == 0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    let began = SystemTime::now();
    old.stop("immediate");
    let down = SystemTime::now();
    standby.promote();
    world.change_server(standby);
    note(world, "standby promoted", began, down, true);
}

/// Writes a crash down as soon as the server lets in.
fn note(world: &World, kind: &'static str, began: SystemTime, down: SystemTime, whole: bool) {
    drop(world.server().admin());
    world.crashes().push(Crash { kind, began, down, accepts: SystemTime::now(), whole });
}

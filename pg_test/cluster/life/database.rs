//! Commands that need a database to themselves, while its worker is in it.

use std::time::{Duration, Instant};

use crate::harness::{Bench, Reply, Run, until};

/// As long as PostgreSQL itself would wait for the worker before it gives up.
const PATIENCE: Duration = Duration::from_secs(6);

/// A database with a worker at work, and no other session in it.
fn occupied(out: bool) -> (Bench, Run) {
    let bench = Bench::shared();
    if out {
        bench.agent.reply(Reply::Hold);
    }
    let run = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    if !out {
        bench.until(&run, "succeeded");
    }
    bench.worker();
    bench.forget_session();
    (bench, run)
}

/// Runs a command from another database.
#[track_caller]
fn command(bench: &Bench, sql: &str) {
    let started = Instant::now();
    let done = bench.cluster.connect("postgres").batch_execute(sql);
    assert!(done.is_ok(), "{sql}: {:?}", done.unwrap_err().as_db_error());
    assert!(started.elapsed() < PATIENCE, "{sql} took {:?}", started.elapsed());
}

#[test]
fn a_database_can_be_dropped_under_its_worker() {
    for out in [false, true] {
        let (bench, _) = occupied(out);
        command(&bench, &format!("DROP DATABASE {}", bench.name));
        assert_eq!(bench.worker_now(), None);
    }
}

#[test]
fn a_database_can_be_renamed_under_its_worker_which_comes_back() {
    for out in [false, true] {
        let (mut bench, run) = occupied(out);
        let name = format!("{}_renamed", bench.name);
        command(&bench, &format!("ALTER DATABASE {} RENAME TO {name}", bench.name));
        bench.name = name;
        bench.agent.reply(Reply::succeeded());
        bench.drain();
        let left = bench.run(run.id());
        assert_eq!(left.status(), if out { "in_doubt" } else { "succeeded" }, "{left:?}");
        assert_eq!(bench.agent.count(), 1);
    }
}

#[test]
fn a_database_can_be_copied_under_its_worker_which_comes_back() {
    for out in [false, true] {
        let (bench, run) = occupied(out);
        let started = Instant::now();
        let copy = bench.copy();
        assert!(started.elapsed() < PATIENCE, "the copy took {:?}", started.elapsed());
        bench.agent.reply(Reply::succeeded());
        bench.drain();
        assert_eq!(bench.run(run.id()).status(), if out { "in_doubt" } else { "succeeded" });
        copy.look();
        assert_eq!(bench.agent.count(), 1, "the copy sends nothing");
    }
}

/// A command that fails, or that its session takes back, is no reason to stay away.
#[test]
fn a_worker_comes_back_after_a_command_that_failed() {
    let (bench, _) = occupied(false);
    let guest = bench.connect();
    let sql = format!("ALTER DATABASE {} RENAME TO elsewhere", bench.name);
    let error = bench.cluster.connect("postgres").batch_execute(&sql).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55006", "{error:?}");
    drop(guest);
    bench.drain();
}

/// Who may not drop a database cannot drive its worker out of it either.
#[test]
fn a_stranger_cannot_send_a_worker_away() {
    let (bench, _) = occupied(false);
    let worker = bench.worker();
    let role = bench.role("stranger");
    bench.forget_session();
    let mut session = bench.cluster.connect_as("postgres", &role).unwrap();
    let name = &bench.name;
    for sql in [
        format!("DROP DATABASE {name}"),
        format!("ALTER DATABASE {name} RENAME TO elsewhere"),
        format!("CREATE DATABASE elsewhere TEMPLATE {name}"),
    ] {
        let error = session.batch_execute(&sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}: {error:?}");
    }
    bench.drain();
    assert_eq!(until("there is a worker", || bench.worker_now()), worker);
}

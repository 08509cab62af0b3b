//! What a trigger costs the transaction that writes: printed, for docs/triggers.md.

use std::time::{Duration, Instant};

use super::{runs, synced};
use crate::harness::{Bench, figure, until};

const ROWS: i64 = 200;

/// The time for so many inserts of a row each, in transactions of their own, and that for one update of all.
fn measure(bench: &Bench) -> [Duration; 2] {
    let mut session = bench.connect();
    bench.exec("TRUNCATE t");
    let insert = session.prepare("INSERT INTO t VALUES ($1, 0)").unwrap();
    let started = Instant::now();
    for id in 0..i32::try_from(ROWS).unwrap() {
        session.execute(&insert, &[&id]).unwrap();
    }
    let inserts = started.elapsed();
    let started = Instant::now();
    session.execute("UPDATE t SET v = 1", &[]).unwrap();
    [inserts, started.elapsed()]
}

#[test]
fn what_a_trigger_costs_the_writer() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    until("there is no worker", || bench.worker_now().is_none().then_some(()));
    bench.exec("UPDATE dot_tools SET trigger_type = 'event'; CREATE TABLE t (id int PRIMARY KEY, v int)");
    measure(&bench);
    let mut told = Vec::new();
    let mut tell = |bench: &Bench, what: &str| {
        let before = runs(bench).len();
        let [inserts, update] = measure(bench).map(|time| time.as_secs_f64() * 1000.0);
        eprintln!("{what} {inserts} {update}");
        told.push(format!("{what}: {inserts:.0} ms, {update:.1} ms, {} runs", runs(bench).len() - before));
        runs(bench).len() - before
    };
    assert_eq!(tell(&bench, "no trigger"), 0);
    for (per, coalesce, expected) in [("statement", true, 2), ("row", true, 400), ("row", false, 400)] {
        // Each has a tool of its own, so that no queue of another is looked through.
        let code = format!("DOT-{}", expected % 7 + i32::from(coalesce));
        let code = code.as_str();
        bench.exec(&format!(
            "DELETE FROM dot_wrapper.trigger_binding; UPDATE dot_tools SET code = 'DOT-{per}-{coalesce}' WHERE code = 'DOT-1';
             INSERT INTO dot_tools (code, name, status, execution_engine, trigger_type) VALUES ('DOT-1', 'x', 'active', 'agent_api', 'event');
             INSERT INTO dot_wrapper.trigger_binding (code, relation, per, \"coalesce\") VALUES ('DOT-{per}-{coalesce}', 'public.t', '{per}', {coalesce})"
        ));
        synced(&mut bench.session());
        let what = format!("{per}{}", if coalesce { ", coalesced" } else { "" });
        assert_eq!(tell(&bench, &what), usize::try_from(expected).unwrap(), "{code}");
    }
    figure("triggers", &format!("{ROWS} inserts, one update of {ROWS} rows: {}", told.join("; ")));
}

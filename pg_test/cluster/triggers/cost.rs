//! What a trigger costs the transaction that writes: printed, for docs/triggers.md.

use std::time::{Duration, Instant};

use super::{runs, synced};
use crate::harness::{Bench, figure, rounds};

/// The time for so many inserts of a row each, in transactions of their own, and that for one update of them all.
fn measure(bench: &Bench, rows: usize) -> [Duration; 2] {
    let mut session = bench.connect();
    bench.exec("TRUNCATE t");
    let insert = session.prepare("INSERT INTO t VALUES ($1, 0)").unwrap();
    let started = Instant::now();
    for id in 0..i32::try_from(rows).unwrap() {
        session.execute(&insert, &[&id]).unwrap();
    }
    let inserts = started.elapsed();
    let started = Instant::now();
    session.execute("UPDATE t SET v = 1", &[]).unwrap();
    [inserts, started.elapsed()]
}

#[test]
fn what_a_trigger_costs_the_writer() {
    let rows = rounds(200, 1000);
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off", "synchronous_commit = off"]);
    bench.exec("CREATE TABLE t (id int PRIMARY KEY, v int)");
    measure(&bench, rows);
    let kinds = [
        ("no trigger", "", 0),
        ("per statement, coalesced", "'statement', true", 2),
        ("per row, coalesced", "'row', true", 2 * rows),
        ("per row", "'row', false", 2 * rows),
    ];
    let mut told = Vec::new();
    for (at, (what, values, expected)) in kinds.into_iter().enumerate() {
        // Each has a tool of its own, so that no queue of another is looked through.
        let code = format!("EVENT-{at}");
        bench.exec(&format!(
            "DELETE FROM dot_wrapper.trigger_binding;
             INSERT INTO dot_tools (code, name, status, execution_engine, trigger_type)
                 VALUES ('{code}', 'x', 'active', 'agent_api', 'event')"
        ));
        if !values.is_empty() {
            let columns = "code, relation, per, \"coalesce\"";
            bench.exec(&format!(
                "INSERT INTO dot_wrapper.trigger_binding ({columns}) VALUES ('{code}', 'public.t', {values})"
            ));
        }
        synced(&mut bench.session());
        let before = runs(&bench).len();
        let [inserts, update] = measure(&bench, rows).map(|time| time.as_secs_f64() * 1000.0);
        assert_eq!(runs(&bench).len() - before, expected, "{what}");
        told.push(format!("{what} {inserts:.0} ms and {update:.1} ms, {expected} runs"));
    }
    figure("triggers", &format!("{rows} inserts and one update of {rows} rows: {}", told.join("; ")));
}

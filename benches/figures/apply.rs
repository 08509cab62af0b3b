//! What a call costs its caller: `fn_dot_run(…, 'apply')` against a transaction of two bare INSERTs that write as many bytes.
//!
//! Each call has its own process run, lease and arguments. The worker is off, so that the machine is the callers'; a line
//! with the worker on shows what is left of that. Autovacuum is off for both: one that falls into a round would decide it.

use serde_json::json;

use crate::figure::{Figure, Outcome, Plot, Series, Target};
use crate::ours::{Kind, Ours};
use crate::pgbench::{self, Measured, Script};
use crate::stats::median;
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };
const CONNECTIONS: [u32; 3] = [1, 8, 32];

/// Number and lease key are random: 1 of 9 x 10^18 twice is not to be expected.
pub const APPLY: &str = "\\set n random(1, 9000000000000000000)
SELECT run_id, run_status, reason FROM fn_dot_run('FAST-1', 'apply', gen_random_uuid(), jsonb_build_object('n', :n::bigint));
";
const TWO: &str = "BEGIN;
INSERT INTO bare.a (body) VALUES (:a) RETURNING id;
INSERT INTO bare.b (body) VALUES (:b);
COMMIT;
";
const ONE_TRIP: &str =
    "WITH b AS (INSERT INTO bare.b (body) VALUES (:b)) INSERT INTO bare.a (body) VALUES (:a) RETURNING id;
";

struct Scripts {
    ours: Script,
    two: Script,
    one_trip: Script,
    note: String,
}

/// Three rounds of each, in turn, at 1, 8 and 32 connections.
pub fn measure(world: &World) -> Outcome {
    if !pgbench::is_there() {
        println!("  skipped: this server has no pgbench; PG=15 has");
        return Outcome::default();
    }
    let mut ours = Ours::new(world, &[FAST], 64);
    world.server.set("autovacuum", Some("off"));
    let scripts = prepare(&mut ours);
    let seconds = world.options.size(8, 2) as u64;
    let mut figures = Vec::new();
    let mut lines: [Vec<(f64, f64)>; 3] = Default::default();
    for connections in CONNECTIONS {
        let measured = rounds(&mut ours, &scripts, connections, seconds);
        for (line, side) in lines.iter_mut().zip(&measured) {
            line.push((f64::from(connections), median(&tps(side))));
        }
        figures.extend(compare(connections, &measured, &scripts.note));
    }
    // With all that waits in it: a new one is quicker than its end.
    drop(ours);
    figures.push(with_worker(world, seconds));
    world.server.set("autovacuum", None);
    let [a, b, c] = lines;
    let plot = Plot {
        file: "apply",
        title: "Requests a second: fn_dot_run(…, 'apply'), and bare INSERTs of as many bytes".to_owned(),
        x: "connections",
        y: "transactions/s",
        log_x: true,
        series: vec![
            Series { name: "fn_dot_run apply", points: a },
            Series { name: "BEGIN, 2 INSERTs, COMMIT", points: b },
            Series { name: "both in one statement", points: c },
        ],
    };
    Outcome { figures, plots: vec![plot] }
}

/// Two tables, and rows for them of the size of what one apply writes.
fn prepare(ours: &mut Ours) -> Scripts {
    ours.switch(false);
    ours.request(&FAST, 1);
    let sql = "SELECT (SELECT pg_column_size(r) FROM dot_wrapper.dot_run r),
                      (SELECT pg_column_size(e) FROM dot_wrapper.dot_run_event e)
                        + (SELECT pg_column_size(q) FROM dot_wrapper.dot_queue q)
                        + (SELECT coalesce(sum(pg_column_size(g)), 0) FROM dot_wrapper.lease_grant g)::int
                        + (SELECT coalesce(sum(pg_column_size(l)), 0) FROM dot_iu_runtime_lease l)::int";
    let row = ours.session.query_one(sql, &[]).expect("one run");
    let (ledger, others): (i32, i32) = (row.get(0), row.get(1));
    let tables = "CREATE SCHEMA bare;
                  CREATE TABLE bare.a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
                  CREATE TABLE bare.b (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)";
    ours.session.batch_execute(tables).expect("tables");
    // Of the row: a header of 24 bytes, the key, the text's length.
    let text = |letter: &str, size: i32| letter.repeat(usize::try_from(size - 36).unwrap_or(1));
    let texts = [("a", text("x", ledger)), ("b", text("y", others))];
    Scripts {
        ours: Script::new(ours, "apply", APPLY, &[]),
        two: Script::new(ours, "two", TWO, &texts),
        one_trip: Script::new(ours, "one_trip", ONE_TRIP, &texts),
        note: format!("rows of {ledger} B (ledger) and {others} B (event, queue, lease and its grant)"),
    }
}

/// Ours, the transaction, and the one statement; the order turns with each round.
fn rounds(ours: &mut Ours, scripts: &Scripts, connections: u32, seconds: u64) -> [Vec<Measured>; 3] {
    let mut measured: [Vec<Measured>; 3] = Default::default();
    let all = [&scripts.ours, &scripts.two, &scripts.one_trip];
    for round in 0..ours.world.options.rounds {
        for n in 0..all.len() {
            let which = (n + round) % all.len();
            measured[which].push(all[which].run(ours, connections, seconds));
        }
    }
    measured
}

fn tps(side: &[Measured]) -> Vec<f64> {
    side.iter().map(|one| one.tps).collect()
}

fn compare(connections: u32, measured: &[Vec<Measured>; 3], sizes: &str) -> [Figure; 2] {
    let [ours, two, one_trip] = measured;
    let of = |side: &[Measured], what: fn(&Measured) -> f64| median(&side.iter().map(what).collect::<Vec<_>>());
    let cost =
        |side: &[Measured]| format!("{:.0} us CPU, {:.0} B WAL", of(side, |m| m.cpu_us), of(side, |m| m.wal_bytes));
    let note = format!("a call: {}; the transaction: {}; {sizes}", cost(ours), cost(two));
    let raw = |side: &[Measured]| side.iter().map(|m| [m.tps, m.cpu_us, m.wal_bytes]).collect::<Vec<_>>();
    let what = if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") };
    let all = json!({ "rounds": "[tps, us of CPU, bytes of WAL]", "ours": raw(ours), "two": raw(two), "one_trip": raw(one_trip) });
    [
        Figure::new(&format!("fn_dot_run apply, {what}"), "tps", tps(ours))
            .against("two bare INSERTs", tps(two))
            .target(Target::RatioAtLeast(0.5))
            .note(note)
            .raw(all),
        Figure::new("  the same", "tps", tps(ours)).against("in one round trip", tps(one_trip)),
    ]
}

/// Eight connections, and the worker drains what they put in.
fn with_worker(world: &World, seconds: u64) -> Figure {
    let mut ours = Ours::new(world, &[FAST], 64);
    let script = Script::new(&ours, "apply", APPLY, &[]);
    ours.switch(true);
    ours.await_worker();
    let mut values = Vec::new();
    for _ in 0..world.options.rounds {
        values.push(script.run(&mut ours, 8, seconds).tps);
        ours.until_idle();
    }
    Figure::new("  8 connections, and the worker at work", "tps", values)
}

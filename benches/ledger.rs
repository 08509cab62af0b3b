//! A ledger as years would leave it: millions of finished runs with their events, attempts and seals, copied from one that was
//! really made. Lives here: the copying. Does not live here: what is measured on it.
//!
//! The copies have ids, times and numbers of their own, in the order in which they would have come; everything else is the
//! sample's, except that the two long documents (gates, and the second gates in the events) are cut to their first decision:
//! 5 million whole ones are 17 GB. Triggers, constraints and indexes are in force as ever.

use std::time::Instant;

use postgres::Client;

use crate::ours::{Kind, Ours};

/// Runs copied by one statement.
const CHUNK: i64 = 50_000;

/// The rows of the one run that there is, to be copied from.
const SAMPLE: &str = "CREATE SCHEMA growth;
CREATE TABLE growth.sample AS SELECT clock_timestamp() AS now, r.run_id, r.requested_at AS from_at,
    (SELECT count(*) FROM dot_wrapper.dot_run_event e) AS events,
    (SELECT count(*) FROM dot_wrapper.dot_seal) AS seals
    FROM dot_wrapper.dot_run r;
CREATE TABLE growth.run AS SELECT * FROM dot_wrapper.dot_run;
UPDATE growth.run SET gates = jsonb_build_array(gates -> 0);
CREATE TABLE growth.event AS SELECT * FROM dot_wrapper.dot_run_event;
UPDATE growth.event SET detail = jsonb_set(detail, '{gates}', jsonb_build_array(detail -> 'gates' -> 0)) WHERE detail ? 'gates';
CREATE TABLE growth.attempt AS SELECT * FROM dot_wrapper.dot_run_attempt;
CREATE TABLE growth.seal AS SELECT * FROM dot_wrapper.dot_seal;";

/// Runs $1 to $2 of $3: who they are, with UUIDs of version 7, and how much later than the sample: a hundred a second, the last of
/// them an hour ago.
const RUNS: &str = "WITH n AS MATERIALIZED (
    SELECT x.n, (x.ms || '7' || substr(x.run, 1, 3) || '8' || substr(x.run, 4, 15))::uuid AS run_id,
           (x.ms || '7' || substr(x.process, 1, 3) || '8' || substr(x.process, 4, 15))::uuid AS process_run_id,
           x.at - s.from_at AS later, s.events, s.seals
    FROM growth.sample s, LATERAL (
        SELECT y.n, y.at, md5('run' || y.n) AS run, md5('process' || y.n) AS process,
               lpad(to_hex((extract(epoch FROM y.at) * 1000)::bigint), 12, '0') AS ms
        FROM (SELECT n, s.now - interval '1 hour' - ($3 - n) * interval '10 ms' AS at
              FROM generate_series($1::bigint, $2::bigint) n) y) x)";

/// A table to fill, the table of what is copied, and columns with expressions.
type Table = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The tables to fill, each with the table of what is copied, and what is the copy's own. Everything else is the sample's, and
/// its times are moved.
const TABLES: [Table; 4] = [
    (
        "dot_run",
        "growth.run",
        &[
            ("process_run_id", "n.process_run_id"),
            ("fencing_token", "s.fencing_token + n.n"),
            ("lease_key", "'bench:' || -n.n"),
        ],
    ),
    ("dot_run_attempt", "growth.attempt", &[("fencing_token", "s.fencing_token + n.n")]),
    ("dot_run_event", "growth.event", &[("event_id", "s.event_id + n.events * n.n")]),
    (
        "dot_seal",
        "growth.seal",
        &[
            ("seal_id", "s.seal_id + n.seals * n.n"),
            ("process_run_id", "n.process_run_id"),
            (
                "event_ids",
                "ARRAY(SELECT i + n.events * n.n FROM unnest(s.event_ids) WITH ORDINALITY u (i, o) ORDER BY o)",
            ),
        ],
    ),
];

/// Where the sealing and the sequences go on. The worker is off; it takes up the head as it finds it.
const HEAD: &str = "UPDATE dot_wrapper.seal_head h SET seal_id = s.seal_id, hash = s.hash, low = e.event_id, high = e.event_id,
        since = s.seal_id
    FROM (SELECT n.seal_id, n.hash FROM dot_wrapper.dot_seal n ORDER BY 1 DESC LIMIT 1) s,
         (SELECT n.event_id FROM dot_wrapper.dot_run_event n ORDER BY 1 DESC LIMIT 1) e;
SELECT setval(pg_get_serial_sequence('dot_wrapper.dot_run_event', 'event_id'), (SELECT max(event_id) FROM dot_wrapper.dot_run_event));
SELECT setval('dot_wrapper.fencing_token_seq', (SELECT max(fencing_token) FROM dot_wrapper.dot_run))";

/// Fills the ledger with `runs` finished runs, vacuumed and written to disk; leaves the worker off. In seconds, how long it took.
pub fn fill(ours: &mut Ours, kind: &Kind, runs: usize) -> f64 {
    let began = Instant::now();
    ours.switch(true);
    ours.request(kind, 1);
    ours.until_idle();
    ours.until_sealed();
    ours.switch(false);
    ours.session.batch_execute(SAMPLE).expect("a sample");
    let [ledger, attempts, events, seals] = TABLES.map(|table| statement(&mut ours.session, table));
    let (world, name, total) = (ours.world, ours.name.clone(), runs as i64);
    std::thread::scope(|scope| {
        // Two at a time: the ledger itself is half of the work.
        for statements in [vec![ledger.as_str()], vec![&attempts, &events, &seals]] {
            let mut session = world.server.session(&name);
            scope.spawn(move || copy(&mut session, &statements, total));
        }
    });
    ours.session.batch_execute(HEAD).expect("a head");
    for (table, ..) in TABLES {
        ours.session.batch_execute(&format!("VACUUM (ANALYZE) dot_wrapper.{table}")).expect("a vacuum");
    }
    world.settle();
    began.elapsed().as_secs_f64()
}

fn copy(session: &mut Client, statements: &[&str], total: i64) {
    let settings = "SET synchronous_commit = off; SET work_mem = '128MB'; SET jit = off";
    session.batch_execute(settings).expect("settings");
    for sql in statements {
        let statement = session.prepare(sql).expect("a statement");
        for first in (1..=total).step_by(CHUNK as usize) {
            let last = total.min(first + CHUNK - 1);
            session.execute(&statement, &[&first, &last, &total]).expect("copies");
        }
    }
}

/// What copies into a table, whichever columns it has.
fn statement(session: &mut Client, (table, from, own): (&str, &str, &[(&str, &str)])) -> String {
    let sql = "SELECT attname::text, quote_ident(attname), atttypid = 'timestamptz'::regtype FROM pg_attribute
               WHERE attrelid = ('dot_wrapper.' || $1)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for row in session.query(sql, &[&table]).expect("columns") {
        let (name, quoted, is_time): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        values.push(match own.iter().find(|(column, _)| *column == name) {
            Some((_, value)) => (*value).to_owned(),
            None if name == "run_id" => "n.run_id".to_owned(),
            None if is_time => format!("s.{quoted} + n.later"),
            None => format!("s.{quoted}"),
        });
        columns.push(quoted);
    }
    format!(
        "{RUNS} INSERT INTO dot_wrapper.{table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM n, {from} s ORDER BY n.n",
        columns.join(", "),
        values.join(", ")
    )
}

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
    (SELECT min(e.event_id) FROM dot_wrapper.dot_run_event e) AS first_event,
    (SELECT count(*) FROM dot_wrapper.dot_run_event e) AS events,
    (SELECT count(*) FROM dot_wrapper.dot_seal) AS seals
    FROM dot_wrapper.dot_run r;
CREATE TABLE growth.run AS SELECT * FROM dot_wrapper.dot_run;
UPDATE growth.run SET gates = jsonb_build_array(gates -> 0);
CREATE TABLE growth.event AS SELECT row_number() OVER (ORDER BY event_id) AS place, * FROM dot_wrapper.dot_run_event;
UPDATE growth.event SET detail = jsonb_set(detail, '{gates}', jsonb_build_array(detail -> 'gates' -> 0)) WHERE detail ? 'gates';
CREATE TABLE growth.attempt AS SELECT * FROM dot_wrapper.dot_run_attempt;
CREATE TABLE growth.seal AS SELECT row_number() OVER (ORDER BY seal_id) AS place, * FROM dot_wrapper.dot_seal;";

/// Runs $1 to $2 of $3: who they are, with UUIDs of version 7, and how much later than the sample: a hundred a second, the last of
/// them an hour ago.
macro_rules! each {
    ($rest:literal) => {
        concat!(
            "WITH n AS MATERIALIZED (
                SELECT x.n, (x.ms || '7' || substr(x.run, 1, 3) || '8' || substr(x.run, 4, 15))::uuid AS run_id,
                       (x.ms || '7' || substr(x.process, 1, 3) || '8' || substr(x.process, 4, 15))::uuid AS process_run_id,
                       x.at - s.from_at AS later, s.first_event, s.events, s.seals
                FROM growth.sample s, LATERAL (
                    SELECT y.n, y.at, md5('run' || y.n) AS run, md5('process' || y.n) AS process,
                           lpad(to_hex((extract(epoch FROM y.at) * 1000)::bigint), 12, '0') AS ms
                    FROM (SELECT n, s.now - interval '1 hour' - ($3 - n) * interval '10 ms' AS at
                          FROM generate_series($1::bigint, $2::bigint) n) y) x) ",
            $rest
        )
    };
}

const EVENTS: &str = each!(
    "INSERT INTO dot_wrapper.dot_run_event (event_id, run_id, event, attempt, from_status, to_status, at, detail, mark)
     OVERRIDING SYSTEM VALUE
     SELECT n.first_event + n.events * n.n + e.place - 1, n.run_id, e.event, e.attempt, e.from_status, e.to_status,
            e.at + n.later, e.detail, e.mark
     FROM n, growth.event e ORDER BY 1"
);
const ATTEMPTS: &str = each!(
    "INSERT INTO dot_wrapper.dot_run_attempt (run_id, attempt, intent_at, deadline, worker, fencing_token)
     SELECT n.run_id, a.attempt, a.intent_at + n.later, a.deadline + n.later, a.worker, a.fencing_token + n.n
     FROM n, growth.attempt a ORDER BY n.n"
);
const SEALS: &str = each!(
    "INSERT INTO dot_wrapper.dot_seal (seal_id, sealed_at, process_run_id, run_id, event_ids, attempts, digests, origins, prev, hash)
     SELECT s.place + n.seals * n.n, s.sealed_at + n.later, n.process_run_id, n.run_id,
            (SELECT array_agg(i + n.events * n.n ORDER BY o) FROM unnest(s.event_ids) WITH ORDINALITY u (i, o)), s.attempts,
            s.digests, s.origins, s.hash, s.hash
     FROM n, growth.seal s ORDER BY 1"
);
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
    let run_sql = runs_sql(&mut ours.session);
    let (world, name, total) = (ours.world, ours.name.clone(), runs as i64);
    std::thread::scope(|scope| {
        // Two at a time: the ledger itself is half of the work.
        for statements in [vec![run_sql.as_str(), ATTEMPTS], vec![EVENTS, SEALS]] {
            let mut session = world.server.session(&name);
            scope.spawn(move || copy(&mut session, &statements, total));
        }
    });
    ours.session.batch_execute(HEAD).expect("a head");
    for table in ["dot_run", "dot_run_event", "dot_run_attempt", "dot_seal"] {
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

/// All columns of the ledger, whichever there are: ids, times and numbers are the copy's, the rest is the sample's.
fn runs_sql(session: &mut Client) -> String {
    let sql = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
                      string_agg(CASE WHEN attname IN ('run_id', 'process_run_id') THEN 'n.' || attname
                                      WHEN attname = 'fencing_token' THEN 'r.fencing_token + n.n'
                                      WHEN attname = 'lease_key' THEN '''bench:'' || -n.n'
                                      WHEN atttypid = 'timestamptz'::regtype THEN format('r.%I + n.later', attname)
                                      ELSE format('r.%I', attname) END, ', ' ORDER BY attnum)
               FROM pg_attribute WHERE attrelid = 'dot_wrapper.dot_run'::regclass AND attnum > 0 AND NOT attisdropped";
    let row = session.query_one(sql, &[]).expect("columns");
    let (columns, values): (String, String) = (row.get(0), row.get(1));
    let from = each!("INSERT INTO dot_wrapper.dot_run (COLUMNS) SELECT VALUES FROM n, growth.run r ORDER BY n.n");
    from.replace("COLUMNS", &columns).replace("SELECT VALUES", &format!("SELECT {values}"))
}

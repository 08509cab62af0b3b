//! Events leave by logical decoding: a real subscription into plain tables, as docs/scaling.md shows it.

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, os, until};

/// What is published.
pub const LEDGER: [&str; 3] = ["dot_run", "dot_run_event", "dot_run_attempt"];

/// Publishes tables of the ledger, with a slot.
pub fn publish(bench: &Bench, tables: &[&str]) {
    let tables = tables.iter().map(|table| format!("dot_wrapper.{table}")).collect::<Vec<_>>().join(", ");
    bench.exec(&format!("CREATE PUBLICATION dot_ledger FOR TABLE {tables} WITH (publish = 'insert, update')"));
    // Not in the same transaction: a slot begins where nothing has been written yet.
    bench.exec(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bench.name));
}

/// Subscribes to it. On the same server the slot must be there before.
pub fn begin(to: &Bench, from: &Bench) {
    let host = from.cluster.dir().display();
    to.exec(&format!(
        "CREATE SUBSCRIPTION dot_ledger CONNECTION 'host={host} dbname={0} user=postgres' PUBLICATION dot_ledger
         WITH (create_slot = false, slot_name = '{0}')",
        from.name
    ));
}

/// Subscribes to it, and returns when the tables have been copied.
pub fn subscribe(to: &Bench, from: &Bench) {
    begin(to, from);
    let sql = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
    until("the tables have been copied", || (to.one::<i64>(sql, &[]) == 0).then_some(()));
}

/// Returns when the subscriber has all that is committed.
pub fn caught_up(bench: &Bench) {
    let now: String = bench.one("SELECT pg_current_wal_flush_lsn()::text", &[]);
    let sql = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1";
    until("the subscriber has caught up", || bench.one::<bool>(sql, &[&bench.name, &now]).then_some(()));
}

/// A table of the same name and columns and with nothing else, but for what `more` says.
fn plain(to: &Bench, from: &Bench, table: &str, more: &str) {
    let columns: String = from.one(
        "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
        &[&format!("dot_wrapper.{table}")],
    );
    to.exec(&format!("CREATE TABLE dot_wrapper.{table} ({columns}{more})"));
}

fn digest(bench: &Bench, table: &str) -> String {
    let sql = format!(
        "SELECT count(*) || ' ' || md5(string_agg(j, ' ' ORDER BY j))
         FROM (SELECT (to_jsonb(t) - 'arrived')::text AS j FROM dot_wrapper.{table} t) x"
    );
    bench.one(&sql, &[])
}

/// The log is a database that knows nothing of dot_wrapper. No key keeps a second copy of an event out of it.
fn log_of(bench: &Bench) -> Bench {
    let log = Bench::empty(bench.cluster.clone());
    log.exec("CREATE SCHEMA dot_wrapper");
    plain(&log, bench, "dot_run", ", PRIMARY KEY (run_id)");
    plain(&log, bench, "dot_run_attempt", "");
    plain(&log, bench, "dot_run_event", ", arrived bigserial");
    log
}

#[test]
fn a_subscriber_gets_every_event_once_and_in_the_order_of_commits() {
    let bench = Bench::own(&["wal_level = logical"]);
    let log = log_of(&bench);
    let before = bench.until(&bench.apply("DOT-1"), "succeeded");
    publish(&bench, &LEDGER);
    subscribe(&log, &bench);

    // The first to ask is the last to commit.
    let mut slow = bench.connect();
    let mut transaction = slow.transaction().unwrap();
    let late = Ask::new("DOT-2", "apply").on(&mut transaction).unwrap();
    // It has so much to say that it is not kept in the row; what an UPDATE leaves as it is, is not sent again.
    let much: Vec<String> = (0..500).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let early = bench.ask(&Ask { args: json!({"much": much}), ..Ask::new("DOT-3", "apply") });
    bench.until(&early, "succeeded");
    transaction.commit().unwrap();
    bench.until(&late, "succeeded");
    // A failure, a refusal, a plan, and a run that is cancelled.
    bench.agent.reply(Reply::Json(200, json!({"status": "failed", "message": "no"})));
    bench.until(&bench.apply("DOT-4"), "failed");
    assert_eq!(bench.apply("DOT-9").status(), "refused");
    assert_eq!(bench.ask(&Ask::new("DOT-1", "plan")).status(), "planned");
    let parked = bench.between(
        &Ask::new("DOT-5", "apply"),
        "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = RUN",
    );
    bench.exec(&format!("SELECT fn_dot_cancel('{}', 'not any more')", parked.id()));

    caught_up(&bench);
    for table in LEDGER {
        assert_eq!(digest(&log, table), digest(&bench, table), "{table}");
    }
    let arrived = |run: uuid::Uuid| -> Vec<(i64, i64, String)> {
        let sql = "SELECT arrived, event_id, event FROM dot_wrapper.dot_run_event WHERE run_id = $1 ORDER BY arrived";
        let rows = log.session().query(sql, &[&run]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    // Between runs it is the commits that count, not the numbers; within a run it is the same.
    let (first, second) = (arrived(late.id()), arrived(early.id()));
    assert!(first[0].1 < second[0].1 && first[0].0 > second[2].0, "{first:?} {second:?}");
    for run in log.all::<uuid::Uuid>("SELECT run_id FROM dot_wrapper.dot_run", &[]) {
        let numbers: Vec<i64> = arrived(run).iter().map(|(_, number, _)| *number).collect();
        assert!(numbers.is_sorted() && !numbers.is_empty(), "{run}: {numbers:?}");
    }
    let events: Vec<String> = arrived(before.id()).into_iter().map(|(.., event)| event).collect();
    assert_eq!(events, ["queued", "running", "succeeded"], "what was copied");
}

#[test]
fn what_is_decoded_holds_no_secret() {
    if !os::has_library("test_decoding") {
        return;
    }
    const SECRET: &str = "canary-in-the-stream-8c41f0";
    let bench = Bench::own(&["wal_level = logical"]);
    bench.cluster.write_secret("token", &format!("{SECRET}\n"));
    bench.exec("UPDATE dot_wrapper.endpoint SET auth_secret = 'token'");
    bench.exec("SELECT pg_create_logical_replication_slot('raw', 'test_decoding')");
    bench
        .agent
        .reply(Reply::Json(200, json!({"status": "succeeded", "result": {"got": SECRET}, "observations": [SECRET]})));
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert!(bench.agent.requests()[0].header("authorization").ends_with(SECRET), "the agent was given it");

    // All tables of the database, published or not.
    let lines = "SELECT count(*) FROM pg_logical_slot_peek_changes('raw', NULL, NULL) WHERE position($1 IN data) > 0";
    assert!(bench.one::<i64>(lines, &[&run.id().to_string()]) > 5, "the run is in it");
    assert_eq!(bench.one::<i64>(lines, &[&SECRET]), 0);
    // The key of the permits was written before the slot was there; a publication of its table would copy it.
    let sql = "SELECT encode(permit_key, 'hex') FROM dot_wrapper.instance";
    assert_eq!(bench.one::<i64>(lines, &[&bench.one::<String>(sql, &[])]), 0);
}

//! Events and their runs: what they carry, whose they are, when they are one, and when there is none.

use serde_json::json;

use super::{arguments, bound, busy, runs, synced};
use crate::harness::bench::db_error;
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

#[test]
fn a_thousand_row_update_is_one_run_and_what_comes_before_it_starts_is_covered_by_it() {
    let bench = bound("", "");
    let held = busy(&bench);
    bench.exec("INSERT INTO t SELECT n, 0 FROM generate_series(1, 1000) n");
    bench.exec("UPDATE t SET v = 1");
    bench.exec("BEGIN; UPDATE t SET v = 2 WHERE id < 10; UPDATE t SET v = 3; COMMIT");
    let of = |op: &str| json!({"table": "public.t", "op": op});
    assert_eq!(arguments(&bench), [of("INSERT"), of("UPDATE")]);
    let update = runs(&bench).remove(1);
    assert_eq!((update.text("source_ref"), update.text("reason")), ("public.t", ""));
    assert_eq!(bench.events(&update), ["queued", "coalesced", "coalesced"]);
    bench.agent.release(&held, Reply::succeeded());
    runs(&bench).iter().for_each(|run| drop(bench.until(run, "succeeded")));
    assert_eq!(bench.agent.count(), 3);
    // What comes after it has started is an event of its own.
    bench.exec("UPDATE t SET v = 4");
    assert_eq!(arguments(&bench), [of("INSERT"), of("UPDATE"), of("UPDATE")]);
}

#[test]
fn a_run_that_covers_an_event_does_not_start_before_the_event_is_there_to_be_seen() {
    let bench = bound("", "");
    let held = busy(&bench);
    bench.exec("INSERT INTO t VALUES (1)");
    let mut writer = bench.connect();
    let mut writes = writer.transaction().unwrap();
    writes.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    let run = runs(&bench).remove(0);
    bench.agent.release(&held, Reply::succeeded());
    // The worker has been past it, and left it alone.
    bench.drain();
    assert_eq!((bench.run(run.id()).status(), bench.agent.count()), ("queued", 1));
    writes.commit().unwrap();
    bench.until(&run, "succeeded");
    assert_eq!((runs(&bench).len(), bench.agent.count()), (1, 2));
}

#[test]
fn an_event_is_gone_with_its_transaction_and_its_savepoint() {
    let bench = bound("\"coalesce\"", "false");
    bench.exec("BEGIN; INSERT INTO t VALUES (1); ROLLBACK");
    bench.exec("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1); ROLLBACK TO s; INSERT INTO t VALUES (2); COMMIT");
    assert_eq!(runs(&bench).len(), 1);
    bench.until(&runs(&bench)[0], "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn an_event_per_row_carries_the_key_of_the_row() {
    let bench = Bench::shared();
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'on-event';
         CREATE SCHEMA \"Odd's\"; CREATE TABLE \"Odd's\".\"T\"\"t\" (v int, \"a b\" text, gone int, at timestamptz, PRIMARY KEY (at, \"a b\"));
         ALTER TABLE \"Odd's\".\"T\"\"t\" DROP COLUMN gone;
         INSERT INTO dot_wrapper.trigger_binding (code, relation, per, columns, args)
             VALUES ('DOT-1', '\"Odd''s\".\"T\"\"t\"', 'row', '{\"a b\", v}', '{\"scope\": \"one\"}')",
    );
    assert_eq!(synced(&mut bench.session()), ["DOT-1|\"Odd's\".\"T\"\"t\"|dot_wrapper:DOT-1|created"]);
    assert_eq!(synced(&mut bench.session()), ["DOT-1|\"Odd's\".\"T\"\"t\"|dot_wrapper:DOT-1|kept"]);
    bench.exec(
        "SET DateStyle = 'German'; SET TimeZone = 'UTC';
         INSERT INTO \"Odd's\".\"T\"\"t\" VALUES (1, 'x\"y', '2026-11-23 04:00Z'), (1, 'z', '2026-11-23 05:00Z');
         UPDATE \"Odd's\".\"T\"\"t\" SET \"a b\" = 'new' WHERE \"a b\" = 'z'; DELETE FROM \"Odd's\".\"T\"\"t\" WHERE \"a b\" = 'new';
         UPDATE \"Odd's\".\"T\"\"t\" SET at = at + interval '1 hour'",
    );
    let event = |op: &str, key: &str, at: &str| json!({"scope": "one", "table": "\"Odd's\".\"T\"\"t\"", "op": op, "key": {"a b": key, "at": format!("2026-11-23T{at}:00:00+00:00")}});
    let expected = [
        event("INSERT", "x\"y", "04"),
        event("INSERT", "z", "05"),
        event("UPDATE", "new", "05"),
        event("DELETE", "new", "05"),
    ];
    assert_eq!(arguments(&bench), expected);
}

#[test]
fn the_writer_needs_no_right_and_the_run_is_that_of_the_binding_s_role() {
    let bench = bound("", "");
    let (asks, writes) = (bench.role("asks"), bench.role("writes"));
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run TO {asks}; GRANT INSERT ON t TO {writes};
         UPDATE dot_wrapper.trigger_binding SET run_as = '{asks}'"
    ));
    let mut writer = bench.connect_as(&writes);
    writer.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    let run = runs(&bench).remove(0);
    assert_eq!((run.text("requested_by"), run.text("source")), (&*asks, "trigger"));
    bench.until(&run, "succeeded");
    assert_eq!(db_error(writer.batch_execute("SELECT fn_dot_run('DOT-1')").unwrap_err()).code().code(), "42501");
    // The second gate asks for the right of that role, as ever.
    bench.exec(&format!("REVOKE EXECUTE ON FUNCTION fn_dot_run FROM {asks}"));
    writer.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    let run = runs(&bench).remove(1);
    assert_eq!(bench.until(&run, "refused").reason(), "privilege_revoked");
}

#[test]
fn a_refused_event_leaves_its_row_and_lets_the_write_through() {
    let bench = bound("", "");
    bench.exec("UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'");
    bench.exec("INSERT INTO t VALUES (1)");
    assert_eq!((runs(&bench)[0].status(), runs(&bench)[0].reason()), ("refused", "toggle_off"));
    bench.exec("UPDATE dot_tools SET status = 'retired'; INSERT INTO t VALUES (2)");
    assert_eq!(runs(&bench)[1].reason(), "inactive");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM t", &[]), 2);
}

#[test]
fn an_event_waits_for_a_busy_tool_and_writers_do_not_wait_for_each_other() {
    let bench = bound("\"coalesce\"", "false");
    bench.agent.reply(Reply::Hold);
    bench.exec("INSERT INTO t VALUES (1)");
    let held = bench.agent.wait_for(1).remove(0);
    let mut sessions = [bench.connect(), bench.connect()];
    let mut open: Vec<_> = sessions.iter_mut().map(|session| session.transaction().unwrap()).collect();
    for (id, writes) in (2..).zip(&mut open) {
        writes.batch_execute(&format!("SET lock_timeout = '3s'; INSERT INTO t VALUES ({id})")).unwrap();
    }
    open.into_iter().for_each(|writes| writes.commit().unwrap());
    assert_eq!(
        runs(&bench).iter().map(|run| run.status().to_owned()).collect::<Vec<_>>(),
        ["running", "queued", "queued"]
    );
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&held, Reply::succeeded());
    runs(&bench).iter().for_each(|run| drop(bench.until(run, "succeeded")));
}

#[test]
fn partitions_fire_for_what_they_are_a_part_of() {
    let bench = Bench::shared();
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'event';
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
         CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (10);
         INSERT INTO dot_wrapper.trigger_binding (code, relation, per, \"coalesce\")
             VALUES ('DOT-1', 'public.p', 'row', false), ('DOT-2', 'public.p', 'statement', false)",
    );
    let kept = |action: &str| ["DOT-1", "DOT-2"].map(|code| format!("{code}|public.p|dot_wrapper:{code}|{action}"));
    assert_eq!(synced(&mut bench.session()), kept("created"));
    bench.exec("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)");
    assert_eq!(synced(&mut bench.session()), kept("kept"));
    let fired = |sql: &str| {
        let before = runs(&bench).len();
        bench.exec(sql);
        let mut codes: Vec<String> = runs(&bench)
            .drain(before..)
            .map(|run| format!("{} {}", run.text("code"), run.0["args"]["table"]))
            .collect();
        codes.sort();
        codes
    };
    let (row, statement) = ("DOT-1 \"public.p\"", "DOT-2 \"public.p\"");
    assert_eq!(fired("INSERT INTO p VALUES (1)"), [row, statement]);
    assert_eq!(fired("INSERT INTO p VALUES (11), (12)"), [row, row, statement]);
    // A statement that names the partition is no statement on the parent, to PostgreSQL.
    assert_eq!(fired("INSERT INTO p11 VALUES (2)"), [row]);
    until("all is quiet", || runs(&bench).iter().all(|run| run.status() == "succeeded").then_some(()));
    bench.exec("UPDATE dot_tools SET trigger_type = NULL");
    assert!(synced(&mut bench.session()).iter().all(|row| row.contains("|removed|")));
}

#[test]
fn truncate_and_replicated_changes_are_no_events() {
    let bench = bound("", "");
    bench.exec(
        "SET session_replication_role = replica; INSERT INTO t VALUES (1); RESET session_replication_role; TRUNCATE t",
    );
    assert_eq!(runs(&bench).len(), 0);
    bench.exec("INSERT INTO t VALUES (1)");
    assert_eq!(runs(&bench).len(), 1);
}

#[test]
fn a_binding_may_only_verify_and_its_runs_are_planned_like_any_other() {
    let bench = bound("mode", "'verify'");
    bench.exec("INSERT INTO t VALUES (1)");
    let run = runs(&bench).remove(0);
    bench.until(&run, "succeeded");
    assert_eq!(bench.events(&run), ["queued", "running", "succeeded"]);
    let request = bench.agent.requests().remove(0);
    assert_eq!(request.field("mode"), "verify");
    // What an event would do, without one.
    let plan = Ask { args: run.0["args"].clone(), ..Ask::new("DOT-1", "plan") };
    assert_eq!(bench.ask(&plan).status(), "planned");
    assert_eq!(bench.agent.count(), 1);
}

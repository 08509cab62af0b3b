//! One observation: runs and the IU-command layer's rows side by side, one row per process run, and waiting for all of it.
//!
//! Does not live here: columns, messages and who sees what, word by word (`regress/sql/observe.sql`).

use postgres::Client;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, Reply, Run, until};

fn ask<'a>(code: &'a str, mode: &'a str, process: Uuid) -> Ask<'a> {
    Ask { process: Some(process), ..Ask::new(code, mode) }
}

/// `dot_process_run` as JSON.
fn summary(bench: &Bench, process: Uuid) -> serde_json::Value {
    bench.one("SELECT to_jsonb(p) FROM dot_process_run p WHERE process_run_id = $1", &[&process])
}

#[test]
fn a_process_run_counts_what_became_of_its_runs_at_both_gates() {
    let bench = Bench::shared();
    let process = Uuid::now_v7();
    bench.until(&bench.ask(&ask("DOT-1", "apply", process)), "succeeded");
    bench.ask(&ask("DOT-2", "plan", process));
    bench.ask(&ask("NONSENSE", "apply", process));
    let off = "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'";
    bench.until(&bench.between(&ask("DOT-3", "apply", process), off), "refused");
    assert_eq!(bench.ask(&ask("DOT-4", "apply", process)).reason(), "toggle_off");
    bench.open();
    bench.agent.reply(Reply::Close);
    bench.until(&bench.ask(&ask("DOT-5", "apply", process)), "in_doubt");
    bench.agent.reply(Reply::Json(422, serde_json::json!({"status": "refused", "message": "no"})));
    bench.until(&bench.ask(&ask("DOT-6", "verify", process)), "failed");
    bench.exec(&format!(
        "SELECT fn_dot_iu_command_log('iu.cut', 'apply', 'refused', true, '{{\"process_run_id\": \"{process}\"}}')"
    ));

    let seen = summary(&bench, process);
    let count = |name: &str| seen[name].as_i64().unwrap();
    let counts = ["runs", "planned", "refused", "succeeded", "failed", "in_doubt", "queued", "running", "iu_commands"];
    assert_eq!(counts.map(count), [7, 1, 3, 1, 1, 1, 0, 0, 1], "{seen}");
    assert_eq!(seen["refusals"], serde_json::json!({"tool": 1, "toggle": 1}));
    assert_eq!(seen["refusals_at_send"], serde_json::json!({"toggle": 1}));
    let codes = ["DOT-1", "DOT-2", "DOT-3", "DOT-4", "DOT-5", "DOT-6", "NONSENSE"];
    assert_eq!((seen["tools"].as_i64(), &seen["codes"]), (Some(7), &serde_json::json!(codes)));
    assert_eq!(seen["open"], true, "what is in doubt is not over");

    // The same, side by side, with the command first, which is the newest.
    let sql = "SELECT layer || ' ' || name || ' ' || status FROM dot_observation WHERE process_run_id = $1";
    let lines: Vec<String> = bench.all(sql, &[&process]);
    assert_eq!((lines.len(), lines[0].as_str()), (8, "iu_command iu.cut refused"));
    assert_eq!(lines[1], "dot DOT-6 failed");
    assert_eq!(lines[7], "dot DOT-1 succeeded");
}

/// Neither the barrier nor the second layer keeps an index from being used, whoever reads.
#[test]
fn a_process_run_and_a_time_are_found_by_an_index() {
    let bench = Bench::shared();
    let reader = bench.caller("reader");
    bench.exec(&format!(
        "GRANT SELECT ON dot_observation, dot_process_run TO {reader};
         GRANT EXECUTE ON FUNCTION fn_dot_iu_commands TO {reader}"
    ));
    let one = "WHERE process_run_id = '00000000-0000-7000-8000-000000000001'";
    for (query, index, condition) in [
        (format!("dot_observation {one}"), "dot_run_process", "process_run_id = "),
        (format!("dot_process_run {one}"), "dot_run_process", "process_run_id = "),
        ("dot_observation WHERE at > now() - interval '1 h'".into(), "dot_run_requested", "requested_at > "),
        ("dot_observation ORDER BY at DESC LIMIT 10".into(), "dot_run_requested", ""),
    ] {
        let mut session = bench.connect_as(&reader);
        // What a big ledger would make the planner want: the table is empty.
        session.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").unwrap();
        let rows = session.query(&format!("EXPLAIN (COSTS off) SELECT * FROM {query}"), &[]).unwrap();
        let plan = rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n");
        assert!(plan.contains(&format!("using {index} on dot_run r")), "{query}:\n{plan}");
        assert!(condition.is_empty() || plan.contains(&format!("Index Cond: ({condition}")), "{query}:\n{plan}");
    }
}

/// A database whose owner is an ordinary role, and has brought his own commands: reading them runs his code, by a cast.
fn owned_commands() -> (Bench, String) {
    let bench = Bench::empty(Cluster::shared());
    let owner = bench.role("owner");
    bench.exec(&format!("ALTER DATABASE {} OWNER TO {owner}", bench.name));
    let sql = "CREATE TABLE seen (who text, session text);
        CREATE TYPE trap AS ENUM ('set');
        CREATE FUNCTION spring(trap) RETURNS json LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.seen VALUES (current_user, session_user); RETURN '1'; END $$;
        CREATE CAST (trap AS json) WITH FUNCTION spring(trap);
        CREATE TABLE dot_iu_command_run (run_id int, command_name text, run_at timestamptz, t trap);
        INSERT INTO dot_iu_command_run VALUES (1, 'cut', now(), 'set');";
    bench.connect_as(&owner).batch_execute(sql).unwrap();
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    (bench, owner)
}

#[test]
fn reading_the_commands_runs_their_owners_code_as_him_and_as_nobody_more() {
    let (bench, owner) = owned_commands();
    bench.ask(&Ask::new("DOT-1", "plan"));
    // The superuser reads; the cast is the owner's.
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM dot_observation", &[]), 2);
    let who: Vec<String> = bench.all("SELECT DISTINCT who FROM seen", &[]);
    assert_eq!(who, [owner.as_str()]);
    for deed in
        ["RESET ROLE", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "ALTER ROLE current_user SUPERUSER"]
    {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION spring(trap) RETURNS json LANGUAGE plpgsql AS
             $f$ BEGIN EXECUTE '{deed}'; INSERT INTO public.seen VALUES (current_user, '{deed}'); RETURN '1'; END $f$"
        );
        bench.connect_as(&owner).batch_execute(&sql).unwrap();
        // It fails, which is told in a warning, and the run is shown.
        assert_eq!(bench.all::<String>("SELECT layer FROM dot_observation", &[]), ["dot"], "{deed}");
    }
    let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = $1";
    assert!(!bench.one::<bool>(sql, &[&owner]));
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM seen WHERE who <> $1", &[&owner]), 0);
}

fn count(session: &mut Client, sql: &str) -> i64 {
    session.query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
}

#[test]
fn a_standby_shows_runs_and_commands_and_reading_them_writes_nothing() {
    let bench = Bench::own(&[]);
    let run = bench.apply("DOT-1");
    bench.until(&run, "succeeded");
    bench.exec("SELECT fn_dot_iu_command_log('iu.cut', 'apply', 'refused', true)");
    let mut reader = bench.connect();
    let mut reading = reader.transaction().unwrap();
    reading.query("SELECT * FROM dot_observation, dot_process_run", &[]).unwrap();
    let xid: Option<String> = reading.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
    assert_eq!(xid, None);
    drop(reading);
    let standby = bench.cluster.standby(&[]);
    standby.start_again();
    let mut there = standby.connect(&bench.name);
    until("the standby has them", || (count(&mut there, "SELECT count(*) FROM dot_observation") == 2).then_some(()));
    assert_eq!(count(&mut there, "SELECT count(*) FROM dot_process_run"), 1);
}

/// Calls fn_dot_wait_all in a session of its own.
fn wait_all(bench: &Bench, process: Uuid) -> std::thread::JoinHandle<(bool, i64)> {
    let mut session = bench.connect();
    std::thread::spawn(move || {
        let row = session.query_one("SELECT open, runs FROM fn_dot_wait_all($1, '30 s')", &[&process]).unwrap();
        (row.get(0), row.get(1))
    })
}

#[test]
fn waiting_for_all_ends_when_the_last_one_is_over_and_not_before() {
    let bench = Bench::shared();
    let process = Uuid::now_v7();
    bench.agent.reply(Reply::Hold);
    let runs: Vec<Run> = ["DOT-1", "DOT-2"].map(|code| bench.ask(&ask(code, "apply", process))).into();
    let held = bench.agent.wait_for(2);
    let waiting = wait_all(&bench, process);
    bench.agent.release(&held[0], Reply::succeeded());
    let first = runs.iter().find(|run| Some(run.id()) == held[0].run_id()).unwrap();
    bench.until(first, "succeeded");
    assert!(!waiting.is_finished(), "one of them is still out");
    bench.agent.release(&held[1], Reply::Close);
    assert_eq!(waiting.join().unwrap(), (true, 2), "the other is in doubt: not waited for, and not over");
    // Again, and there is nothing to wait for.
    assert_eq!(wait_all(&bench, process).join().unwrap(), (true, 2));
}

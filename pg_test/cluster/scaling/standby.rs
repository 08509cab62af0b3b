//! A physical standby for reading, and what it has of a run at which moment. That it is silent and takes over is
//! `promises/standby`'s.

use postgres::{Client, SimpleQueryMessage};

use crate::harness::bench::db_error;
use crate::harness::{Bench, Cluster, Reply, Run, until};

/// Returns when the standby's disk has all that the primary has written; `column` says which disk or memory.
fn caught_up(bench: &Bench, column: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby' AND {column} >= pg_current_wal_flush_lsn()"
    );
    until("the standby has caught up", || (bench.one::<i64>(&sql, &[]) == 1).then_some(()));
}

/// All rows of a query as text.
fn rows(session: &mut Client, sql: &str) -> Vec<String> {
    let messages = session.simple_query(sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|i| row.get(i).unwrap_or("-").to_owned()).collect::<Vec<_>>().join("|")).collect()
}

fn status(session: &mut Client, run: &Run) -> Option<String> {
    let sql = "SELECT run_status || coalesce(' ' || reason, '') FROM dot_wrapper.dot_run WHERE run_id = $1";
    session.query_opt(sql, &[&run.id()]).unwrap().map(|row| row.get(0))
}

#[test]
fn every_view_reads_on_a_standby_and_every_call_is_refused_with_a_hint() {
    let bench = Bench::own(&[]);
    let done = bench.until(&bench.apply("DOT-1"), "succeeded");
    let standby = bench.cluster.standby(&[]);
    standby.start_again();
    // Sealed or not, nothing moves any more that the views show.
    caught_up(&bench, "replay_lsn");
    let mut there = standby.connect(&bench.name);
    let mut here = bench.connect();
    for view in [
        "dot_run",
        "dot_run_event",
        "dot_run_attempt",
        "dot_run_gate",
        "dot_observation",
        "dot_process_run",
        "dot_breaker",
    ] {
        let sql = format!("SELECT * FROM {view} v ORDER BY v::text");
        let (on_primary, on_standby) = (rows(&mut here, &sql), rows(&mut there, &sql));
        assert!(!on_standby.is_empty(), "{view} shows nothing");
        assert_eq!(on_standby, on_primary, "{view}");
    }

    let (run, process) = (done.id(), done.text("process_run_id").to_owned());
    for call in [
        "fn_dot_run('DOT-1', 'plan')".to_owned(),
        "fn_dot_run('DOT-1', 'apply')".to_owned(),
        "fn_dot_run_all()".to_owned(),
        format!("fn_dot_wait('{run}', '1 s')"),
        format!("fn_dot_wait_all('{process}', '1 s')"),
        format!("fn_dot_cancel('{run}', 'because')"),
        format!("fn_dot_resolve('{run}', 'succeeded', 'because')"),
        "fn_dot_breaker('agent', 'open', 'because')".to_owned(),
        "fn_dot_bind('guard', NULL)".to_owned(),
        "fn_dot_resume()".to_owned(),
        "fn_dot_schedule_sync()".to_owned(),
        "fn_dot_trigger_sync()".to_owned(),
    ] {
        let error = db_error(there.simple_query(&format!("SELECT {call}")).expect_err(&call));
        assert_eq!((error.code().code(), error.message()), ("25006", "this server is a standby"), "{call}");
        assert!(error.hint().is_some_and(|hint| hint.contains("on the primary")), "{call}: {error:?}");
    }
    let error = db_error(there.batch_execute("INSERT INTO dot_run_request (code) VALUES ('DOT-1')").unwrap_err());
    assert_eq!(error.code().code(), "25006");
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn in_a_read_only_session_what_writes_is_refused_with_a_hint_and_what_reads_goes_on() {
    let bench = Bench::shared();
    let done = bench.until(&bench.verify("DOT-1"), "succeeded");
    let (run, process) = (done.id(), done.text("process_run_id").to_owned());
    let mut session = bench.connect();
    session.batch_execute("SET default_transaction_read_only = on").unwrap();
    for call in [
        "fn_dot_run('DOT-1', 'plan')".to_owned(),
        "fn_dot_run('no such tool', 'apply')".to_owned(),
        format!("fn_dot_run('DOT-1', 'apply', '{process}')"),
        "fn_dot_run_all()".to_owned(),
        "fn_dot_tick('DOT-1')".to_owned(),
        format!("fn_dot_cancel('{run}', 'because')"),
        format!("fn_dot_resolve('{run}', 'succeeded', 'because')"),
        "fn_dot_breaker('agent', 'open', 'because')".to_owned(),
        "fn_dot_bind('guard', NULL)".to_owned(),
        "fn_dot_resume()".to_owned(),
        "fn_dot_schedule_sync()".to_owned(),
        "fn_dot_trigger_sync()".to_owned(),
    ] {
        let error = db_error(session.simple_query(&format!("SELECT {call}")).expect_err(&call));
        assert_eq!((error.code().code(), error.message()), ("25006", "this transaction is read-only"), "{call}");
        assert!(error.detail().is_some() && error.hint().is_some_and(|hint| hint.contains("READ WRITE")), "{error:?}");
    }
    for call in [
        format!("fn_dot_wait('{run}', '1 s')"),
        format!("fn_dot_wait_all('{process}', '1 s')"),
        format!("fn_dot_verify('{process}')"),
        "fn_dot_verify()".to_owned(),
        "fn_dot_seal_head()".to_owned(),
        "fn_dot_doctor()".to_owned(),
        format!("fn_dot_dry_run_report('{process}')"),
        "fn_dot_iu_commands()".to_owned(),
    ] {
        session.simple_query(&format!("SELECT {call}")).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    // As the hint says.
    let sql = "START TRANSACTION READ WRITE; SELECT fn_dot_run('DOT-1', 'plan'); COMMIT";
    session.batch_execute(sql).unwrap();
}

/// What a synchronous standby promises is its disk, not its memory: it has the intent of whatever was sent, whether or not it
/// has come to replaying it, and so takes it for in doubt when it is promoted. Who wants to read his own run there says so.
#[test]
fn a_synchronous_standby_that_lags_has_every_intent_when_it_is_promoted() {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    let standby = bench.cluster.standby(&[]);
    standby.start_again();
    caught_up(&bench, "replay_lsn");
    bench.cluster.set(&[("synchronous_standby_names", "standby")]);
    let mut there = standby.connect(&bench.name);

    // It replays before the caller's commit is through, where the caller asks for that.
    bench.exec("SET synchronous_commit = remote_apply");
    let seen = bench.apply("DOT-1");
    assert!(status(&mut there, &seen).is_some(), "a run that its caller knows of");
    bench.until(&seen, "succeeded");

    // From now on it only writes down what it gets.
    bench.exec("SET synchronous_commit = on");
    pause(&standby, &bench.name);
    bench.agent.reply(Reply::Hold);
    let out = bench.apply("DOT-2");
    bench.agent.wait_for(2);
    assert_eq!(status(&mut there, &out), None, "it lags");

    bench.cluster.stop("immediate");
    bench.agent.reply(Reply::succeeded());
    standby.promote();
    until("the run is in doubt there", || (status(&mut there, &out)? == "in_doubt worker_lost").then_some(()));
    assert_eq!(bench.agent.count(), 2, "nothing was sent twice");
}

fn pause(standby: &Cluster, database: &str) {
    let mut session = standby.connect(database);
    session.batch_execute("SELECT pg_wal_replay_pause()").unwrap();
    until("replay is paused", || {
        let state: String = session.query_one("SELECT pg_get_wal_replay_pause_state()", &[]).unwrap().get(0);
        (state == "paused").then_some(())
    });
}

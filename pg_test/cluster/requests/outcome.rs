//! A row follows its run: through every state, whoever moves it, and whatever is locked or dies meanwhile.

use serde_json::{Value, json};

use super::{agrees, apply, request, row, served, until_says};
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, os, until};

fn quick(bench: Bench) -> (Bench, String) {
    let (bench, role) = served(bench);
    bench.exec("UPDATE dot_wrapper.policy SET retry_base_ms = 20 WHERE name = 'agent_api'");
    (bench, role)
}

fn run_id(asked: &Value) -> String {
    asked["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_row_shows_running_retry_and_the_end() {
    let (bench, role) = quick(Bench::shared());
    bench.agent.plan(|request| match request.body["attempt"].as_i64() {
        Some(1) => Reply::Json(429, json!({})),
        _ => Reply::Hold,
    });
    let asked = apply(&bench, &role, "DOT-1");
    let second = bench.agent.wait_for(2).pop().unwrap();
    until_says(&bench, &asked, "running");
    bench.agent.release(&second, Reply::Json(200, json!({"status": "failed", "result": {"why": "because"}})));
    let over = until_says(&bench, &asked, "failed");
    assert_eq!(over["result"], json!({"why": "because"}));
    assert_eq!(bench.events(&crate::harness::Run(over)), ["queued", "running", "queued", "running", "failed"]);
}

#[test]
fn a_row_shows_doubt_and_what_an_operator_makes_of_it() {
    let (bench, role) = quick(Bench::shared());
    for (outcome, status) in [("succeeded", "succeeded"), ("failed", "failed"), ("retry", "succeeded")] {
        bench.agent.reply(Reply::Close);
        let asked = apply(&bench, &role, "DOT-1");
        let doubt = until_says(&bench, &asked, "in_doubt");
        assert!(doubt["finished_at"].is_null() && doubt["message"].is_string(), "{doubt:?}");
        bench.agent.reply(Reply::succeeded());
        bench.exec(&format!("SELECT fn_dot_resolve('{}', '{outcome}', 'looked it up')", run_id(&asked)));
        until_says(&bench, &asked, status);
    }
}

#[test]
fn a_row_shows_cancel_expiry_and_the_second_gate() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    let [cancelled, expired, refused] = ["DOT-1", "DOT-2", "DOT-3"].map(|code| apply(&bench, &role, code));
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_cancel TO {role}"));
    bench
        .connect_as(&role)
        .batch_execute(&format!("SELECT fn_dot_cancel('{}', 'not needed')", run_id(&cancelled)))
        .unwrap();
    assert_eq!(until_says(&bench, &cancelled, "cancelled")["message"], "not needed");
    bench.exec(&format!(
        "UPDATE dot_wrapper.dot_run SET start_by = '-infinity' WHERE run_id = '{}';
         UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-3'",
        run_id(&expired)
    ));
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    assert_eq!(until_says(&bench, &expired, "expired")["reason"], "start_by_passed");
    until_says(&bench, &refused, "refused");
    assert_eq!(bench.agent.count(), 0);
}

#[test]
fn who_may_not_insert_any_more_is_refused_at_the_second_gate() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    let group = bench.role("group");
    let column = super::requester(&bench, "column");
    bench.exec(&format!(
        "GRANT INSERT ON dot_run_request TO {group}; GRANT {group} TO {role}; REVOKE INSERT ON dot_run_request FROM {column};
         GRANT INSERT (code, mode) ON dot_run_request TO {column}"
    ));
    let [by_group, by_column] = [&role, &column].map(|role| apply(&bench, role, "DOT-1"));
    // What the role has by itself is gone; what it has as a member is enough.
    bench.exec(&format!(
        "REVOKE INSERT ON dot_run_request FROM {role}; REVOKE INSERT (code) ON dot_run_request FROM {column}"
    ));
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    until_says(&bench, &by_group, "succeeded");
    let refused = until_says(&bench, &by_column, "refused");
    assert_eq!(refused["reason"], "privilege_revoked");
    assert!(refused["message"].as_str().unwrap().contains("insert into dot_run_request"));
    // To call fn_dot_run is another matter, and does not help.
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {column}"));
    assert_eq!(bench.agent.count(), 1);
}

/// The run is fn_dot_run's; a row that gets it by its key follows it as well, and sees the end that is just being written.
#[test]
fn a_row_follows_a_run_that_was_there_before() {
    let (bench, role) = served(Bench::own(&[]));
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {role}"));
    let process = uuid::Uuid::now_v7();
    let call = format!("SELECT fn_dot_run('DOT-1', 'apply', '{process}', idempotency_key => 'k')");
    let ask = format!(
        "INSERT INTO dot_run_request (code, mode, process_run_id, idempotency_key) VALUES ('DOT-1', 'apply', '{process}', 'k') RETURNING *"
    );
    bench.agent.reply(Reply::Hold);
    bench.connect_as(&role).batch_execute(&call).unwrap();
    let held = bench.agent.wait_for(1).pop().unwrap();
    let early = super::rows(&bench, &role, &ask).pop().unwrap();
    assert_eq!(early["run_status"], "running");
    // One is inserted and not committed while the end is to be written: the end waits, and takes it along.
    let mut session = bench.connect_as(&role);
    let mut transaction = session.transaction().unwrap();
    let late: uuid::Uuid = transaction.query_one(&ask.replace('*', "id"), &[]).unwrap().get(0);
    bench.agent.release(&held, Reply::succeeded());
    holds("the end waits", std::time::Duration::from_millis(1500), || {
        row(&bench, &early["id"])["run_status"] == "running"
    });
    transaction.commit().unwrap();
    until_says(&bench, &early, "succeeded");
    until_says(&bench, &json!({"id": late}), "succeeded");
    // And one that comes after the end has it at once.
    assert_eq!(super::rows(&bench, &role, &ask)[0]["run_status"], "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

/// Who may delete rows can hold a lock on one: the run ends all the same, and the row is caught up with.
#[test]
fn a_locked_row_holds_up_no_run_and_is_caught_up_with() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.exec(&format!("GRANT DELETE ON dot_run_request TO {role}"));
    bench.agent.reply(Reply::Hold);
    let asked = apply(&bench, &role, "DOT-1");
    let held = bench.agent.wait_for(1).pop().unwrap();
    until_says(&bench, &asked, "running");
    for lock in ["DELETE FROM dot_run_request", "LOCK TABLE dot_run_request"] {
        let mut session = bench.connect();
        let mut transaction = session.transaction().unwrap();
        transaction.batch_execute(lock).unwrap();
        if lock.starts_with("DELETE") {
            bench.agent.release(&held, Reply::succeeded());
            bench.until(&crate::harness::Run(asked.clone()), "succeeded");
            bench.agent.reply(Reply::succeeded());
        }
        bench.drain();
        transaction.rollback().unwrap();
    }
    until_says(&bench, &asked, "succeeded");
}

#[test]
fn a_row_that_was_deleted_is_gone_and_its_run_goes_on() {
    let (bench, role) = served(Bench::shared());
    bench.exec(&format!("GRANT DELETE ON dot_run_request TO {role}"));
    bench.agent.reply(Reply::Hold);
    let asked = apply(&bench, &role, "DOT-1");
    let held = bench.agent.wait_for(1).pop().unwrap();
    assert_eq!(bench.connect_as(&role).execute("DELETE FROM dot_run_request", &[]).unwrap(), 1);
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&crate::harness::Run(asked), "succeeded");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM dot_run_request", &[]), 0);
}

/// The worker dies after the intent is on disk, and at the end before its commit: the row is never ahead of the ledger, nor
/// left behind.
#[test]
fn a_row_agrees_with_the_ledger_after_every_crash() {
    let (bench, role) = quick(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.exec("UPDATE dot_wrapper.policy SET idempotent = true WHERE name = 'agent_api'");
    for point in ["claim_before_commit", "claim_after_commit", "settle_before_commit"] {
        let points = bench.cluster.fail_points(&[&format!("{point}=abort once")]);
        let asked = apply(&bench, &role, "DOT-1");
        points.wait_for_deaths();
        until("the server is back", || bench.cluster.connect_as(&bench.name, "postgres").ok());
        bench.forget_session();
        assert!(agrees(&bench, &row(&bench, &asked["id"])), "after {point}");
        drop(points);
        until_says(&bench, &asked, "succeeded");
    }
}

/// A worker that was killed with rows behind the ledger: its successor catches up with them.
#[test]
fn a_new_worker_catches_up_with_rows_that_are_behind() {
    let (bench, role) = served(Bench::own(&[]));
    bench.agent.reply(Reply::Hold);
    let asked = apply(&bench, &role, "DOT-1");
    let held = bench.agent.wait_for(1).pop().unwrap();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute("SELECT FROM dot_run_request FOR UPDATE").unwrap();
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&crate::harness::Run(asked.clone()), "succeeded");
    assert!(os::signal(bench.worker(), "TERM"));
    transaction.rollback().unwrap();
    until_says(&bench, &asked, "succeeded");
}

#[test]
fn runs_of_other_ways_touch_no_request() {
    let (bench, role) = served(Bench::shared());
    request(&bench, &role, "code", "'DOT-1'");
    let touched = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'dot_run_request'
                   UNION ALL SELECT pg_stat_get_tuples_updated('dot_run_request'::regclass)";
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert!(!bench.one::<bool>("SELECT bool_or(q.followed) IS TRUE FROM dot_wrapper.dot_queue q", &[]));
    assert!(bench.all::<i64>(touched, &[]).iter().all(|count| *count == 0));
}

/// A run that brings the worker down each time is set aside: its row says so, and goes on with it.
#[test]
fn a_row_tells_that_its_run_is_set_aside() {
    let (bench, role) = served(Bench::own(&[]));
    let points = bench.cluster.fail_points(&["claim_gate=abort(DOT-1)"]);
    let id = uuid::Uuid::new_v4();
    let ask = format!("INSERT INTO dot_run_request (id, code, mode) VALUES ('{id}', 'DOT-1', 'apply')");
    // The server may crash before it answers.
    let _ = bench.connect_as(&role).batch_execute(&ask);
    let told = format!(
        "SELECT coalesce(reason, '') = 'quarantined' AND run_status = 'queued' FROM dot_run_request WHERE id = '{id}'"
    );
    until("the row tells", || {
        let mut session = bench.cluster.connect_as(&bench.name, "postgres").ok()?;
        session.query_one(&told, &[]).ok()?.get::<_, bool>(0).then_some(())
    });
    drop(points);
    bench.forget_session();
    let asked = row(&bench, &json!(id));
    assert!(agrees(&bench, &asked), "{asked:?}");
    bench.exec(&format!("SELECT fn_dot_resume(ARRAY['{}'::uuid])", run_id(&asked)));
    assert!(until_says(&bench, &asked, "succeeded")["reason"].is_null());
}

//! Outcomes that a client fills in, and runs of others that it names, where the row of an id is going at this very moment.

use postgres::Transaction;
use serde_json::{Value, json};

use super::{request, requester, row, served};
use crate::harness::wait::holds;
use crate::harness::{Bench, until};

const ID: &str = "00000000-0000-4000-8000-000000000003";

/// An INSERT of a row that is complete but for its end, with somebody else's run.
fn forged(run_id: &Value) -> String {
    format!(
        "INSERT INTO dot_run_request (id, code, mode, run_id, run_status, reason, message, result)
         VALUES ('{ID}', 'DOT-1', 'plan', {}, 'succeeded', 'r', 'm', '{{\"ok\": true}}')",
        run_id.to_string().replace('"', "'")
    )
}

fn shows_no_run(bench: &Bench) {
    let now = row(bench, &json!(ID));
    assert_eq!((&now["run_status"], &now["reason"]), (&json!("refused"), &json!("invalid_request")), "{now:?}");
    assert_eq!((&now["run_id"], &now["result"], now["finished_at"].is_string()), (&Value::Null, &Value::Null, true));
}

/// A row of the role's own with the id, somebody else's run that is not over, and the role, which may delete.
fn prepared() -> (Bench, String, Value) {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    let theirs = super::apply(&bench, &requester(&bench, "theirs"), "DOT-2")["run_id"].clone();
    bench.exec(&format!("GRANT DELETE ON dot_run_request TO {role}"));
    request(&bench, &role, "id, code", &format!("'{ID}', 'DOT-1'"));
    (bench, role, theirs)
}

fn delete(session: &mut Transaction<'_>) {
    assert_eq!(session.execute(&format!("DELETE FROM dot_run_request WHERE id = '{ID}'"), &[]).unwrap(), 1);
}

#[test]
fn an_outcome_cannot_be_forged_while_the_old_row_is_being_deleted() {
    let (bench, role, theirs) = prepared();
    let mut deleting = bench.connect_as(&role);
    let mut held = deleting.transaction().unwrap();
    delete(&mut held);
    let mut second = bench.connect_as(&role);
    let pid: i32 = second.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let insert = forged(&theirs);
    let waiting = std::thread::spawn(move || second.batch_execute(&insert));
    let blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0";
    until("the insert waits for the delete", || bench.one::<bool>(blocked, &[&pid]).then_some(()));
    held.commit().unwrap();
    waiting.join().unwrap().unwrap();
    shows_no_run(&bench);
}

#[test]
fn an_outcome_cannot_be_forged_with_an_old_snapshot() {
    let (bench, role, theirs) = prepared();
    let mut old = bench.connect_as(&role);
    let mut old = old.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    old.batch_execute("SELECT FROM dot_run_request").unwrap();
    let mut deleting = bench.connect_as(&role);
    let mut held = deleting.transaction().unwrap();
    delete(&mut held);
    held.commit().unwrap();
    old.batch_execute(&forged(&theirs)).unwrap();
    old.commit().unwrap();
    shows_no_run(&bench);
}

/// Another trigger may fill the code in after ours has seen that there is none.
#[test]
fn an_outcome_cannot_be_forged_without_a_code() {
    let (bench, role, theirs) = prepared();
    bench.exec(
        "DELETE FROM dot_run_request;
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.code := 'DOT-1'; RETURN NEW; END$$;
         CREATE TRIGGER z_fill BEFORE INSERT ON dot_run_request FOR EACH ROW EXECUTE FUNCTION fill()",
    );
    bench.connect_as(&role).batch_execute(&forged(&theirs).replace("'DOT-1'", "NULL")).unwrap();
    shows_no_run(&bench);
}

/// However a row came by somebody else's run, it is told nothing of it.
#[test]
fn a_row_is_told_of_no_run_that_another_role_requested() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    let theirs = super::apply(&bench, &requester(&bench, "theirs"), "DOT-2");
    super::until_says(&bench, &theirs, "succeeded");
    bench.exec(&format!(
        "INSERT INTO dot_run_request (id, code, run_id, run_status, requested_by, requested_by_oid, requested_at)
         VALUES ('{ID}', 'DOT-2', '{}', 'queued', '{role}', '{role}'::regrole, now())",
        theirs["run_id"].as_str().unwrap()
    ));
    // One of the role's own, put back as it was, is caught up with: so the worker has looked.
    let own = super::until_says(&bench, &super::apply(&bench, &role, "DOT-1"), "succeeded");
    bench.exec(&format!(
        "CREATE TABLE kept AS SELECT * FROM dot_run_request WHERE id = '{0}'; DELETE FROM dot_run_request WHERE id = '{0}';
         UPDATE kept SET run_status = 'running', finished_at = NULL, result = NULL;
         INSERT INTO dot_run_request SELECT * FROM kept",
        own["id"].as_str().unwrap()
    ));
    super::until_says(&bench, &own, "succeeded");
    holds("the other's row stays as it is", std::time::Duration::from_millis(100), || {
        row(&bench, &json!(ID))["run_status"] == "queued"
    });
}

//! A row that is not inserted makes no run, though its trigger has fired.

use serde_json::json;

use super::{request, row, rows, runs, served};
use crate::harness::bench::db_error;
use crate::harness::{Bench, until};

#[test]
fn a_conflicting_insert_makes_no_run() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, "code, mode", "'DOT-1', 'plan'");
    let id = asked["id"].as_str().unwrap();
    let before = runs(&bench);
    let nothing = format!(
        "INSERT INTO dot_run_request (id, code, mode) VALUES ('{id}', 'DOT-2', 'apply') ON CONFLICT DO NOTHING RETURNING *"
    );
    assert!(rows(&bench, &role, &nothing).is_empty());
    let plain = format!("INSERT INTO dot_run_request (id, code, mode) VALUES ('{id}', 'DOT-2', 'apply')");
    let error = db_error(bench.connect_as(&role).batch_execute(&plain).unwrap_err());
    assert_eq!(error.code().code(), "23505");
    // Who may update besides is told that a request cannot be changed, and gets a new one where there is none.
    bench.exec(&format!("GRANT UPDATE ON dot_run_request TO {role}"));
    let update = |id: &str| {
        format!(
            "INSERT INTO dot_run_request (id, code, mode) VALUES ({id}, 'DOT-2', 'plan') ON CONFLICT (id) DO UPDATE SET code = excluded.code"
        )
    };
    let error = db_error(bench.connect_as(&role).batch_execute(&update(&format!("'{id}'"))).unwrap_err());
    assert_eq!((error.code().code(), error.hint().is_some()), ("55000", true));
    assert_eq!((runs(&bench), row(&bench, &asked["id"])), (before, asked.clone()));
    assert_eq!(rows(&bench, &role, &(update("gen_random_uuid()") + " RETURNING *"))[0]["run_status"], "planned");
    assert_eq!(runs(&bench), before + 1);
}

#[test]
fn one_id_twice_in_a_statement_is_one_run() {
    let (bench, role) = served(Bench::shared());
    let sql = "INSERT INTO dot_run_request (id, code)
               SELECT '00000000-0000-4000-8000-000000000001', 'DOT-' || n FROM generate_series(1, 3) n
               ON CONFLICT DO NOTHING RETURNING *";
    assert_eq!(rows(&bench, &role, sql).len(), 1);
    assert_eq!(runs(&bench), 1);
}

/// Two sessions, one id, ON CONFLICT DO NOTHING in both: the second finds no row, requests a run, and then has to wait for
/// the first one's row. It fails as a whole, and leaves nothing.
#[test]
fn one_id_from_two_sessions_at_once_is_one_run() {
    let (bench, role) = served(Bench::shared());
    let sql = "INSERT INTO dot_run_request (id, code) VALUES ('00000000-0000-4000-8000-000000000002', 'DOT-1') ON CONFLICT DO NOTHING";
    for (isolation, commits) in [("READ COMMITTED", true), ("REPEATABLE READ", true), ("READ COMMITTED", false)] {
        bench.exec("DELETE FROM dot_run_request");
        let before = runs(&bench);
        let mut first = bench.connect_as(&role);
        let mut held = first.transaction().unwrap();
        held.batch_execute(sql).unwrap();
        let mut second = bench.connect_as(&role);
        let pid: i32 = second.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let waiting = std::thread::spawn(move || {
            let mut transaction = second.build_transaction().start().unwrap();
            transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {isolation}"))?;
            transaction.batch_execute(sql)?;
            transaction.commit()
        });
        let blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0";
        until("the second waits for the first", || bench.one::<bool>(blocked, &[&pid]).then_some(()));
        if commits {
            held.commit().unwrap()
        } else {
            held.rollback().unwrap()
        }
        let outcome = waiting.join().unwrap();
        if commits {
            assert_eq!(db_error(outcome.unwrap_err()).code().code(), "40001", "{isolation}");
        } else {
            outcome.unwrap();
        }
        assert_eq!((runs(&bench), bench.one::<i64>("SELECT count(*) FROM dot_run_request", &[])), (before + 1, 1));
        // Tried again, it sees the row, and does nothing.
        if commits {
            bench.connect_as(&role).batch_execute(sql).unwrap();
            assert_eq!(runs(&bench), before + 1);
        }
    }
}

/// A statement that fails leaves nothing behind that a later one would stumble over.
#[test]
fn a_failed_statement_does_not_spoil_the_next() {
    let (bench, role) = served(Bench::shared());
    let mut session = bench.connect_as(&role);
    let failing = "INSERT INTO dot_run_request (code) VALUES ('DOT-1'), (NULL)";
    for _ in 0..2 {
        assert_eq!(db_error(session.batch_execute(failing).unwrap_err()).code().code(), "23502");
        session.batch_execute("INSERT INTO dot_run_request (code) VALUES ('DOT-1')").unwrap();
    }
    assert_eq!((runs(&bench), rows(&bench, &role, "SELECT * FROM dot_run_request").len()), (2, 2));
}

/// An administrator's own trigger that takes rows away would leave runs that nobody sees: the statement fails.
#[test]
fn a_trigger_that_takes_the_row_away_takes_the_run_with_it() {
    let (bench, role) = served(Bench::shared());
    bench.exec(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER z_away BEFORE INSERT ON dot_run_request FOR EACH ROW EXECUTE FUNCTION away()",
    );
    let error =
        bench.connect_as(&role).batch_execute("INSERT INTO dot_run_request (code, mode) VALUES ('DOT-1', 'apply')");
    let error = db_error(error.unwrap_err());
    assert_eq!((error.code().code(), error.detail().is_some()), ("55000", true));
    assert_eq!(runs(&bench), 0);
    bench.exec("DROP TRIGGER z_away ON dot_run_request");
    assert_eq!(request(&bench, &role, "code", "'DOT-1'")["run_status"], json!("planned"));
}

//! What a role needs, what it sees, and every way to insert.

use serde_json::{Value, json};

use super::{apply, request, requester, row, rows, runs, served, until_says};
use crate::harness::bench::db_error;
use crate::harness::{Bench, rounds};

#[test]
fn insert_and_select_on_the_request_table_are_enough_to_run_a_tool() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, "code, mode, args, actor", r#"'DOT-1', 'apply', '{"scope": "all"}', 'Ann'"#);
    assert_eq!((&asked["run_status"], &asked["finished_at"]), (&json!("queued"), &Value::Null), "{asked:?}");
    let over = until_says(&bench, &asked, "succeeded");
    assert_eq!(over["args"], json!({"scope": "all"}));
    let sql = "SELECT concat_ws(' ', source, source_ref, actor, requested_by) FROM dot_run WHERE run_id::text = $1";
    let said: String = bench.one(sql, &[&asked["run_id"].as_str()]);
    assert_eq!(said, format!("request {} Ann {role}", asked["id"].as_str().unwrap()));
    let none = "SELECT count(*) FROM pg_proc f WHERE (f.proname LIKE 'fn\\_dot%' OR f.pronamespace = 'dot_wrapper'::regnamespace)
                AND has_function_privilege($1::text, f.oid, 'EXECUTE')";
    assert_eq!(bench.one::<i64>(none, &[&role]), 0);
    assert!(!bench.one::<bool>("SELECT has_schema_privilege($1::text, 'dot_wrapper', 'USAGE')", &[&role]));
}

#[test]
fn a_code_alone_is_a_plan_and_nulls_are_defaults() {
    let (bench, role) = served(Bench::shared());
    for (columns, values) in [("code", "'DOT-1'"), ("id, code, mode, args", "NULL, 'DOT-1', NULL, NULL")] {
        let asked = request(&bench, &role, columns, values);
        assert_eq!((&asked["mode"], &asked["args"]), (&json!("plan"), &json!({})));
        assert_eq!(asked["run_status"], "planned", "{asked:?}");
        assert_eq!(asked["requested_by"], json!(role));
    }
    assert_eq!(bench.agent.count(), 0);
}

#[test]
fn misuse_is_a_refused_row_and_makes_no_run() {
    let (bench, role) = served(Bench::shared());
    let before = runs(&bench);
    let long = "x".repeat(1000);
    for (columns, values, word) in [
        (
            "code, mode",
            "'DOT-1', 'run'".to_owned(),
            "unknown mode \"run\" (22023); the modes are plan, verify and apply",
        ),
        ("code", "''".to_owned(), "code must not be empty (22023)"),
        ("code", format!("'{long}'"), "code is too long (22023)"),
        ("code, args", "'DOT-1', '[]'".to_owned(), "args must be a JSON object (22023); args is an array"),
        ("code, args", "'DOT-1', 'null'".to_owned(), "args must be a JSON object (22023)"),
        ("code, args", r#"'DOT-1', '{"$serde_json::private::Number": "1"}'"#.to_owned(), "reserved key (22023)"),
        ("code, idempotency_key", format!("'DOT-1', '{long}'"), "idempotency_key is too long (22023)"),
        ("code, mode, actor", format!("'DOT-1', '{long}', '{long}'"), "unknown mode"),
    ] {
        let asked = request(&bench, &role, columns, &values);
        assert_eq!((&asked["run_status"], &asked["reason"]), (&json!("refused"), &json!("invalid_request")));
        assert!(asked["run_id"].is_null() && !asked["finished_at"].is_null(), "{asked:?}");
        assert!(asked["message"].as_str().unwrap().contains(word), "{word}: {asked:?}");
        for (column, most) in [("code", 200), ("mode", 60), ("idempotency_key", 255), ("actor", 200)] {
            assert!(asked[column].as_str().is_none_or(|text| text.len() <= most), "{column} is kept whole");
        }
    }
    let deep = "INSERT INTO dot_run_request (code, args)
                VALUES ('DOT-1', (repeat('{\"a\":', 200) || '1' || repeat('}', 200))::jsonb) RETURNING message";
    let said: String = bench.connect_as(&role).query_one(deep, &[]).unwrap().get(0);
    assert!(said.starts_with("args cannot be read (54000)"), "{said}");
    let error = bench.connect_as(&role).batch_execute("INSERT INTO dot_run_request (mode) VALUES ('plan')");
    assert_eq!(db_error(error.unwrap_err()).code().code(), "23502");
    assert_eq!(runs(&bench), before);
}

#[test]
fn a_key_in_use_for_other_arguments_is_a_refused_row() {
    let (bench, role) = served(Bench::shared());
    let columns = "code, mode, process_run_id, idempotency_key, args";
    let process = uuid::Uuid::now_v7();
    let values = |args: &str| format!("'DOT-2', 'apply', '{process}', 'k', '{args}'");
    let first = request(&bench, &role, columns, &values("{}"));
    let again = request(&bench, &role, columns, &values("{}"));
    assert_eq!(first["run_id"], again["run_id"]);
    let other = request(&bench, &role, columns, &values(r#"{"other": 1}"#));
    assert_eq!((&other["run_status"], &other["reason"]), (&json!("refused"), &json!("invalid_request")));
    assert!(other["message"].as_str().unwrap().contains("(23505)"), "{other:?}");
    let stranger = requester(&bench, "stranger");
    let theirs = request(&bench, &stranger, columns, &values("{}"));
    assert!(theirs["message"].as_str().unwrap().contains("another role (23505)"), "{theirs:?}");
    for asked in [&first, &again] {
        until_says(&bench, asked, "succeeded");
    }
}

#[test]
fn a_role_sees_its_own_rows_and_those_of_roles_it_is_a_member_of() {
    let (bench, role) = served(Bench::shared());
    let [stranger, member, auditor] = ["stranger", "member", "auditor"].map(|name| requester(&bench, name));
    bench.exec(&format!("GRANT {role} TO {member}; GRANT pg_read_all_data TO {auditor}"));
    let asked = request(&bench, &role, "code", "'DOT-1'");
    let count = |who: &str| rows(&bench, who, "SELECT * FROM dot_run_request").len();
    assert_eq!([&role, &stranger, &member, &auditor].map(|who| count(who)), [1, 0, 1, 1]);
    request(&bench, &member, "code", "'DOT-1'");
    assert_eq!([&role, &stranger, &member, &auditor].map(|who| count(who)), [1, 0, 2, 2]);
    // Another role that gets the name later is another role.
    bench.exec(&format!(
        "ALTER ROLE {role} RENAME TO {role}_old; CREATE ROLE {role} LOGIN; GRANT SELECT ON dot_run_request TO {role}"
    ));
    assert_eq!(count(&role), 0);
    assert_eq!(row(&bench, &asked["id"]), asked);
}

#[test]
fn rows_come_by_copy_by_select_by_many_and_go_with_their_savepoint() {
    let (bench, role) = served(Bench::shared());
    let mut session = bench.connect_as(&role);
    let many = "INSERT INTO dot_run_request (code, mode) SELECT 'DOT-' || n, m FROM generate_series(1, 3) n, unnest('{plan,verify}'::text[]) m";
    assert_eq!(session.execute(many, &[]).unwrap(), 6);
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute("INSERT INTO dot_run_request (code) VALUES ('DOT-1')").unwrap();
    let mut inner = transaction.savepoint("s").unwrap();
    inner
        .batch_execute("INSERT INTO dot_run_request (code, mode) VALUES ('DOT-2', 'apply'), ('DOT-3', 'apply')")
        .unwrap();
    inner.rollback().unwrap();
    transaction.commit().unwrap();
    // PostgreSQL has no COPY FROM for roles whose rows a policy picks.
    let refused = session.batch_execute("COPY dot_run_request (code) FROM STDIN");
    assert_eq!(db_error(refused.unwrap_err()).code().code(), "0A000");
    {
        let mut owner = bench.session();
        let mut writer = owner.copy_in("COPY dot_run_request (code, mode, args) FROM STDIN").unwrap();
        std::io::Write::write_all(&mut writer, b"DOT-1\tplan\t{\"by\": \"copy\"}\nDOT-2\tverify\t\\N\n").unwrap();
        assert_eq!(writer.finish().unwrap(), 2);
    }
    let counts = "SELECT ARRAY[count(*), count(r.run_id), count(DISTINCT w.run_id), (SELECT count(*) FROM dot_wrapper.dot_run)]
                  FROM dot_run_request w LEFT JOIN dot_wrapper.dot_run r ON r.run_id = w.run_id AND r.source_ref = w.id::text";
    assert_eq!(bench.one::<Vec<i64>>(counts, &[]), [9; 4]);
}

#[test]
fn many_rows_in_a_statement_are_as_many_runs() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    let mut session = bench.connect_as(&role);
    let timed = |session: &mut postgres::Client, count: u32, sql: &str| {
        let begun = std::time::Instant::now();
        assert_eq!(session.execute(&format!("{sql} generate_series(1, {count})"), &[]).unwrap(), u64::from(count));
        begun.elapsed() / count
    };
    let many = rounds(200, 1000) as u32;
    let by_row = timed(&mut session, many, "INSERT INTO dot_run_request (code, mode) SELECT 'DOT-1', 'apply' FROM");
    let by_call = timed(&mut bench.connect(), 100, "SELECT fn_dot_run('DOT-1', 'apply') FROM");
    println!("an apply in a statement with many: {by_row:?} by a row, {by_call:?} by a call");
    let counts = "SELECT ARRAY[count(*), count(DISTINCT run_id)] FROM dot_run_request WHERE run_status = 'queued'";
    assert_eq!(bench.one::<Vec<i64>>(counts, &[]), [i64::from(many); 2]);
}

#[test]
fn a_request_that_is_rolled_back_is_never_sent() {
    let (bench, role) = served(Bench::shared());
    let mut session = bench.connect_as(&role);
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute("INSERT INTO dot_run_request (code, mode) VALUES ('DOT-1', 'apply')").unwrap();
    transaction.rollback().unwrap();
    bench.drain();
    assert_eq!((bench.agent.count(), rows(&bench, &role, "SELECT * FROM dot_run_request").len()), (0, 0));
    assert_eq!(apply(&bench, &role, "DOT-1")["run_status"], "queued", "its lease is gone with it");
}

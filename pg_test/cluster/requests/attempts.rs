//! What somebody with INSERT and SELECT, or a bit more, may try.

use serde_json::{Value, json};

use super::{apply, request, requester, row, rows, runs, served, until_says};
use crate::harness::bench::db_error;
use crate::harness::{Bench, until};

const COMPLETE: &str = "code, mode, run_id, run_status, reason, message, result, requested_by, requested_by_oid, requested_at, finished_at";

fn forged(run_id: &str) -> String {
    format!(
        "'NO-SUCH', 'apply', '{run_id}', 'succeeded', 'r', 'm', '{{\"ok\": true}}', 'postgres', 10, '2020-01-01', '2020-01-01'"
    )
}

#[test]
fn outcome_columns_that_a_client_fills_in_are_overwritten() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, COMPLETE, &forged(&uuid::Uuid::now_v7().to_string()));
    assert_eq!((&asked["run_status"], &asked["reason"]), (&json!("refused"), &json!("uncatalogued")));
    assert_eq!((&asked["requested_by"], &asked["result"]), (&json!(role), &Value::Null));
    assert!(super::agrees(&bench, &asked) && asked["requested_at"].as_str().unwrap() > "2026", "{asked:?}");
    let mut misuse = forged(&uuid::Uuid::now_v7().to_string());
    misuse = misuse.replace("'apply'", "'run'");
    let asked = request(&bench, &role, COMPLETE, &misuse);
    assert_eq!(
        (&asked["run_id"], &asked["result"], &asked["requested_by"]),
        (&Value::Null, &Value::Null, &json!(role))
    );
}

#[test]
fn a_row_can_be_changed_by_nobody_not_even_its_owner() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, "code", "'DOT-1'");
    let other = request(&bench, &requester(&bench, "other"), "code", "'DOT-1'");
    let update = "UPDATE dot_run_request SET run_status = 'succeeded'";
    let state = |who: &str, sql: &str| {
        let result = bench.connect_as(who).execute(sql, &[]);
        result.map_err(|error| db_error(error).code().code().to_owned())
    };
    assert_eq!(state(&role, update), Err("42501".into()));
    bench.exec(&format!("GRANT UPDATE, DELETE ON dot_run_request TO {role}"));
    for sql in [update, "UPDATE dot_run_request SET actor = 'x'", "UPDATE dot_run_request SET id = id"] {
        assert_eq!(state(&role, sql), Err("55000".into()), "{sql}");
        assert_eq!(state("postgres", sql), Err("55000".into()), "{sql}");
    }
    // The rows of others are not there: neither to change nor to delete.
    let theirs = format!("id = '{}'", other["id"].as_str().unwrap());
    assert_eq!(state(&role, &format!("{update} WHERE {theirs}")), Ok(0));
    assert_eq!(state(&role, &format!("DELETE FROM dot_run_request WHERE {theirs}")), Ok(0));
    assert_eq!((row(&bench, &asked["id"]), row(&bench, &other["id"])), (asked, other));
}

/// A function that is cheap and tells what it is shown is not asked about rows that are somebody else's.
#[test]
fn a_leaky_function_sees_own_rows_only() {
    let (bench, role) = served(Bench::shared());
    let stranger = requester(&bench, "stranger");
    request(&bench, &role, "code, args", r#"'DOT-1', '{"secret": "of the role"}'"#);
    bench.exec(&format!("CREATE SCHEMA {stranger} AUTHORIZATION {stranger}"));
    let mut session = bench.connect_as(&stranger);
    session
        .batch_execute(&format!(
            "CREATE TABLE {stranger}.seen (args text);
             CREATE FUNCTION {stranger}.leak(args jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             $$BEGIN INSERT INTO {stranger}.seen VALUES (args::text); RAISE NOTICE '%', args; RETURN true; END$$;
             INSERT INTO dot_run_request (code, args) VALUES ('DOT-2', '{{\"mine\": 1}}')"
        ))
        .unwrap();
    let leak = format!("SELECT count(*) FROM dot_run_request w WHERE {stranger}.leak(w.args)");
    let found: i64 = session.query_one(&leak, &[]).unwrap().get(0);
    let seen: Vec<String> = session
        .query(&format!("SELECT args FROM {stranger}.seen"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!((found, seen), (1, vec![r#"{"mine": 1}"#.to_owned()]));
    // Nor does an error of an operator give one away, nor turning the policies off.
    let cast = "SELECT count(*) FROM dot_run_request w WHERE (w.args ->> 'secret')::integer = 1";
    assert_eq!(session.query_one(cast, &[]).unwrap().get::<_, i64>(0), 0);
    let error = session.batch_execute("SET row_security = off; SELECT * FROM dot_run_request");
    assert_eq!(db_error(error.unwrap_err()).code().code(), "42501");
}

/// Somebody else's run, or one that the inserter names, cannot be had by naming it.
#[test]
fn naming_a_run_of_others_shows_nothing_of_it() {
    let (bench, role) = served(Bench::shared());
    let stranger = requester(&bench, "stranger");
    let theirs = apply(&bench, &role, "DOT-1");
    let over = until_says(&bench, &theirs, "succeeded");
    let asked = request(&bench, &stranger, COMPLETE, &forged(over["run_id"].as_str().unwrap()));
    assert_ne!(asked["run_id"], over["run_id"]);
    // Nor by its id: the row of that id is not shown, and makes no run.
    let before = runs(&bench);
    let id = over["id"].as_str().unwrap();
    let sql =
        format!("INSERT INTO dot_run_request (id, code) VALUES ('{id}', 'DOT-1') ON CONFLICT DO NOTHING RETURNING *");
    assert!(rows(&bench, &stranger, &sql).is_empty());
    assert_eq!(runs(&bench), before);
}

#[test]
fn huge_arguments_are_refused_and_not_kept() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, "code, args", "'DOT-1', jsonb_build_object('x', repeat('y', 20000000))");
    assert_eq!((&asked["reason"], &asked["args"]), (&json!("invalid_request"), &Value::Null));
    assert!(asked["message"].as_str().unwrap().contains("args are too large (54000)"), "{asked:?}");
    let size: i64 = bench.one("SELECT pg_total_relation_size('dot_run_request')", &[]);
    assert!(size < 200_000, "{size} bytes are kept");
}

#[test]
fn to_write_every_table_is_not_to_run_tools() {
    let (bench, role) = served(Bench::shared());
    let writer = bench.role("writer");
    bench.exec(&format!("GRANT pg_write_all_data, pg_read_all_data TO {writer}"));
    let insert = "INSERT INTO dot_run_request (code) VALUES ('DOT-1')";
    let error = db_error(bench.connect_as(&writer).batch_execute(insert).unwrap_err());
    assert_eq!((error.code().code(), error.hint().is_some()), ("42501", true));
    // With the privilege itself it may, as anybody.
    bench.exec(&format!("GRANT INSERT ON dot_run_request TO {writer}"));
    bench.connect_as(&writer).batch_execute(insert).unwrap();
    let _ = role;
}

/// Whoever was given all tables of a schema beforehand, by default privileges, has not been given this one.
#[test]
fn default_privileges_do_not_reach_the_request_table() {
    let bench = Bench::empty(crate::harness::Cluster::shared());
    let role = bench.role("app");
    bench.exec(&format!(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
         CREATE EXTENSION dot_wrapper"
    ));
    let all = "SELECT has_table_privilege($1::text, 'dot_run_request', 'INSERT, SELECT, UPDATE, DELETE, TRIGGER')
               OR has_any_column_privilege($1::text, 'dot_run_request', 'INSERT, SELECT, UPDATE')";
    assert!(!bench.one::<bool>(all, &[&role]));
    bench.exec(&format!("DROP OWNED BY {role}; ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC"));
}

/// Who was granted TRIGGER could have code run by the worker, with the rights of the extension's owner.
#[test]
fn a_trigger_of_somebody_else_is_never_run_by_the_worker() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    let planter = bench.role("planter");
    bench.exec(&format!(
        "CREATE SCHEMA {planter} AUTHORIZATION {planter}; GRANT TRIGGER ON dot_run_request TO {planter};
         CREATE TABLE {planter}.ran (who text); ALTER TABLE {planter}.ran OWNER TO {planter}; GRANT INSERT ON {planter}.ran TO PUBLIC;
         GRANT USAGE ON SCHEMA {planter} TO PUBLIC"
    ));
    bench
        .connect_as(&planter)
        .batch_execute(&format!(
            "CREATE FUNCTION {planter}.plant() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO {planter}.ran VALUES (current_user); RETURN NULL; END$$;
             CREATE TRIGGER plant AFTER UPDATE ON dot_run_request FOR EACH ROW EXECUTE FUNCTION {planter}.plant();
             CREATE TRIGGER plant_all AFTER UPDATE ON dot_run_request EXECUTE FUNCTION {planter}.plant()"
        ))
        .unwrap();
    let asked = apply(&bench, &role, "DOT-1");
    bench.until(&crate::harness::Run(asked.clone()), "succeeded");
    bench.drain();
    assert_eq!(bench.one::<i64>(&format!("SELECT count(*) FROM {planter}.ran"), &[]), 0);
    assert_eq!(row(&bench, &asked["id"])["run_status"], "queued");
    let advice = "SELECT advice FROM fn_dot_doctor() WHERE check_name = 'request table' AND verdict = 'WARN'";
    assert!(bench.one::<String>(advice, &[]).starts_with("DROP TRIGGER plant"));
    until("the log tells", || bench.cluster.log().contains("dot_run_request is not kept up").then_some(()));
    bench.exec("DROP TRIGGER plant ON dot_run_request; DROP TRIGGER plant_all ON dot_run_request");
    until_says(&bench, &asked, "succeeded");
}

/// An administrator's own trigger may fail: the run ends all the same, and the row is caught up with.
#[test]
fn a_trigger_that_fails_keeps_no_run_from_its_end() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.exec(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken''; END';
         CREATE TRIGGER broken AFTER UPDATE ON dot_run_request FOR EACH ROW EXECUTE FUNCTION broken()",
    );
    let asked = apply(&bench, &role, "DOT-1");
    bench.until(&crate::harness::Run(asked.clone()), "succeeded");
    assert_eq!(row(&bench, &asked["id"])["run_status"], "queued");
    bench.exec("DROP TRIGGER broken ON dot_run_request");
    until_says(&bench, &asked, "succeeded");
}

/// What `fn_dot_run` has not: an administrator's restrictive policy gives a role some tools and no others.
#[test]
fn a_restrictive_policy_gives_a_role_one_tool() {
    let (bench, role) = served(Bench::shared());
    bench.exec(&format!(
        "CREATE POLICY one_tool ON dot_run_request AS RESTRICTIVE FOR INSERT TO {role} WITH CHECK (code = 'DOT-1' AND mode = 'plan')"
    ));
    assert_eq!(request(&bench, &role, "code", "'DOT-1'")["run_status"], "planned");
    for values in ["'DOT-2', 'plan'", "'DOT-1', 'apply'", "'DOT-1 ', 'plan'"] {
        let sql = format!("INSERT INTO dot_run_request (code, mode) VALUES ({values})");
        assert_eq!(db_error(bench.connect_as(&role).batch_execute(&sql).unwrap_err()).code().code(), "42501");
    }
    bench.drain();
    assert_eq!((runs(&bench), bench.agent.count()), (2, 0), "the plan, and the canary");
}

/// Through a view of somebody who may insert, a run belongs to the role that inserts; and that role may not request.
#[test]
fn a_view_of_somebody_who_may_insert_gives_no_right_to_run_tools() {
    let (bench, owner) = served(Bench::own(&[]));
    let role = bench.role("viewer");
    bench.exec(&format!(
        "CREATE SCHEMA {owner} AUTHORIZATION {owner}; GRANT USAGE ON SCHEMA {owner} TO {role};
         CREATE VIEW {owner}.door AS SELECT code, mode, run_status FROM dot_run_request; ALTER VIEW {owner}.door OWNER TO {owner};
         GRANT INSERT, SELECT ON {owner}.door TO {role}"
    ));
    let mut session = bench.connect_as(&role);
    session.batch_execute(&format!("INSERT INTO {owner}.door (code, mode) VALUES ('DOT-1', 'apply')")).unwrap();
    let asked: Value = bench.one("SELECT to_jsonb(w) FROM dot_run_request w", &[]);
    assert_eq!(asked["requested_by"], json!(role));
    assert_eq!(until_says(&bench, &asked, "refused")["reason"], "privilege_revoked");
    assert_eq!(bench.agent.count(), 0);
}

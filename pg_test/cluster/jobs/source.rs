//! Who may say which table's jobs become runs, and as whom.

use serde_json::{Value, json};

use super::Jobs;
use crate::harness::{Bench, until};

const DOCTOR: &str =
    "SELECT string_agg(verdict || ' ' || detail, E'\n') FROM fn_dot_doctor() WHERE check_name = 'jobs'";

/// The row that makes the owner's UPDATE of a job's status the making of a superuser.
const COUP: &str = r#"
    INSERT INTO dot_wrapper.job_source (run_as, relation, families, id_column, family_column, payload_column, status_column,
        run_id_column, idempotency_key_column, actor_column, result_column, finished_at_column, status_words)
    VALUES ('ROLE', 'pg_catalog.pg_authid', '{ROLE}', 'rolname', 'rolname', 'rolname', 'rolsuper', NULL, NULL, NULL, NULL, NULL,
        '{"queued": "false", "taken": "true", "succeeded": "true", "failed": "true", "refused": "true",
          "cancelled": "true", "expired": "true", "in_doubt": "true"}')"#;

fn writer(bench: &Bench) -> String {
    let role = bench.caller("writer");
    bench.exec(&format!(
        "GRANT USAGE ON SCHEMA dot_wrapper TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON dot_wrapper.job_source TO {role};
         UPDATE dot_config SET value = 'true' WHERE key = 'queue.worker.enabled'"
    ));
    role
}

#[test]
fn who_may_write_the_source_names_no_table_and_no_role_that_is_not_his() {
    let bench = Bench::shared();
    let role = writer(&bench);
    bench.exec(&format!(
        "CREATE TABLE hers (id int, family text, payload text, status text);
         CREATE TABLE seen (LIKE hers); GRANT SELECT ON seen TO {role};
         CREATE TABLE written (LIKE hers); GRANT UPDATE ON written TO {role};
         CREATE TABLE cut (LIKE hers); GRANT SELECT, UPDATE ON cut TO {role}; ALTER TABLE cut ENABLE ROW LEVEL SECURITY;
         CREATE TABLE his (LIKE hers); GRANT SELECT, UPDATE ON his TO {role}"
    ));
    let mut session = bench.connect_as(&role);
    let mut code = |sql: &str| {
        let error = session.batch_execute(sql).expect_err(sql);
        error.code().unwrap_or_else(|| panic!("{sql}: {error}")).code().to_owned()
    };
    assert_eq!(code(&COUP.replace("ROLE", &role)), "42501");
    let name = |run_as: &str, table: &str| {
        format!("INSERT INTO dot_wrapper.job_source (run_as, relation) VALUES ('{run_as}', '{table}')")
    };
    for table in
        ["public.hers", "public.seen", "public.written", "public.cut", "public.dot_config", "dot_wrapper.dot_run"]
    {
        assert_eq!(code(&name(&role, table)), "42501", "{table}");
    }
    assert_eq!(code(&name("postgres", "public.his")), "42501");
    assert_eq!(code(&name("nobody_at_all", "public.his")), "42704");
    assert_eq!(code(&name(&role, "public.nothing")), "42P01");
    session.batch_execute(&name(&role, "public.his")).unwrap();
    let mut code = |sql: &str| session.batch_execute(sql).expect_err(sql).code().unwrap().code().to_owned();
    for set in ["relation = 'public.hers'", "relation = 'pg_catalog.pg_authid'", "run_as = 'postgres'"] {
        assert_eq!(code(&format!("UPDATE dot_wrapper.job_source SET {set}")), "42501", "{set}");
    }
    // Nor does he change a word of what somebody else has named.
    bench.exec("UPDATE dot_wrapper.job_source SET relation = 'public.hers'");
    assert_eq!(code("UPDATE dot_wrapper.job_source SET status_column = 'payload'"), "42501");
}

#[test]
fn a_catalogue_or_a_table_of_ours_is_no_table_of_jobs_whoever_names_it() {
    let bench = Bench::shared();
    let role = writer(&bench);
    // As a superuser, who is let through by the trigger: the worker does not write there all the same.
    bench.exec(&COUP.replace("ROLE", &role));
    let said = "no job is taken: pg_catalog.pg_authid cannot be a table of jobs";
    until("the worker has looked", || bench.cluster.log().contains(said).then_some(()));
    let is_super = "SELECT rolsuper FROM pg_roles WHERE rolname = $1";
    assert!(!bench.one::<bool>(is_super, &[&role]));
    let tables = [
        "pg_catalog.pg_authid",
        "pg_catalog.pg_proc",
        "information_schema.sql_features",
        "dot_wrapper.policy",
        "dot_wrapper.dot_run",
        "public.dot_config",
        "public.dot_tools",
    ];
    for table in tables {
        bench.exec(&format!("UPDATE dot_wrapper.job_source SET relation = '{table}'"));
        let said: String = bench.one(DOCTOR, &[]);
        let expected = format!(
            "BLOCK {table} cannot be a table of jobs: it belongs to PostgreSQL or to dot_wrapper; no job is taken"
        );
        assert_eq!(said, expected);
    }
    bench.look();
    assert!(!bench.one::<bool>(is_super, &[&role]));
}

#[test]
fn a_member_of_the_role_who_may_update_the_table_sets_the_queue_up() {
    let jobs = Jobs::shared();
    let role = writer(&jobs.bench);
    jobs.bench.exec(&format!(
        "GRANT {} TO {role}; GRANT SELECT, UPDATE ON job_queue TO {role}; DELETE FROM dot_wrapper.job_source",
        jobs.role
    ));
    let set = format!("INSERT INTO dot_wrapper.job_source (run_as) VALUES ('{}')", jobs.role);
    jobs.bench.connect_as(&role).batch_execute(&set).unwrap();
    let job: Value = jobs.until(jobs.apply("DOT-1"), "succeeded");
    assert_eq!(job["result"]["run_status"], json!("succeeded"));
}

#[test]
fn a_superuser_restores_a_source_before_what_it_names() {
    let bench = Bench::shared();
    bench.exec("INSERT INTO dot_wrapper.job_source (run_as, relation) VALUES ('nobody_at_all', 'public.nothing')");
    assert_eq!(bench.one::<String>(DOCTOR, &[]), "BLOCK there is no table public.nothing; no job is taken");
}

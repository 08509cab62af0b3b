//! `fn_dot_trigger_sync`: triggers out of bindings, with the caller's rights, and who may bind what.

use super::{bound, runs, synced};
use crate::harness::Bench;
use crate::harness::bench::db_error;

#[test]
fn bindings_become_triggers_and_what_cannot_be_bound_is_a_row_that_says_why() {
    let bench = Bench::shared();
    let role = bench.role("nobody");
    bench.exec(&format!(
        "UPDATE dot_tools SET trigger_type = 'event'; UPDATE dot_tools SET trigger_type = 'cron' WHERE code = 'DOT-2';
         UPDATE dot_tools SET trigger_type = 'dual', status = 'retired' WHERE code = 'DOT-3';
         CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE keyless (v int PRIMARY KEY DEFERRABLE); CREATE VIEW v AS SELECT 1 AS one;
         INSERT INTO dot_wrapper.trigger_binding (code, relation, events, columns, per, run_as) VALUES
             ('DOT-1', 'Public.T', '{{update}}', '{{v}}', 'row', 'postgres'),
             ('DOT-1', 'public.gone', '{{insert}}', NULL, 'row', 'postgres'),
             ('DOT-1', 'public.keyless', '{{insert}}', NULL, 'row', 'postgres'),
             ('DOT-1', 'public.v', '{{insert}}', NULL, 'statement', 'postgres'),
             ('DOT-1', 'dot_wrapper.dot_run', '{{insert}}', NULL, 'row', 'postgres'),
             ('DOT-1', 'public.dot_run_request', '{{update}}', NULL, 'statement', 'postgres'),
             ('DOT-2', 'public.t', '{{insert}}', NULL, 'row', 'postgres'),
             ('DOT-3', 'public.t', '{{insert}}', NULL, 'row', 'postgres'),
             ('DOT-4', 'public.t', '{{insert}}', NULL, 'row', '{role}'),
             ('DOT-5', 'public.t', '{{update}}', '{{nope}}', 'row', 'postgres'),
             ('DOT-9', 'public.t', '{{insert}}', NULL, 'row', 'postgres')"
    ));
    let invalid = |code: &str, relation: &str, why: &str| format!("{code}|{relation}|dot_wrapper:{code}|invalid|{why}");
    let told = [
        invalid("DOT-1", "dot_wrapper.dot_run", "it is a table of dot_wrapper itself, which runs write to"),
        invalid("DOT-1", "public.dot_run_request", "it is a table of dot_wrapper itself, which runs write to"),
        invalid("DOT-1", "public.gone", "there is no such table"),
        invalid("DOT-1", "public.keyless", "it has no primary key to tell its rows by; bind it per statement"),
        "DOT-1|public.t|dot_wrapper:DOT-1|created".to_owned(),
        invalid("DOT-1", "public.v", "it is not a table"),
        invalid("DOT-2", "public.t", "its trigger_type is neither event nor dual"),
        invalid("DOT-3", "public.t", "its status is retired"),
        invalid("DOT-4", "public.t", &format!("role {role} may not call fn_dot_run")),
        invalid("DOT-5", "public.t", "PostgreSQL says: column \"nope\" of relation \"t\" does not exist"),
        invalid("DOT-9", "public.t", "there is no such tool"),
    ];
    assert_eq!(synced(&mut bench.session()), told);
    bench.exec("INSERT INTO t VALUES (1, 1); UPDATE t SET id = 2; UPDATE t SET v = 2");
    assert_eq!(runs(&bench).len(), 1);

    bench.exec("DELETE FROM dot_wrapper.trigger_binding WHERE NOT (code = 'DOT-1' AND relation = 'public.t')");
    bench.exec(
        "UPDATE dot_wrapper.trigger_binding SET columns = NULL, events = '{delete,update,insert}', per = 'statement'",
    );
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.t|dot_wrapper:DOT-1|changed"]);
    bench.exec("ALTER TABLE t DISABLE TRIGGER \"dot_wrapper:DOT-1\"");
    assert!(synced(&mut bench.session())[0].contains("|kept|it is switched off"));
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'");
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.t|dot_wrapper:DOT-1|removed|its status is retired"]);
    bench.exec("UPDATE dot_tools SET status = 'active' WHERE code = 'DOT-1'");
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.t|dot_wrapper:DOT-1|created"]);
    bench.exec("DELETE FROM dot_wrapper.trigger_binding");
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.t|dot_wrapper:DOT-1|removed|nothing binds it any more"]);
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass", &[]), 0);
}

#[test]
fn nobody_binds_as_somebody_else_or_puts_a_trigger_where_he_may_not() {
    let bench = bound("", "");
    let (admin, other) = (bench.role("admin"), bench.role("other"));
    bench.exec(&format!(
        "GRANT USAGE ON SCHEMA dot_wrapper TO {admin}; GRANT ALL ON dot_wrapper.trigger_binding TO {admin};
         GRANT EXECUTE ON FUNCTION dot_wrapper.fire, fn_dot_trigger_sync TO {admin};
         GRANT EXECUTE ON FUNCTION fn_dot_run TO {admin}, {other}; CREATE TABLE u (id int PRIMARY KEY)"
    ));
    let mut session = bench.connect_as(&admin);
    let bind = |run_as: &str| {
        format!(
            "INSERT INTO dot_wrapper.trigger_binding (code, relation, run_as) VALUES ('DOT-2', 'public.u', '{run_as}')"
        )
    };
    for (sql, message) in [
        (bind("postgres"), format!("role \"{admin}\" may not bind a tool as role \"postgres\"")),
        (bind(&other), format!("role \"{admin}\" may not bind a tool as role \"{other}\"")),
        (bind("no_such_role"), "role \"no_such_role\" does not exist".to_owned()),
        (
            "UPDATE dot_wrapper.trigger_binding SET args = '{\"mine\": 1}'".to_owned(),
            format!("role \"{admin}\" may not bind a tool as role \"postgres\""),
        ),
        (
            "INSERT INTO dot_wrapper.trigger_binding (code, relation) VALUES ('DOT-2', 'u')".to_owned(),
            "\"u\" does not name a table with its schema".to_owned(),
        ),
    ] {
        assert_eq!(db_error(session.batch_execute(&sql).unwrap_err()).message(), message, "{sql}");
    }
    session.batch_execute(&bind(&admin)).unwrap();
    // What another role has bound stays as it is, and is not made anew.
    let told = synced(&mut session);
    assert_eq!(told[0], "DOT-1|public.t|dot_wrapper:DOT-1|kept");
    assert_eq!(told[1], "DOT-2|public.u|dot_wrapper:DOT-2|invalid|PostgreSQL says: permission denied for table u");
    bench.exec("UPDATE dot_wrapper.trigger_binding SET events = '{insert}' WHERE code = 'DOT-1'");
    let why = "invalid|you are not a member of role postgres, as which it would run";
    assert_eq!(synced(&mut session)[0], format!("DOT-1|public.t|dot_wrapper:DOT-1|{why}"));
    bench.exec(&format!("GRANT TRIGGER ON u TO {admin}"));
    assert_eq!(synced(&mut session)[1], "DOT-2|public.u|dot_wrapper:DOT-2|created");
    bench.exec("INSERT INTO u VALUES (1); INSERT INTO t VALUES (1)");
    let who: Vec<String> = runs(&bench).iter().map(|run| run.text("requested_by").to_owned()).collect();
    assert_eq!(who, [admin, "postgres".to_owned()]);
}

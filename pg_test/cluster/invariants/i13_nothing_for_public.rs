//! Invariant 13, first half: install and restore leave no grant to PUBLIC, and an ordinary role can do no more than run.
//!
//! Does not live here: what somebody with code of his own in the database could try (`i13_other_peoples_code`).

use serde_json::Value;

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, os};

/// Every privilege that PUBLIC has on something of the extension. Types are left out: USAGE on a type gives access to
/// nothing.
const PUBLIC_GRANTS: &str = "
    WITH member AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'dot_wrapper'
    ), acl AS (
        SELECT n.nspname::text AS what, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
        FROM pg_namespace n JOIN member m ON m.objid = n.oid AND m.classid = 'pg_namespace'::regclass
        UNION ALL
        SELECT c.oid::regclass::text, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))
        FROM pg_class c JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass
        UNION ALL
        SELECT c.oid::regclass || '.' || a.attname, a.attacl
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass
        UNION ALL
        SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
        FROM pg_proc p JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
    )
    SELECT what || ': ' || x.privilege_type FROM acl, aclexplode(acl.acl) x WHERE x.grantee = 0 ORDER BY 1";

/// Functions of the extension that run with more than their caller's rights.
const DEFINERS: &str = "
    SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'dot_wrapper' WHERE d.deptype = 'e' AND p.prosecdef";

fn members(bench: &Bench) -> i64 {
    bench.one("SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'dot_wrapper' AND d.deptype = 'e'", &[])
}

#[test]
fn invariant_13_nothing_for_public_after_install_and_restore() {
    let bench = Bench::shared();
    let none: [String; 0] = [];
    assert_eq!(bench.all::<String>(PUBLIC_GRANTS, &[]), none);
    assert_eq!(bench.all::<String>(DEFINERS, &[]), none);
    assert!(members(&bench) > 30, "the query finds the members");
    let restored = Bench::empty(bench.cluster.clone());
    let file = bench.cluster.dir().join(format!("{}.sql", bench.name));
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["--inserts", "-f"]).arg(&file));
    os::run(bench.cluster.client("psql", &restored.name).args(["-Xqv", "ON_ERROR_STOP=1", "-f"]).arg(&file));
    assert_eq!(restored.all::<String>(PUBLIC_GRANTS, &[]), none);
    assert_eq!(members(&restored), members(&bench));
}

/// A schema that is open to all, and default privileges that open what is created to all, are no way around it.
#[test]
fn invariant_13_nothing_for_public_whatever_the_defaults_are() {
    let bench = Bench::empty(Cluster::shared());
    bench.exec(
        "CREATE SCHEMA \"Odd name\"; GRANT ALL ON SCHEMA \"Odd name\" TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
         CREATE EXTENSION dot_wrapper SCHEMA \"Odd name\"",
    );
    assert!(members(&bench) > 30, "the query finds the members");
    assert_eq!(bench.all::<String>(PUBLIC_GRANTS, &[]), [""; 0]);
}

#[test]
fn invariant_13_nothing_for_public_a_caller_can_run_and_write_nothing_else() {
    let bench = Bench::shared();
    let role = bench.caller("caller");
    let mut session = bench.connect_as(&role);
    let run = Ask::new("DOT-1", "apply").on(&mut session).unwrap();
    assert_eq!(bench.until(&run, "succeeded").text("requested_by"), role);
    let tables = [
        "dot_run",
        "dot_run_attempt",
        "dot_run_event",
        "dot_queue",
        "lease_grant",
        "usage_debt",
        "instance",
        "port",
        "endpoint",
        "egress_rule",
        "policy",
    ];
    let mut statements: Vec<String> = Vec::new();
    for table in tables {
        statements.push(format!("SELECT FROM dot_wrapper.{table}"));
        statements.push(format!("DELETE FROM dot_wrapper.{table}"));
        statements.push(format!("INSERT INTO dot_wrapper.{table} DEFAULT VALUES"));
        statements.push(format!("TRUNCATE dot_wrapper.{table}"));
    }
    for table in ["dot_tools", "dot_config", "dot_iu_runtime_lease", "dot_iu_command_run", "job_queue", "dot_run"] {
        statements.push(format!("SELECT FROM {table}"));
        statements.push(format!("DELETE FROM {table}"));
    }
    statements.extend(["dot_run_event", "dot_run_gate", "dot_run_attempt"].map(|view| format!("SELECT FROM {view}")));
    for call in [
        "nextval('dot_wrapper.fencing_token_seq')",
        "dot_wrapper.announce()",
        "dot_wrapper.is_trusted_owner(10)",
        "fn_dot_run_all()",
        "fn_dot_wait(gen_random_uuid())",
        "fn_dot_doctor()",
        "fn_dot_resume()",
        "fn_dot_bind('toggle', NULL)",
        "fn_dot_iu_operator_runtime_enabled()",
        "fn_preflight_guard()",
        "fn_assert_safe_for_dot_action()",
        "fn_dot_iu_runtime_lease_acquire('a', 'b', '1 h')",
        "fn_dot_iu_runtime_lease_release('a', 'b')",
        "fn_dot_iu_command_log('a', 'plan', 'b', true)",
    ] {
        statements.push(format!("SELECT {call}"));
    }
    statements.push("SET ROLE dot_wrapper_worker".into());
    statements.push("CREATE TABLE dot_wrapper.mine ()".into());
    for sql in statements {
        let error = session.batch_execute(&sql).expect_err(&sql);
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}: {error:?}");
    }
}

#[test]
fn invariant_13_nothing_for_public_a_grant_of_execute_does_not_make_an_owner() {
    let bench = Bench::shared();
    let role = bench.caller("caller");
    bench.exec(&format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}"));
    let mut session = bench.connect_as(&role);
    for call in ["fn_dot_resume()", "fn_dot_bind('toggle', NULL)", "fn_dot_doctor()"] {
        let error = session.batch_execute(&format!("SELECT {call}")).expect_err(call);
        assert_eq!(error.code().unwrap().code(), "42501", "{call}: {error:?}");
    }
}

#[test]
fn invariant_13_nothing_for_public_the_views_show_a_role_its_own_runs() {
    let bench = Bench::shared();
    let (alice, bob) = (bench.caller("alice"), bench.caller("bob"));
    let views = ["dot_run", "dot_run_event", "dot_run_attempt", "dot_run_gate"];
    for view in views {
        bench.exec(&format!("GRANT SELECT ON {view} TO {alice}, {bob}"));
    }
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_wait(uuid, interval) TO {alice}, {bob}"));
    let hers = Ask::new("DOT-1", "apply").on(&mut bench.connect_as(&alice)).unwrap();
    bench.until(&hers, "succeeded");
    for (role, sees) in [(&alice, true), (&bob, false)] {
        let mut session = bench.connect_as(role);
        for view in views {
            let rows = session.query(&format!("SELECT to_jsonb(v) FROM {view} v"), &[]).unwrap();
            let rows: Vec<Value> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(!rows.is_empty(), sees, "{view} as {role}: {rows:?}");
        }
        // Nor does an error, raised by a condition of his own, tell him what is in the others' rows.
        let leak = session.query("SELECT FROM dot_run WHERE 1 / (CASE WHEN code = 'DOT-1' THEN 0 ELSE 1 END) = 1", &[]);
        assert_eq!(leak.is_err(), sees);
        let wait = session.query("SELECT fn_dot_wait($1, '0 s')", &[&hers.id()]);
        assert_eq!(wait.is_ok(), sees, "{role}: {wait:?}");
    }
    bench.exec(&format!("GRANT pg_read_all_data TO {bob}"));
    assert_eq!(bench.connect_as(&bob).query("SELECT FROM dot_run", &[]).unwrap().len(), 1);
}

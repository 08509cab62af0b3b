//! T3: CREATE EXTENSION takes over nothing that somebody has put there before, and leaves nothing to PUBLIC.

use crate::harness::{Bench, Cluster, figure};

/// What somebody made beforehand, how the extension is created, and the SQLSTATE of its refusal. MALLORY is an ordinary
/// role that may create in the database and in public.
const ATTACKS: [(&str, &str, &str); 10] = [
    ("CREATE SCHEMA dot_wrapper AUTHORIZATION MALLORY", "CREATE EXTENSION dot_wrapper", "42P06"),
    ("CREATE TABLE public.dot_tools (code text)", "CREATE EXTENSION dot_wrapper", "42501"),
    ("CREATE VIEW public.dot_config AS SELECT 'a' AS key, 'true' AS value", "CREATE EXTENSION dot_wrapper", "42501"),
    (
        "CREATE FUNCTION public.fn_dot_iu_operator_runtime_enabled() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE EXTENSION dot_wrapper",
        "42501",
    ),
    (
        "CREATE FUNCTION public.fn_preflight_guard() RETURNS TABLE (check_name text, verdict text, detail text) LANGUAGE sql AS
         $$ SELECT 'a', 'OK', 'b' $$",
        "CREATE EXTENSION dot_wrapper",
        "42501",
    ),
    (
        "CREATE FUNCTION public.fn_dot_run(code text, mode text DEFAULT 'plan', process_run_id uuid DEFAULT NULL, args jsonb DEFAULT '{}',
             idempotency_key text DEFAULT NULL) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE EXTENSION dot_wrapper",
        "42723",
    ),
    ("CREATE TABLE public.dot_run (run_id uuid)", "CREATE EXTENSION dot_wrapper", "42P07"),
    ("CREATE TYPE public.dot_run_event AS (a int)", "CREATE EXTENSION dot_wrapper", "42P07"),
    ("SELECT", "CREATE TEMP TABLE t (a int); CREATE EXTENSION dot_wrapper SCHEMA pg_temp", ""),
    ("SELECT", "CREATE EXTENSION dot_wrapper SCHEMA pg_catalog", ""),
];

/// What PUBLIC may do to anything in this database, by default or by grant, but for types, whose USAGE opens nothing.
const PUBLIC: &str = "
    SELECT coalesce(jsonb_agg(x ORDER BY x), '[]') FROM (
        SELECT n.oid::regnamespace::text || ' ' || a.privilege_type AS x FROM pg_namespace n,
            aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.grantee = 0 AND n.nspname !~ '^pg_(temp|toast)'
        UNION ALL SELECT c.oid::regclass || ' ' || a.privilege_type FROM pg_class c,
            aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a WHERE a.grantee = 0
        UNION ALL SELECT c.oid::regclass || '.' || t.attname || ' ' || a.privilege_type FROM pg_attribute t
            JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a WHERE a.grantee = 0
        UNION ALL SELECT f.oid::regprocedure || ' ' || a.privilege_type FROM pg_proc f,
            aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a WHERE a.grantee = 0
        UNION ALL SELECT l.lanname || ' ' || a.privilege_type FROM pg_language l, aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a
            WHERE a.grantee = 0
        UNION ALL SELECT d.datname || ' ' || a.privilege_type FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
            WHERE a.grantee = 0 AND d.datname = current_database()) acl";

#[test]
fn t3_what_was_there_before_is_not_taken_over() {
    let cluster = Cluster::shared();
    let mut refused = 0;
    for (before, install, state) in ATTACKS {
        let bench = Bench::empty(cluster.clone());
        let mallory = bench.role("mallory");
        bench.exec(&format!(
            "GRANT CREATE ON DATABASE {0} TO {mallory}; GRANT CREATE ON SCHEMA public TO {mallory}",
            bench.name
        ));
        bench
            .connect_as(&mallory)
            .batch_execute(&before.replace("MALLORY", &mallory))
            .unwrap_or_else(|e| panic!("{e:?} in {before}"));
        let rights: serde_json::Value = bench.one(PUBLIC, &[]);
        let error = bench.error(install);
        assert!(state.is_empty() || error.code().code() == state, "{before}; {install}: {error:?}");
        let left: i64 = bench.one(
            "SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'dot_wrapper')
                  + (SELECT count(*) FROM pg_proc WHERE probin LIKE '%dot_wrapper%')
                  + (SELECT count(*) FROM pg_class c WHERE c.relnamespace = to_regnamespace('dot_wrapper'))",
            &[],
        );
        assert_eq!((left, bench.one::<serde_json::Value>(PUBLIC, &[])), (0, rights), "{before}");
        refused += 1;
        bench.exec(&format!("DROP OWNED BY {mallory}"));
    }
    figure("T3", &format!("{refused} attacks before the installation: {refused} refused, nothing left behind"));
}

#[test]
fn t3_an_installation_gives_public_nothing() {
    let bench = Bench::empty(Cluster::shared());
    let before: serde_json::Value = bench.one(PUBLIC, &[]);
    bench.exec("CREATE EXTENSION dot_wrapper");
    assert_eq!(bench.one::<serde_json::Value>(PUBLIC, &[]), before);
    bench.furnish();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.exec("SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()'); SELECT fn_dot_resume()");
    assert_eq!(bench.one::<serde_json::Value>(PUBLIC, &[]), before);
    figure("T3.acl", "privileges of PUBLIC before and after the installation: no difference");
}

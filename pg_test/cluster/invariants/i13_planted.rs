//! Invariant 13, third half: names that somebody has planted, where a superuser or the worker might trip over them.

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster};

/// What is run when a trap is stepped on; `OWNER` is who has set it.
const SPRUNG: &str = "INSERT INTO public.sprung SELECT current_user, 'NAME'";

/// An empty database of an ordinary owner, with a book of who stepped on which trap.
fn owned() -> (Bench, String) {
    let bench = Bench::empty(Cluster::shared());
    let owner = bench.role("owner");
    bench.exec(&format!("ALTER DATABASE {} OWNER TO {owner}", bench.name));
    let book = "CREATE TABLE public.sprung (who text, what text); GRANT ALL ON public.sprung TO PUBLIC";
    bench.connect_as(&owner).batch_execute(book).unwrap();
    (bench, owner)
}

/// Functions and operators that fit a call better than PostgreSQL's own, in one schema.
fn plant(bench: &Bench, role: &str, schema: &str) {
    let function = |name: &str, arguments: &str, result: &str, value: &str| {
        let sprung = SPRUNG.replace("NAME", name);
        format!(
            "CREATE FUNCTION {schema}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS
             $f$ BEGIN {sprung}; RETURN {value}; END $f$;"
        )
    };
    let functions = [
        function("format", "text, name, name, text", "text", "pg_catalog.format($1, $2, $3, $4)"),
        function("format", "text, text, text", "text", "pg_catalog.format($1, $2, $3)"),
        function("format", "text, name", "text", "pg_catalog.format($1, $2)"),
        function("array_position", "text[], text", "int", "pg_catalog.array_position($1, $2)"),
        function("contained", "text[], text[]", "boolean", "$1 OPERATOR(pg_catalog.<@) $2"),
        function("appended", "text[], text", "text[]", "pg_catalog.array_append($1, $2)"),
        function("any_equal", "name, text", "boolean", "$1::text OPERATOR(pg_catalog.=) $2"),
        function("to_jsonb", "text", "jsonb", "pg_catalog.to_jsonb($1)"),
        function("jsonb_build_object", "text, jsonb", "jsonb", "pg_catalog.jsonb_build_object($1, $2)"),
        function("coalesced", "uuid, uuid", "boolean", "$1 OPERATOR(pg_catalog.=) $2"),
    ];
    let mut sql = functions.concat();
    for (operator, function, left, right) in [
        ("<@", "contained", "text[]", "text[]"),
        ("||", "appended", "text[]", "text"),
        ("=", "any_equal", "name", "text"),
        ("=", "coalesced", "uuid", "uuid"),
    ] {
        sql += &format!(
            "CREATE OPERATOR {schema}.{operator} (FUNCTION = {schema}.{function}, LEFTARG = {left}, RIGHTARG = {right});"
        );
    }
    bench.connect_as(role).batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}"));
}

#[track_caller]
fn nobody_stepped_on_it(bench: &Bench) {
    let sprung: Vec<String> = bench.all("SELECT DISTINCT what || ' as ' || who FROM sprung", &[]);
    assert!(sprung.is_empty(), "planted names were called: {sprung:?}");
}

/// The database's owner owns the schema that a superuser installs into.
#[test]
fn invariant_13_nothing_for_public_the_install_script_trips_over_no_planted_name() {
    let (bench, owner) = owned();
    plant(&bench, &owner, "public");
    bench.exec("CREATE EXTENSION dot_wrapper");
    nobody_stepped_on_it(&bench);
    bench.furnish();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    nobody_stepped_on_it(&bench);
}

/// A caller chooses his search path, and what lies on it.
#[test]
fn invariant_13_nothing_for_public_the_callers_search_path_does_not_matter() {
    let bench = Bench::shared();
    let role = bench.role("caller");
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) TO {role};
         CREATE TABLE sprung (who text, what text); GRANT ALL ON sprung TO PUBLIC;
         CREATE SCHEMA evil AUTHORIZATION {role}"
    ));
    plant(&bench, &role, "evil");
    let mut session = bench.connect_as(&role);
    session
        .batch_execute(
            "CREATE TEMP TABLE dot_tools AS SELECT 'DOT-9' AS code, 'active' AS status, 'agent_api' AS execution_engine;
             CREATE TEMP TABLE dot_config AS SELECT 1; CREATE TEMP TABLE dot_queue AS SELECT 1;
             CREATE TABLE evil.dot_tools AS SELECT * FROM pg_temp.dot_tools;
             SET search_path = evil, pg_temp, pg_catalog",
        )
        .unwrap();
    for (code, status) in [("DOT-1", "queued"), ("DOT-9", "refused")] {
        let run = Ask::new(code, "apply").on(&mut session).unwrap();
        assert_eq!(run.status(), status, "{run:?}");
    }
    bench.drain();
    nobody_stepped_on_it(&bench);
}

/// A guard that was there before is called by the shipped assertion, and so would run as the extension's owner.
#[test]
fn invariant_13_nothing_for_public_a_guard_of_the_database_does_not_run_as_the_extensions_owner() {
    let (bench, owner) = owned();
    let guard = "CREATE FUNCTION public.fn_preflight_guard() RETURNS TABLE (check_name text, verdict text, detail text)
                 LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO public.sprung VALUES (current_user, 'guard');
                 RETURN QUERY SELECT 'x', 'OK', 'x'; END $f$";
    bench.connect_as(&owner).batch_execute(guard).unwrap();
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    let run = bench.apply("DOT-1");
    assert!(["queued", "refused"].contains(&run.status()), "{run:?}");
    let as_others: Vec<String> = bench.all("SELECT who FROM sprung WHERE who <> $1", &[&owner]);
    assert!(as_others.is_empty(), "the guard of {owner} ran as {as_others:?}");
}

/// A plan looks into the lease table, which may be the database's own, with types of its own.
#[test]
fn invariant_13_nothing_for_public_a_plan_runs_no_cast_of_the_lease_table() {
    let (bench, owner) = owned();
    let table = "
        CREATE TYPE public.odd AS ENUM ('tool:DOT-1', 'x');
        CREATE FUNCTION public.spelled(public.odd) RETURNS text LANGUAGE plpgsql AS
            $f$ BEGIN INSERT INTO public.sprung VALUES (current_user, 'cast'); RETURN 'x'; END $f$;
        CREATE CAST (public.odd AS text) WITH FUNCTION public.spelled(public.odd) AS IMPLICIT;
        CREATE TABLE public.dot_iu_runtime_lease (lease_key public.odd, holder text, expires_at timestamptz);
        INSERT INTO public.dot_iu_runtime_lease VALUES ('tool:DOT-1', 'h', 'infinity');
        CREATE FUNCTION fn_dot_iu_runtime_lease_acquire(text, text, interval) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION fn_dot_iu_runtime_lease_release(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';";
    bench.connect_as(&owner).batch_execute(table).unwrap();
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    let plan = bench.ask(&Ask::new("DOT-1", "plan"));
    assert_eq!(plan.status(), "planned", "{plan:?}");
    let as_others: Vec<String> = bench.all("SELECT who FROM sprung WHERE who <> $1", &[&owner]);
    assert!(as_others.is_empty(), "the cast of {owner} ran as {as_others:?}");
}

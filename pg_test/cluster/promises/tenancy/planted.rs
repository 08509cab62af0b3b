//! T2: settings of a database and objects in it that its owner has planted capture neither the worker nor a superuser.

use std::sync::Arc;

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, figure, until};

/// What an owner, or for the last one whoever administers the worker's role, can set for sessions to come. Each comes with
/// a search_path that finds his shadows first.
const SETTINGS: [&str; 9] = [
    "ALTER DATABASE DBNAME SET search_path = evil, pg_temp, pg_catalog",
    "ALTER DATABASE DBNAME SET search_path = evil, pg_catalog; ALTER DATABASE DBNAME SET standard_conforming_strings = off;
     ALTER DATABASE DBNAME SET backslash_quote = on",
    "ALTER DATABASE DBNAME SET search_path = evil; ALTER DATABASE DBNAME SET datestyle = 'German';
     ALTER DATABASE DBNAME SET intervalstyle = 'sql_standard'; ALTER DATABASE DBNAME SET bytea_output = 'escape'",
    "ALTER DATABASE DBNAME SET search_path = evil; ALTER DATABASE DBNAME SET row_security = off;
     ALTER DATABASE DBNAME SET transform_null_equals = on",
    "ALTER DATABASE DBNAME SET search_path = evil, dot_wrapper; ALTER DATABASE DBNAME SET default_transaction_isolation = 'serializable';
     ALTER DATABASE DBNAME SET default_transaction_read_only = on",
    "ALTER DATABASE DBNAME SET search_path = '\"$user\"', evil; ALTER DATABASE DBNAME SET statement_timeout = '1ms';
     ALTER DATABASE DBNAME SET lock_timeout = '1ms'",
    "ALTER DATABASE DBNAME SET search_path = evil; ALTER DATABASE DBNAME SET quote_all_identifiers = on;
     ALTER DATABASE DBNAME SET client_encoding = 'LATIN1'; ALTER DATABASE DBNAME SET jit_above_cost = 0",
    "ALTER DATABASE DBNAME SET search_path = evil; ALTER DATABASE DBNAME SET synchronous_commit = off;
     ALTER DATABASE DBNAME SET timezone = 'Asia/Ho_Chi_Minh'; ALTER DATABASE DBNAME SET temp_tablespaces = ''",
    "ALTER ROLE dot_wrapper_worker IN DATABASE DBNAME SET search_path = evil, pg_catalog;
     ALTER ROLE dot_wrapper_worker IN DATABASE DBNAME SET statement_timeout = '1ms'",
];

/// What to run when a shadow is stepped on.
const SPRUNG: &str = "INSERT INTO public.sprung VALUES (current_user, 'NAME')";

/// Functions that fit better than, or stand before, those that anybody would call without a schema.
const FUNCTIONS: [(&str, &str, &str, &str); 12] = [
    ("lower", "text", "text", "pg_catalog.lower($1)"),
    ("format", "text, name", "text", "pg_catalog.format($1, $2)"),
    ("quote_ident", "name", "text", "pg_catalog.quote_ident($1)"),
    ("to_jsonb", "text", "jsonb", "pg_catalog.to_jsonb($1)"),
    ("jsonb_typeof", "jsonb", "text", "pg_catalog.jsonb_typeof($1)"),
    ("clock_timestamp", "", "timestamptz", "pg_catalog.clock_timestamp()"),
    ("current_database", "", "name", "pg_catalog.current_database()"),
    ("gen_random_uuid", "", "uuid", "pg_catalog.gen_random_uuid()"),
    ("make_interval", "secs double precision", "interval", "pg_catalog.make_interval(secs => $1)"),
    ("nextval", "text", "bigint", "pg_catalog.nextval($1::regclass)"),
    ("length", "bytea", "integer", "pg_catalog.length($1)"),
    ("array_position", "text[], text", "integer", "pg_catalog.array_position($1, $2)"),
];

/// Operators, each with the types of its sides, its result, and what it is in truth.
const OPERATORS: [(&str, &str, &str, &str, &str); 7] = [
    ("=", "text", "text", "boolean", "$1 OPERATOR(pg_catalog.=) $2"),
    ("=", "uuid", "uuid", "boolean", "$1 OPERATOR(pg_catalog.=) $2"),
    ("=", "name", "text", "boolean", "$1 OPERATOR(pg_catalog.=) $2"),
    ("<=", "timestamptz", "timestamptz", "boolean", "$1 OPERATOR(pg_catalog.<=) $2"),
    ("||", "text", "text", "text", "$1 OPERATOR(pg_catalog.||) $2"),
    ("->>", "jsonb", "text", "text", "$1 OPERATOR(pg_catalog.->>) $2"),
    ("<@", "text[]", "text[]", "boolean", "$1 OPERATOR(pg_catalog.<@) $2"),
];

/// Casts can be made for types of one's own only: here for one that shadows a name, and relations under our names.
const OTHERS: &str = "
    CREATE TYPE evil.text AS (a int); CREATE TYPE evil.jsonb AS (a int); CREATE TYPE evil.uuid AS ENUM ('x');
    CREATE FUNCTION evil.spelled(evil.uuid) RETURNS pg_catalog.text LANGUAGE plpgsql AS
        $f$ BEGIN INSERT INTO public.sprung VALUES (current_user, 'cast'); RETURN 'x'; END $f$;
    CREATE CAST (evil.uuid AS pg_catalog.text) WITH FUNCTION evil.spelled(evil.uuid) AS IMPLICIT;
    CREATE FUNCTION evil.looked() RETURNS boolean LANGUAGE plpgsql AS
        $f$ BEGIN INSERT INTO public.sprung VALUES (current_user, 'relation'); RETURN true; END $f$;
    CREATE VIEW evil.dot_run AS SELECT gen_random_uuid() AS run_id WHERE evil.looked();
    CREATE VIEW evil.dot_queue AS SELECT gen_random_uuid() AS run_id WHERE evil.looked();
    CREATE VIEW evil.dot_tools AS SELECT 'DOT-1'::pg_catalog.text AS code WHERE evil.looked();
    CREATE VIEW evil.pg_proc AS SELECT 1 AS oid WHERE evil.looked();
    CREATE VIEW evil.pg_roles AS SELECT 1 AS oid WHERE evil.looked();";

/// Everything above, in one schema that is open to all, by a database's owner.
fn plant(bench: &Bench) {
    let owner = bench.role("owner");
    bench.exec(&format!("ALTER DATABASE {0} OWNER TO {owner}; REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC", bench.name));
    let mut sql = "CREATE TABLE public.sprung (who text, what text); GRANT ALL ON public.sprung TO PUBLIC;
                   CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO PUBLIC;"
        .to_owned();
    let function = |name: &str, arguments: &str, result: &str, value: &str| {
        let sprung = SPRUNG.replace("NAME", name);
        format!(
            "CREATE FUNCTION evil.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $f$ BEGIN {sprung}; RETURN {value}; END $f$;"
        )
    };
    for (name, arguments, result, value) in FUNCTIONS {
        sql += &function(name, arguments, result, value);
    }
    for (number, (operator, left, right, result, value)) in OPERATORS.into_iter().enumerate() {
        let name = format!("operator_{number}");
        sql += &function(&name, &format!("{left}, {right}"), result, value);
        sql +=
            &format!("CREATE OPERATOR evil.{operator} (FUNCTION = evil.{name}, LEFTARG = {left}, RIGHTARG = {right});");
    }
    bench.connect_as(&owner).batch_execute(&(sql + OTHERS)).unwrap_or_else(|error| panic!("{error:?}"));
}

/// A session as the settings make it, but for those that would keep it from saying anything.
fn session(bench: &Bench) -> postgres::Client {
    let mut session = bench.connect();
    session
        .batch_execute(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET default_transaction_read_only = off;
                        SET default_transaction_isolation = 'read committed'",
        )
        .unwrap();
    session
}

/// Who stepped on what, besides the owner himself.
fn captures(bench: &Bench) -> Vec<String> {
    bench.all("SELECT DISTINCT what || ' as ' || who FROM public.sprung WHERE who NOT LIKE '%owner' ORDER BY 1", &[])
}

#[test]
fn t2_settings_and_shadows_of_a_databases_owner_capture_nobody() {
    let bench = Bench::empty(Arc::new(Cluster::start(&[], &[])));
    plant(&bench);
    bench.exec("SET search_path = evil, pg_catalog; CREATE EXTENSION dot_wrapper SCHEMA public; RESET search_path");
    bench.furnish();
    // The traps do spring: who calls without a schema, under such a path, is caught.
    bench.exec("SET search_path = evil, pg_catalog; SELECT lower('A'); SELECT 'a'::pg_catalog.text = 'b'; SELECT FROM dot_run; RESET search_path");
    let caught = captures(&bench);
    assert_eq!(caught, ["lower as postgres", "operator_0 as postgres", "relation as postgres"]);
    bench.exec("DELETE FROM public.sprung");
    for settings in SETTINGS {
        bench.exec(&format!("ALTER DATABASE {0} RESET ALL; {1}", bench.name, settings.replace("DBNAME", &bench.name)));
        bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
        until("the worker has left", || bench.worker_now().is_none().then_some(()));
        bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
        bench.worker();
        let mut session = session(&bench);
        let run = Ask::new("DOT-1", "apply").on(&mut session).unwrap();
        assert_eq!(run.status(), "queued", "{settings}: {run:?}");
        Ask::new("DOT-2", "plan").on(&mut session).unwrap();
        session.batch_execute(&format!(
            "SELECT count(*) FROM public.fn_dot_run_all('{{\"status\": \"active\"}}'); SELECT count(*) FROM public.fn_dot_doctor();
             SELECT * FROM public.fn_dot_wait('{}', '30 s'); SELECT count(*) FROM public.dot_run_gate;
             SELECT count(*) FROM public.dot_run_attempt; SELECT public.fn_dot_bind('command_log', NULL)",
            run.id()
        )).unwrap_or_else(|error| panic!("{settings}: {error:?}"));
        bench.until(&run, "succeeded");
        assert_eq!(captures(&bench), [""; 0], "{settings}");
    }
    let shadows = FUNCTIONS.len() + OPERATORS.len() + 6;
    figure(
        "T2",
        &format!(
            "{} hostile settings, {shadows} shadows of 4 classes (functions, operators, casts, relations and types): 0 captures",
            SETTINGS.len()
        ),
    );
}

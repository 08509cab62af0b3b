//! G6: the substrate's code runs with its owner's rights, restricted: nothing that it tries makes it more, ends the
//! worker, or stays behind in whoever asked.

use serde_json::Value;

use crate::harness::run::Ask;
use crate::harness::{Owned, figure};

/// What it tries, and whether PostgreSQL refuses it outright. OWNER is the database's owner, who wrote it.
const ATTEMPTS: [(&str, bool); 23] = [
    ("SET ROLE postgres; ALTER ROLE OWNER SUPERUSER", true),
    ("RESET ROLE; ALTER ROLE OWNER SUPERUSER", true),
    ("SET SESSION AUTHORIZATION postgres; ALTER ROLE OWNER SUPERUSER", true),
    ("RESET SESSION AUTHORIZATION", true),
    ("PERFORM set_config('role', 'postgres', false)", true),
    ("INSERT INTO trap VALUES (1)", true),
    ("EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT 1'", true),
    ("CREATE TEMP TABLE dot_queue (a int)", true),
    ("CREATE TYPE pg_temp.odd AS (a int)", true),
    ("ALTER ROLE OWNER SUPERUSER", true),
    ("GRANT pg_execute_server_program TO OWNER", true),
    ("COPY (SELECT 1) TO PROGRAM 'cat > /tmp/dot_wrapper_g6'", true),
    ("PERFORM pg_read_file('postgresql.conf')", true),
    ("PERFORM set_config('dot_wrapper.worker_role', 'postgres', false)", true),
    ("PERFORM set_config('dot_wrapper.max_in_flight', '1', false)", true),
    (
        "PERFORM * FROM dblink('host=SOCKET dbname=DATABASE user=postgres', 'ALTER ROLE OWNER SUPERUSER') AS t (a text)",
        true,
    ),
    ("PERFORM public.fn_dot_run('DOT-2', 'apply')", true),
    ("LISTEN dot", true),
    ("DEALLOCATE ALL", true),
    ("NOTIFY dot, 'x'", false),
    ("PERFORM pg_advisory_unlock_all()", false),
    (
        "SET statement_timeout = '1h'; SET search_path = pg_temp; SET application_name = 'odd'; SET lock_timeout = '2h'",
        false,
    ),
    (
        "PERFORM set_config('search_path', 'pg_temp', true), set_config('session_replication_role', 'replica', false)",
        true,
    ),
];

/// The ports that it can be behind, each with what its refusal is called.
const PORTS: [(&str, &str); 3] = [
    ("fn_dot_iu_operator_runtime_enabled()", "toggle_error"),
    ("fn_assert_safe_for_dot_action()", "guard_error"),
    ("fn_dot_iu_runtime_lease_acquire(text, text, interval)", "lease_error"),
];

/// A table whose deferred trigger would fire at commit, as whoever commits.
const TRAP: &str = "
    CREATE TABLE trap (a int);
    CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS
        $f$ BEGIN EXECUTE 'ALTER ROLE OWNER SUPERUSER'; RETURN NULL; END $f$;
    CREATE CONSTRAINT TRIGGER spring AFTER INSERT OR UPDATE ON trap DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION spring();";

/// Everything that says who may do what: roles, members, settings of roles, privileges on what is ours.
fn rights(owned: &Owned) -> Value {
    owned.bench.one(
        "SELECT jsonb_build_array(
            (SELECT jsonb_agg(to_jsonb(a) - 'oid' ORDER BY a.rolname) FROM pg_authid a WHERE a.rolname IN ($1, 'dot_wrapper_worker')),
            (SELECT jsonb_agg(m ORDER BY m::text) FROM pg_auth_members m
             WHERE m.member = $1::text::regrole OR m.roleid IN ($1::text::regrole, 'dot_wrapper_worker'::regrole)),
            (SELECT jsonb_agg(s ORDER BY s::text) FROM pg_db_role_setting s
             WHERE s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())),
            (SELECT jsonb_agg(jsonb_build_array(c.relname, c.relacl, c.relowner) ORDER BY c.relname) FROM pg_class c
             WHERE c.relnamespace = 'dot_wrapper'::regnamespace),
            (SELECT jsonb_agg(jsonb_build_array(p.oid, p.proacl, p.proowner) ORDER BY p.oid) FROM pg_proc p
             WHERE p.probin LIKE '%dot_wrapper%'))",
        &[&owned.owner],
    )
}

/// What a session is like, and what it holds; a guard must leave it as it was.
const SESSION: &str = "SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'),
    current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('application_name'),
    current_setting('session_replication_role'), (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
    (SELECT count(*) FROM pg_listening_channels()), pg_my_temp_schema())";

fn prepared() -> Owned {
    let owned = Owned::new();
    let bench = &owned.bench;
    owned.owner().batch_execute(&TRAP.replace("OWNER", &owned.owner)).unwrap();
    bench.exec(&format!(
        // Where the server has no dblink, that attempt fails for want of the function.
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'dblink') THEN CREATE EXTENSION dblink; END IF; END $$;
         GRANT EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) TO {}",
        owned.owner
    ));
    owned
}

#[test]
fn g6_hostile_code_of_the_substrate_gains_nothing() {
    let owned = prepared();
    let bench = &owned.bench;
    let (worker, before, session): (i32, Value, String) = (bench.worker(), rights(&owned), bench.one(SESSION, &[]));
    let (mut tried, mut sent) = (0, 0);
    for (attempt, refused) in ATTEMPTS {
        let attempt = attempt.replace("OWNER", &owned.owner).replace("DATABASE", &bench.name);
        let attempt = attempt.replace("SOCKET", &bench.cluster.dir().to_string_lossy());
        for (port, reason) in PORTS {
            // Once in the caller's session, and once in the worker's alone.
            owned.replace(port, &attempt);
            let first = Ask::new("DOT-1", "apply").on(&mut *bench.session()).unwrap();
            let first = if refused { first } else { bench.until(&first, "succeeded") };
            owned.replace(port, &format!("IF session_user = 'dot_wrapper_worker' THEN {attempt}; END IF"));
            let second = bench.until(&bench.apply("DOT-1"), if refused { "refused" } else { "succeeded" });
            owned.replace(port, "NULL");
            for run in [first, second] {
                let expected = if refused { ("refused", reason) } else { ("succeeded", "") };
                assert_eq!((run.status(), run.reason()), expected, "{port}: {attempt}: {run:?}");
                sent += usize::from(!refused);
            }
            tried += 2;
            owned.is_still_ordinary(&attempt);
            assert_eq!(bench.one::<String>(SESSION, &[]), session, "{port}: {attempt}");
        }
        assert_eq!(rights(&owned), before, "{attempt}");
    }
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!((bench.worker(), bench.agent.count()), (worker, sent + 1));
    assert!(!std::path::Path::new("/tmp/dot_wrapper_g6").exists(), "a program was run");
    let attempts = ATTEMPTS.len();
    figure(
        "G6",
        &format!("{attempts} attempts x 3 ports x 2 gates = {tried}: 0 rights gained, 0 settings left, worker alive"),
    );
}

/// Triggers and views of the catalogue are the owner's code as well; their failure is no gate's answer.
#[test]
fn g6_hostile_code_of_the_catalogue_gains_nothing() {
    let owned = prepared();
    let bench = &owned.bench;
    let (worker, before) = (bench.worker(), rights(&owned));
    owned
        .owner()
        .batch_execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN new; END $f$;
         CREATE TRIGGER meddle BEFORE UPDATE ON dot_tools FOR EACH ROW EXECUTE FUNCTION meddle();",
        )
        .unwrap();
    for (attempt, _) in ATTEMPTS {
        let attempt = attempt.replace("OWNER", &owned.owner).replace("DATABASE", &bench.name);
        let attempt = attempt.replace("SOCKET", &bench.cluster.dir().to_string_lossy());
        let sql = format!(
            "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {attempt}; RETURN new; END $f$"
        );
        owned.owner().batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        // A run's end does not hang on the counters; that they were tried is seen by the worker having looked.
        bench.until(&bench.apply("DOT-1"), "succeeded");
        bench.look();
        owned.is_still_ordinary(&attempt);
        assert_eq!(rights(&owned), before, "{attempt}");
    }
    assert_eq!((bench.worker(), bench.agent.count()), (worker, ATTEMPTS.len()));
    figure(
        "G6.catalogue",
        &format!("{} attempts in a trigger of the catalogue: 0 rights gained, worker alive", ATTEMPTS.len()),
    );
}

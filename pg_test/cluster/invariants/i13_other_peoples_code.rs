//! Invariant 13, second half: functions, triggers and views of the database's owner run as he, never as more, whoever
//! calls and whatever they try.

use crate::harness::{Owned, until};

#[test]
fn invariant_13_nothing_for_public_the_owners_code_runs_as_the_owner() {
    let owned = Owned::new();
    let bench = &owned.bench;
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert!(bench.run(run.id()).token() > 0);
    // Once in a superuser's session, once in the worker's.
    let seen: Vec<String> = bench.all("SELECT who || ' in ' || session FROM seen ORDER BY session", &[]);
    let owner = &owned.owner;
    assert_eq!(seen, [format!("{owner} in dot_wrapper_worker"), format!("{owner} in postgres")]);
}

/// Each of these would make the owner a superuser, or leave something behind for a session that is one.
const ATTEMPTS: [&str; 13] = [
    "RESET ROLE; ALTER ROLE OWNER SUPERUSER",
    "SET ROLE postgres; ALTER ROLE OWNER SUPERUSER",
    "SET LOCAL ROLE postgres; ALTER ROLE OWNER SUPERUSER",
    "SET SESSION AUTHORIZATION DEFAULT; ALTER ROLE OWNER SUPERUSER",
    "SET SESSION AUTHORIZATION postgres; ALTER ROLE OWNER SUPERUSER",
    "PERFORM set_config('role', 'postgres', false); ALTER ROLE OWNER SUPERUSER",
    "PERFORM set_config('session_authorization', 'postgres', true); ALTER ROLE OWNER SUPERUSER",
    "ALTER ROLE OWNER SUPERUSER",
    "CREATE TEMP TABLE dot_run (a int)",
    "INSERT INTO trap VALUES (1)",
    "GRANT dot_wrapper_worker TO OWNER",
    "UPDATE dot_wrapper.dot_run SET reason = 'x'",
    "PERFORM public.fn_dot_resume()",
];

/// A table whose deferred trigger would fire at commit, as whoever commits.
const TRAP: &str = "
    CREATE TABLE trap (a int);
    CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS
        $f$ BEGIN EXECUTE 'ALTER ROLE OWNER SUPERUSER'; RETURN NULL; END $f$;
    CREATE CONSTRAINT TRIGGER spring AFTER INSERT OR UPDATE ON trap DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION spring();";

#[test]
fn invariant_13_nothing_for_public_the_owners_code_cannot_become_somebody_else() {
    let owned = Owned::new();
    let bench = &owned.bench;
    owned.owner().batch_execute(&TRAP.replace("OWNER", &owned.owner)).unwrap();
    for attempt in ATTEMPTS {
        owned.toggle(&attempt.replace("OWNER", &owned.owner));
        let run = bench.apply("DOT-1");
        owned.is_still_ordinary(attempt);
        assert_eq!((run.status(), run.reason()), ("refused", "toggle_error"), "{attempt}: {run:?}");
        assert_eq!(bench.one::<String>("SELECT current_user || session_user", &[]), "postgrespostgres");
    }
    // The same in the worker, which asks again.
    for attempt in ATTEMPTS {
        let attempt = attempt.replace("OWNER", &owned.owner);
        owned.toggle(&format!("IF session_user = 'dot_wrapper_worker' THEN {attempt}; END IF"));
        let run = bench.until(&bench.apply("DOT-1"), "refused");
        owned.is_still_ordinary(&attempt);
        assert_eq!(run.reason(), "toggle_error", "{attempt}: {run:?}");
    }
    assert_eq!(bench.agent.count(), 0);
}

/// Settings that a function leaves behind would be in force for whatever the session does next.
#[test]
fn invariant_13_nothing_for_public_the_owners_code_leaves_no_settings_behind() {
    let owned = Owned::new();
    let bench = &owned.bench;
    bench.exec("SET search_path = public");
    owned.toggle(
        "INSERT INTO public.seen SELECT session_user, string_agg(current_setting(s), ' ')
             FROM unnest('{synchronous_commit,statement_timeout,lock_timeout,intervalstyle}'::text[]) AS s;
         PERFORM set_config('search_path', 'pg_temp', false); SET synchronous_commit = off;
         SET statement_timeout = '1h'; SET lock_timeout = '2h'; SET intervalstyle = 'iso_8601'",
    );
    for _ in 0..3 {
        bench.until(&bench.apply("DOT-1"), "succeeded");
    }
    let seen: Vec<String> = bench.all("SELECT DISTINCT who || ': ' || session FROM public.seen ORDER BY 1", &[]);
    assert_eq!(seen, ["dot_wrapper_worker: on 0 1s postgres", "postgres: on 0 0 postgres"]);
    for (setting, value) in [("search_path", "public"), ("statement_timeout", "0"), ("synchronous_commit", "on")] {
        assert_eq!(bench.one::<String>(&format!("SHOW {setting}"), &[]), value, "{setting}");
    }
}

/// The counters are moved as the catalogue's owner; his triggers can neither become more nor undo the end of a run.
#[test]
fn invariant_13_nothing_for_public_triggers_of_the_catalogue_run_as_its_owner() {
    let owned = Owned::new();
    let (bench, owner) = (&owned.bench, &owned.owner);
    let trigger = "
        CREATE TABLE audit (who text, code text, uses int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $f$ BEGIN INSERT INTO public.audit VALUES (current_user, new.code, new.usage_count); RETURN NULL; END $f$;
        CREATE TRIGGER note AFTER UPDATE ON dot_tools FOR EACH ROW EXECUTE FUNCTION note();";
    owned.owner().batch_execute(trigger).unwrap();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let sql = "SELECT who || ' ' || code || ' ' || uses FROM audit WHERE code = 'DOT-1'";
    until("the counter has moved", || {
        bench.all::<String>(sql, &[]).pop().map(|row| assert_eq!(row, format!("{owner} DOT-1 1")))
    });

    let hostile = TRAP.replace("ON trap", "ON dot_tools").replace("OWNER", owner);
    owned.owner().batch_execute(&hostile).unwrap();
    bench.until(&bench.apply("DOT-2"), "succeeded");
    until("the log tells that the counter was refused", || {
        bench.cluster.log().contains("moving usage_count and last_executed failed").then_some(())
    });
    owned.is_still_ordinary("a deferred trigger of the catalogue");
    // The worker lives on.
    bench.until(&bench.apply("DOT-3"), "succeeded");
}

/// Who is neither superuser nor owner of the database cannot have his functions called at all.
#[test]
fn invariant_13_nothing_for_public_functions_of_strangers_are_not_called() {
    let owned = Owned::new();
    let bench = &owned.bench;
    let stranger = bench.role("stranger");
    bench.exec(&format!("ALTER FUNCTION fn_dot_iu_operator_runtime_enabled() OWNER TO {stranger}"));
    let run = bench.apply("DOT-1");
    assert_eq!((run.status(), run.reason()), ("refused", "toggle_unbound"), "{run:?}");
    bench.exec(&format!("ALTER FUNCTION fn_dot_iu_operator_runtime_enabled() OWNER TO {}", owned.owner));
    bench.exec(&format!("ALTER TABLE dot_tools OWNER TO {stranger}"));
    let run = bench.apply("DOT-1");
    assert_eq!((run.status(), run.reason()), ("refused", "catalogue_unreadable"), "{run:?}");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM seen", &[]), 0);
}

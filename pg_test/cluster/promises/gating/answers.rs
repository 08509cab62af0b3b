//! G1, G2: toggles and guards that say anything but a clear yes block, at both gates, and the reason is kept.

use crate::harness::run::Ask;
use crate::harness::{Bench, figure, rounds};

/// A state, how it is brought about, how it is undone, and the reason that it is refused with.
type Case = (&'static str, &'static str, &'static str, &'static str);

const SHIPPED_TOGGLE: &str = "SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()')";
const SHIPPED_GUARD: &str =
    "SELECT fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()'); DROP FUNCTION IF EXISTS mutant(), mutant(integer)";
const TRUE: &str = "DELETE FROM dot_config WHERE key = 'iu_core.operator_runtime_enabled';
                    INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', 'true')";

const TOGGLES: [Case; 17] = [
    ("absent", "DELETE FROM dot_config WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("NULL", "UPDATE dot_config SET value = NULL WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("empty", "UPDATE dot_config SET value = '' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("'false'", "UPDATE dot_config SET value = 'false' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("'on'", "UPDATE dot_config SET value = 'on' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("'1'", "UPDATE dot_config SET value = '1' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("'TRUE'", "UPDATE dot_config SET value = 'TRUE' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("' true '", "UPDATE dot_config SET value = ' true ' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    ("'true; DROP'", "UPDATE dot_config SET value = 'true; DROP' WHERE key LIKE 'iu%'", TRUE, "toggle_off"),
    (
        "two rows",
        "ALTER TABLE dot_config DROP CONSTRAINT dot_config_pkey; ALTER TABLE dot_config DISABLE TRIGGER dot_config_replaces;
         INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', 'true')",
        "DELETE FROM dot_config WHERE key LIKE 'iu%'; INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', 'true');
         ALTER TABLE dot_config ADD PRIMARY KEY (key); ALTER TABLE dot_config ENABLE TRIGGER dot_config_replaces",
        "toggle_error",
    ),
    (
        "a column of another type",
        "ALTER TABLE dot_config ALTER value TYPE integer USING 1",
        "ALTER TABLE dot_config ALTER value TYPE text USING CASE key WHEN 'fs_snapshot_present' THEN '1' ELSE 'true' END",
        "toggle_error",
    ),
    (
        "unreadable",
        "ALTER TABLE dot_config RENAME TO config_away",
        "ALTER TABLE config_away RENAME TO dot_config",
        "toggle_error",
    ),
    (
        "a function that is gone",
        "CREATE FUNCTION mutant() RETURNS boolean LANGUAGE sql AS 'SELECT true'; SELECT fn_dot_bind('toggle', 'mutant()');
         DROP FUNCTION mutant()",
        SHIPPED_TOGGLE,
        "toggle_unbound",
    ),
    (
        "a function that raises",
        "CREATE FUNCTION mutant() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; SELECT fn_dot_bind('toggle', 'mutant()')",
        "SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()'); DROP FUNCTION mutant()",
        "toggle_error",
    ),
    (
        "a function that returns NULL",
        "CREATE FUNCTION mutant() RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean'; SELECT fn_dot_bind('toggle', 'mutant()')",
        "SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()'); DROP FUNCTION mutant()",
        "toggle_invalid",
    ),
    (
        "a function whose type has become text",
        "CREATE FUNCTION mutant() RETURNS text LANGUAGE sql AS $$ SELECT 'true' $$;
         UPDATE dot_wrapper.port SET function = 'public.mutant()', origin = 'bound' WHERE port = 'toggle'",
        "SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()'); DROP FUNCTION mutant()",
        "toggle_invalid",
    ),
    ("no row in dot_wrapper.port", "DELETE FROM dot_wrapper.port WHERE port = 'toggle'", SHIPPED_TOGGLE, "toggle_unbound"),
];

/// The body of each mutated guard, with what it returns and its language, and the reason of the refusal.
const GUARDS: [(&str, &str, &str); 16] = [
    ("raises", "void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no snapshot'; END $$", "guard_error"),
    ("raises a code of its own", "void LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'DOT01'; END $$", "guard_error"),
    ("returns NULL", "boolean LANGUAGE sql AS $$ SELECT NULL::boolean $$", "guard_null"),
    ("returns false", "boolean LANGUAGE sql AS $$ SELECT false $$", "guard_block"),
    ("returns BLOCK", "text LANGUAGE sql AS $$ SELECT 'BLOCK' $$", "guard_block"),
    ("returns a word that nobody knows", "text LANGUAGE sql AS $$ SELECT 'maybe' $$", "guard_invalid"),
    ("returns a number", "integer LANGUAGE sql AS $$ SELECT 1 $$", "guard_invalid"),
    (
        "returns rows, one of which blocks",
        "TABLE (check_name text, verdict text) LANGUAGE sql AS $$ VALUES ('disk', 'OK'), ('backup', 'block') $$",
        "guard_block",
    ),
    (
        "returns rows, one without a verdict",
        "TABLE (check_name text, verdict text) LANGUAGE sql AS $$ VALUES ('disk', 'OK'), ('backup', NULL) $$",
        "guard_invalid",
    ),
    (
        "returns no rows",
        "TABLE (check_name text, verdict text) LANGUAGE sql AS $$ SELECT 'disk', 'OK' WHERE false $$",
        "guard_null",
    ),
    ("calls itself without end", "boolean LANGUAGE sql AS $$ SELECT public.mutant() $$", "guard_error"),
    (
        "is broken inside",
        "boolean LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT nonsense FROM nowhere); END $$",
        "guard_error",
    ),
    ("sets the role", "boolean LANGUAGE plpgsql AS $$ BEGIN SET ROLE postgres; RETURN true; END $$", "guard_error"),
    ("commits", "boolean LANGUAGE plpgsql AS $$ BEGIN COMMIT; RETURN true; END $$", "guard_error"),
    ("rolls back", "boolean LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; RETURN true; END $$", "guard_error"),
    ("divides by zero", "boolean LANGUAGE sql AS $$ SELECT 1 / 0 = 0 $$", "guard_error"),
];

/// Guards that are not what was bound.
const MISFITS: [Case; 4] = [
    (
        "is missing",
        "CREATE FUNCTION mutant() RETURNS boolean LANGUAGE sql AS 'SELECT true'; SELECT fn_dot_bind('guard', 'mutant()');
         DROP FUNCTION mutant()",
        SHIPPED_GUARD,
        "guard_unbound",
    ),
    (
        "has another signature",
        "CREATE FUNCTION mutant(integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         UPDATE dot_wrapper.port SET function = 'public.mutant(integer)', origin = 'bound' WHERE port = 'guard'",
        SHIPPED_GUARD,
        "guard_error",
    ),
    (
        "may not be executed by its owner",
        "CREATE ROLE DBNAME_mute; ALTER DATABASE DBNAME OWNER TO DBNAME_mute; GRANT CREATE ON SCHEMA public TO DBNAME_mute;
         CREATE FUNCTION mutant() RETURNS boolean LANGUAGE sql AS 'SELECT true'; ALTER FUNCTION mutant() OWNER TO DBNAME_mute;
         SELECT fn_dot_bind('guard', 'mutant()'); REVOKE ALL ON FUNCTION mutant() FROM PUBLIC, DBNAME_mute",
        "SELECT fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()'); DROP FUNCTION mutant();
         ALTER DATABASE DBNAME OWNER TO postgres; DROP OWNED BY DBNAME_mute; DROP ROLE DBNAME_mute",
        "guard_error",
    ),
    (
        "belongs to a stranger",
        "CREATE ROLE DBNAME_strange; CREATE FUNCTION mutant() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         SELECT fn_dot_bind('guard', 'mutant()'); ALTER FUNCTION mutant() OWNER TO DBNAME_strange",
        "SELECT fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()'); DROP OWNED BY DBNAME_strange; DROP ROLE DBNAME_strange",
        "guard_unbound",
    ),
];

/// Both gates refuse in this state: the first one while it lasts, the second one for a run that it comes over.
#[track_caller]
fn blocks_twice(bench: &Bench, gate: &str, (what, before, after, reason): (&str, &str, &str, &str)) {
    let (before, after) = (before.replace("DBNAME", &bench.name), after.replace("DBNAME", &bench.name));
    let second = bench.until(&bench.between(&Ask::new("DOT-1", "apply"), &before), "refused");
    let expected = (gate.to_owned(), reason.to_owned());
    assert_eq!(bench.block(&second, "send"), expected, "the second gate, {gate} {what}");
    for mode in ["apply", "verify"] {
        let first = bench.ask(&Ask::new("DOT-2", mode));
        assert_eq!((first.status(), first.reason()), ("refused", reason), "{gate} {what}: {first:?}");
        assert_eq!(bench.block(&first, "request"), expected);
    }
    bench.exec(&after);
}

#[test]
fn g1_whatever_is_not_an_unmistakable_true_blocks() {
    let bench = Bench::shared();
    let worker = bench.worker();
    for case in TOGGLES {
        blocks_twice(&bench, "toggle", case);
    }
    // On a fresh install nothing is on.
    let fresh = Bench::empty(bench.cluster.clone());
    fresh.exec("CREATE EXTENSION dot_wrapper");
    assert!(!fresh.one::<bool>("SELECT fn_dot_iu_operator_runtime_enabled()", &[]));
    // What was undone lets through again, and the worker has lived through it all.
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!((bench.agent.count(), bench.worker()), (1, worker));
    figure("G1", &format!("{0} toggle states, {0} blocked at both gates, 0 requests", TOGGLES.len()));
}

#[test]
fn g2_a_guard_that_does_not_say_yes_blocks() {
    let bench = Bench::shared();
    let worker = bench.worker();
    for (what, body, reason) in GUARDS {
        let before = format!(
            "SET LOCAL check_function_bodies = off; CREATE FUNCTION mutant() RETURNS {body}; SELECT fn_dot_bind('guard', 'mutant()')"
        );
        blocks_twice(&bench, "guard", (what, &before, SHIPPED_GUARD, reason));
    }
    for case in MISFITS {
        blocks_twice(&bench, "guard", case);
    }
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!((bench.agent.count(), bench.worker()), (1, worker));
    let guards = GUARDS.len() + MISFITS.len();
    figure("G2", &format!("{guards} mutated guards, {guards} blocked at both gates with their reason, worker alive"));
}

/// 55P03 says "not now": the second gate asks again, and gives up when the run has waited past its time.
#[test]
fn g2_a_guard_that_never_gets_its_lock_lets_nothing_through() {
    let bench = Bench::shared();
    bench.exec("UPDATE dot_wrapper.policy SET start_by_s = 1 WHERE name = 'agent_api'");
    let guard =
        "CREATE FUNCTION mutant() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE lock_not_available; END $$;
                 SELECT fn_dot_bind('guard', 'mutant()')";
    let waiting = bench.between(&Ask::new("DOT-1", "apply"), guard);
    assert_eq!(bench.apply("DOT-2").reason(), "guard_error");
    let ended = bench.until(&waiting, "expired");
    assert_eq!((ended.reason(), bench.agent.count()), ("start_by_passed", 0));
}

/// A guard that does not come back in time has not said yes; who asked, and the worker, go on.
#[test]
fn g2_a_guard_that_takes_too_long_blocks() {
    let bench = Bench::shared();
    let worker = bench.worker();
    // The one that is hardest to end comes first: each takes its three seconds at each gate.
    let mutants = [
        (
            "catches what is to end it",
            "boolean LANGUAGE plpgsql AS $$ BEGIN
                 BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; RETURN true; END $$",
        ),
        ("sleeps", "boolean LANGUAGE sql AS $$ SELECT pg_sleep(600) IS NOT NULL $$"),
        ("never ends", "boolean LANGUAGE plpgsql AS $$ BEGIN LOOP NULL; END LOOP; RETURN true; END $$"),
    ];
    let mutants = &mutants[..rounds(1, mutants.len())];
    for (what, body) in mutants {
        let before = format!("CREATE FUNCTION mutant() RETURNS {body}; SELECT fn_dot_bind('guard', 'mutant()')");
        blocks_twice(&bench, "guard", (what, &before, SHIPPED_GUARD, "guard_error"));
    }
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!((bench.agent.count(), bench.worker()), (1, worker));
    figure(
        "G2.late",
        &format!("{0} guards that do not come back: {0} blocked at both gates, worker alive", mutants.len()),
    );
}

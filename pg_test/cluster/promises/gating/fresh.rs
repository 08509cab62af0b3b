//! What sessions keep of the configuration is what a read would find: every change is seen by the next call, whoever makes it.

use postgres::GenericClient;

use crate::harness::Bench;

/// What is kept, how it is changed, and how that is undone.
type Case = (&'static str, &'static str, &'static str);

const CASES: [Case; 12] = [
    (
        "a tool's policy",
        "INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', 'DOT-1', 'fresh')",
        "DELETE FROM dot_wrapper.policy WHERE lease = 'fresh'",
    ),
    (
        "an engine's policy",
        "UPDATE dot_wrapper.policy SET lease = 'other' WHERE scope = 'engine'",
        "UPDATE dot_wrapper.policy SET lease = NULL WHERE scope = 'engine'",
    ),
    (
        "policies that are truncated",
        "TRUNCATE dot_wrapper.policy",
        "INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes) VALUES ('engine', 'agent_api', 'agent', '{verify,apply}')",
    ),
    (
        "an endpoint",
        "UPDATE dot_wrapper.endpoint SET path = '/v2/{code}'",
        "UPDATE dot_wrapper.endpoint SET path = '/v1/dots/{code}/runs'",
    ),
    (
        "an endpoint's name, which policies follow",
        "UPDATE dot_wrapper.endpoint SET name = 'renamed'",
        "UPDATE dot_wrapper.endpoint SET name = 'agent'",
    ),
    (
        "egress rules",
        "UPDATE dot_wrapper.egress_rule SET path_prefix = '/elsewhere'",
        "UPDATE dot_wrapper.egress_rule SET path_prefix = '/'",
    ),
    (
        "a port",
        "SELECT fn_dot_bind('toggle', NULL)",
        "SELECT fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()')",
    ),
    (
        "a function's name",
        "ALTER FUNCTION fn_assert_safe_for_dot_action() RENAME TO away",
        "ALTER FUNCTION away() RENAME TO fn_assert_safe_for_dot_action",
    ),
    (
        "a function's owner",
        "ALTER FUNCTION fn_assert_safe_for_dot_action() OWNER TO pg_monitor",
        "ALTER FUNCTION fn_assert_safe_for_dot_action() OWNER TO postgres",
    ),
    (
        "an order to a breaker",
        "SELECT fn_dot_breaker('agent', 'open', 'fresh')",
        "SELECT fn_dot_breaker('agent', 'closed', 'fresh')",
    ),
    (
        "the instance",
        "UPDATE dot_wrapper.instance SET database_oid = 1",
        "UPDATE dot_wrapper.instance SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    (
        "the ancestry",
        "INSERT INTO dot_wrapper.ancestry VALUES (1, 1)",
        "DELETE FROM dot_wrapper.ancestry WHERE database_oid = 1",
    ),
];

/// What a plan says that depends on any of it.
fn plan(session: &mut impl GenericClient) -> String {
    let sql = "SELECT concat_ws(' ', r.run_status, r.lease_key, r.request ->> 'url',
                   (SELECT string_agg(concat_ws(':', g.gate, g.verdict, g.reason, g.inputs ->> 'endpoint'), ' ')
                    FROM jsonb_to_recordset(r.gates) AS g (gate text, verdict text, reason text, inputs jsonb)
                    WHERE g.reason <> 'no_worker'))
               FROM fn_dot_run('DOT-1', 'plan') r";
    session.query_one(sql, &[]).expect("a plan").get(0)
}

fn bench() -> Bench {
    let bench = Bench::shared();
    bench.exec("SELECT fn_dot_breaker('agent', 'closed', 'at rest')");
    bench
}

#[test]
fn a_change_is_seen_by_the_very_next_call_of_every_session_once_it_is_committed() {
    let bench = bench();
    let (mut caller, mut operator) = (bench.connect(), bench.connect());
    for (what, change, undo) in CASES {
        let before = plan(&mut caller);
        assert_eq!(plan(&mut caller), before, "{what}: at rest");
        operator.batch_execute(&format!("BEGIN; {change}")).unwrap_or_else(|why| panic!("{what}: {why}"));
        // DDL holds calls up instead.
        if !change.contains("ALTER") && !change.contains("TRUNCATE") {
            assert_eq!(plan(&mut caller), before, "{what}: not committed");
        }
        operator.batch_execute("COMMIT").unwrap();
        let after = plan(&mut caller);
        assert_ne!(after, before, "{what}: committed");
        assert_eq!(plan(&mut caller), after, "{what}: kept anew");
        operator.batch_execute(undo).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(plan(&mut caller), before, "{what}: undone");
    }
}

#[test]
fn a_transaction_sees_its_own_changes_and_no_longer_when_they_are_rolled_back() {
    let bench = bench();
    let mut caller = bench.connect();
    for (what, change, _) in CASES {
        let before = plan(&mut caller);
        let mut transaction = caller.transaction().unwrap();
        let mut savepoint = transaction.transaction().unwrap();
        savepoint.batch_execute(change).unwrap_or_else(|why| panic!("{what}: {why}"));
        let inside = plan(&mut savepoint);
        assert_ne!(inside, before, "{what}: its own change");
        savepoint.rollback().unwrap();
        assert_eq!(plan(&mut transaction), before, "{what}: after ROLLBACK TO SAVEPOINT");
        transaction.batch_execute(change).unwrap();
        assert_eq!(plan(&mut transaction), inside, "{what}: once more");
        transaction.rollback().unwrap();
        assert_eq!(plan(&mut caller), before, "{what}: after ROLLBACK");
    }
}

#[test]
fn a_transaction_with_one_snapshot_keeps_to_it_and_leaves_nothing_of_it_behind() {
    let bench = bench();
    let (mut caller, mut operator) = (bench.connect(), bench.connect());
    for (what, change, undo) in [CASES[0], CASES[1], CASES[3], CASES[5], CASES[9], CASES[11]] {
        let before = plan(&mut caller);
        let level = postgres::IsolationLevel::RepeatableRead;
        let mut transaction = caller.build_transaction().isolation_level(level).start().unwrap();
        assert_eq!(plan(&mut transaction), before, "{what}: at rest");
        operator.batch_execute(change).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(plan(&mut transaction), before, "{what}: the snapshot is older");
        transaction.commit().unwrap();
        assert_ne!(plan(&mut caller), before, "{what}: the next transaction");
        operator.batch_execute(undo).unwrap();
        assert_eq!(plan(&mut caller), before, "{what}: undone");
    }
}

#[test]
fn nothing_is_kept_where_a_change_would_not_be_told() {
    let bench = bench();
    let (mut caller, mut operator) = (bench.connect(), bench.connect());
    operator.batch_execute("ALTER TABLE dot_wrapper.endpoint DISABLE TRIGGER change_told").unwrap();
    let before = plan(&mut caller);
    operator.batch_execute(CASES[3].1).unwrap();
    assert_ne!(plan(&mut caller), before, "with the trigger disabled");
    operator.batch_execute("ALTER TABLE dot_wrapper.endpoint ENABLE ALWAYS TRIGGER change_told").unwrap();
    let before = plan(&mut caller);
    operator.batch_execute(&format!("SET session_replication_role = replica; {}", CASES[3].2)).unwrap();
    assert_ne!(plan(&mut caller), before, "by a session in which ordinary triggers do not fire");
}

#[test]
fn what_a_statement_that_fails_has_shown_to_a_call_is_not_kept() {
    let bench = bench();
    for path in ["change", "WITH"] {
        let mut caller = bench.connect();
        let before = plan(&mut bench.connect());
        let calls = "(SELECT count(*) FROM fn_dot_run('DOT-1', 'plan')), 1 / (breaker_failures - breaker_failures)";
        let change = "UPDATE dot_wrapper.endpoint SET base_url = 'http://127.0.0.1:1' WHERE name = 'agent' RETURNING";
        let sql = match path {
            "change" => format!("{change} {calls}"),
            _ => format!("WITH x AS ({change} *) SELECT {calls} FROM x"),
        };
        caller.query(&sql, &[]).expect_err("a division by zero");
        assert_eq!(plan(&mut caller), before, "{path}");
    }
}

/// As a restore with --disable-triggers leaves them: they fire, but not for everybody.
#[test]
fn the_doctor_tells_of_every_table_that_is_not_kept_and_its_advice_mends_it() {
    let bench = bench();
    let found = "SELECT advice FROM fn_dot_doctor() WHERE check_name = 'kept' AND verdict = 'WARN' ORDER BY advice";
    assert!(bench.all::<String>(found, &[]).is_empty(), "at rest");
    let told = "SELECT c.oid::regclass::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'change_told'";
    let tables = bench.all::<String>(told, &[]);
    assert_eq!(tables.len(), 8, "{tables:?}");
    for table in &tables {
        bench.exec(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL; ALTER TABLE {table} ENABLE TRIGGER ALL"));
    }
    let advice = bench.all::<String>(found, &[]);
    assert_eq!(advice.len(), tables.len(), "{advice:?}");
    for sql in advice {
        bench.exec(&sql);
    }
    assert!(bench.all::<String>(found, &[]).is_empty(), "mended");
    bench.exec("CREATE TABLE child () INHERITS (dot_wrapper.port)");
    assert_eq!(bench.all::<String>(found, &[]).len(), 1, "with a child");
    bench.exec("DROP TABLE child; ANALYZE dot_wrapper.port");
    assert!(bench.all::<String>(found, &[]).is_empty(), "without it");
}

//! O5: DROP EXTENSION with unsent, in-doubt or ledger rows is refused unless a confirmation setting is on.

use uuid::Uuid;

use crate::harness::bench::Params;
use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, Reply, Run, figure, until};

const NO_PARAMS: Params<'_> = &[];

/// A database whose extension belongs to a role of its own.
pub(super) fn owned(cluster: std::sync::Arc<Cluster>) -> (Bench, String) {
    let bench = Bench::empty(cluster);
    let owner = bench.role("owner");
    bench.exec(&format!("ALTER ROLE {owner} SUPERUSER; SET ROLE {owner}; CREATE EXTENSION dot_wrapper; RESET ROLE"));
    bench.furnish();
    (bench, owner)
}

/// All ways in which the ledger can go, for whoever may do it.
fn ways(owner: &str) -> [String; 5] {
    [
        "DROP EXTENSION dot_wrapper".to_owned(),
        "DROP EXTENSION dot_wrapper CASCADE".to_owned(),
        "DROP SCHEMA public CASCADE".to_owned(),
        format!("DROP OWNED BY {owner} CASCADE"),
        "DROP EXTENSION plpgsql CASCADE".to_owned(),
    ]
}

/// One run in each state; the agent holds what is running.
fn run_in(bench: &Bench, state: &str) -> Run {
    match state {
        "queued" => {
            bench.exec("BEGIN");
            let run = bench.apply("DOT-1");
            // Not due: no worker sends it.
            bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = 'infinity'; COMMIT");
            run
        }
        "running" => {
            bench.agent.reply(Reply::Hold);
            let run = bench.apply("DOT-1");
            bench.until(&run, "running");
            run
        }
        "in_doubt" => {
            bench.agent.reply(Reply::Close);
            let run = bench.apply("DOT-1");
            bench.until(&run, "in_doubt")
        }
        _ => bench.until(&bench.apply("DOT-1"), "succeeded"),
    }
}

/// True when the command was refused as it should be, and the row is still there.
fn is_refused(bench: &Bench, run: Uuid, sql: &str, counts: &str) -> bool {
    let refused = bench.session().batch_execute(sql).err().and_then(|error| error.as_db_error().cloned());
    let Some(error) = refused else { return false };
    assert_eq!(error.code().code(), "55000", "{sql}: {error:?}");
    assert!(error.detail().unwrap_or_default().contains(counts), "{sql}: {error:?}");
    assert!(error.hint().unwrap_or_default().contains("SET dot_wrapper.allow_drop"), "{error:?}");
    bench.run(run).id() == run
}

#[test]
fn o5_a_ledger_is_not_dropped_by_mistake() {
    let cluster = std::sync::Arc::new(Cluster::start(&[], &[]));
    let (mut asked, mut refused) = (0, 0);
    for (state, counts) in [
        ("queued", "not yet sent: 1,"),
        ("running", "being executed: 1,"),
        ("in_doubt", "in doubt: 1."),
        ("finished", "Runs in the ledger: 1;"),
    ] {
        let (bench, owner) = owned(cluster.clone());
        let run = run_in(&bench, state);
        for sql in ways(&owner) {
            asked += 1;
            refused += usize::from(is_refused(&bench, run.id(), &sql, counts));
            // With a second thought it goes, by each of the ways.
            bench.exec(&format!("BEGIN; SET LOCAL dot_wrapper.allow_drop = on; {sql}"));
            assert_eq!(
                bench.one::<i64>("SELECT count(*) FROM pg_namespace WHERE nspname = 'dot_wrapper'", NO_PARAMS),
                0
            );
            bench.exec("ROLLBACK");
        }
        bench.exec("SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper");
        until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    }
    figure("O5", &format!("{asked} drops of a ledger in 4 states by 5 commands, {} silent losses", asked - refused));
    assert_eq!(refused, asked);
}

/// Without the preload, the session that drops has never heard of this library.
#[test]
fn o5_also_in_a_session_that_has_not_loaded_the_library() {
    let bench = Bench::own(&["shared_preload_libraries = ''"]);
    let run = bench.apply("DOT-1");
    for sql in ["DROP EXTENSION dot_wrapper", "DROP SCHEMA public CASCADE", "DROP EXTENSION plpgsql CASCADE"] {
        bench.forget_session();
        assert!(is_refused(&bench, run.id(), sql, "not yet sent: 1,"), "{sql}");
    }
    bench.forget_session();
    bench.exec("SET session_replication_role = replica");
    assert!(is_refused(&bench, run.id(), "DROP EXTENSION dot_wrapper", "not yet sent: 1,"));
    bench.forget_session();
    bench.exec("SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper");
}

/// A snapshot that is older than the run does not hide it.
#[test]
fn o5_also_for_runs_that_the_transaction_does_not_see() {
    let bench = Bench::shared();
    let mut old = bench.connect();
    let mut old = old.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    old.batch_execute("SELECT 1").unwrap();
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    let error = old.batch_execute("DROP EXTENSION dot_wrapper").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error:?}");
    drop(old);
    // Nor one's own that is not committed.
    bench.exec("BEGIN");
    bench.apply("DOT-2");
    assert_eq!(bench.error("DROP EXTENSION dot_wrapper").code().code(), "55000");
    bench.exec("ROLLBACK");
    assert_eq!(bench.run(run.id()).status(), "succeeded");
}

/// What belongs to the extension stays with it; whose it is may change; and an empty ledger is nobody's loss.
#[test]
fn o5_members_stay_owners_change_and_an_empty_ledger_goes() {
    let (bench, owner) = owned(Cluster::shared());
    bench.exec("BEGIN; ALTER EXTENSION dot_wrapper DROP TABLE dot_wrapper.dot_queue; ROLLBACK");
    bench.exec("BEGIN; DROP EXTENSION dot_wrapper; ROLLBACK");
    bench.exec("CREATE TABLE mine (); CREATE TABLE dot_run_too (); CREATE SCHEMA other; CREATE TABLE other.dot_run ()");
    bench.until(&bench.apply("DOT-1"), "succeeded");
    for sql in
        ["ALTER EXTENSION dot_wrapper DROP TABLE dot_wrapper.dot_queue", "ALTER EXTENSION dot_wrapper ADD TABLE mine"]
    {
        let error = bench.error(sql);
        assert_eq!(error.code().code(), "55000", "{error:?}");
    }
    // Other people's tables of that name, and other people's extensions.
    bench.exec("DROP TABLE other.dot_run; DROP SCHEMA other CASCADE; DROP TABLE mine");
    bench.exec("ALTER EXTENSION plpgsql DROP FUNCTION plpgsql_validator(oid); ALTER EXTENSION plpgsql ADD FUNCTION plpgsql_validator(oid)");
    let heir = bench.role("heir");
    // It locks one table after the other, as the worker does: while that one is at rest, they cannot meet half way.
    bench.look();
    bench.exec(&format!("REASSIGN OWNED BY {owner} TO {heir}"));
    bench.until(&bench.apply("DOT-2"), "succeeded");
    let error = bench.connect_as(&owner).batch_execute("DROP EXTENSION dot_wrapper").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error:?}");
    assert!(Ask::new("DOT-3", "plan").on(&mut *bench.session()).is_ok());
    bench.exec("SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper; RESET dot_wrapper.allow_drop");
    bench.exec("CREATE EXTENSION dot_wrapper; DROP EXTENSION dot_wrapper");
}

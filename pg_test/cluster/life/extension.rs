//! Extensions that come and go while launcher and workers are at work.

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, Reply, until};

#[track_caller]
fn no_process_crashed(bench: &Bench) {
    let log = bench.cluster.log();
    let crash = log.lines().find(|line| line.contains("was terminated by signal") || line.contains("PANIC"));
    assert_eq!(crash, None);
}

#[test]
fn two_databases_have_a_worker_each_and_work_at_once() {
    let (one, two) = (Bench::shared(), Bench::shared());
    for bench in [&one, &two] {
        bench.agent.reply(Reply::Hold);
    }
    let runs = [one.apply("DOT-1"), two.apply("DOT-1")];
    let requests = [one.agent.wait_for(1).remove(0), two.agent.wait_for(1).remove(0)];
    assert_ne!(one.worker(), two.worker());
    for (bench, run, request) in [(&two, &runs[1], &requests[1]), (&one, &runs[0], &requests[0])] {
        bench.agent.release(request, Reply::succeeded());
        bench.until(run, "succeeded");
        assert_eq!(bench.agent.count(), 1);
    }
}

#[test]
fn an_extension_whose_creation_is_rolled_back_leaves_nothing() {
    let bench = Bench::empty(Cluster::shared());
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute("CREATE EXTENSION dot_wrapper").unwrap();
    transaction.rollback().unwrap();
    let left = "SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'dot_wrapper')
                     + (SELECT count(*) FROM pg_namespace WHERE nspname = 'dot_wrapper')
                     + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'fn\\_dot%')";
    assert_eq!(bench.one::<i64>(left, &[]), 0);
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    bench.until(&bench.apply("DOT-1"), "succeeded");
}

#[test]
fn an_extension_and_its_first_run_can_be_one_transaction() {
    let bench = Bench::empty(Cluster::shared());
    let mut session = bench.session();
    session.batch_execute("BEGIN; CREATE EXTENSION dot_wrapper").unwrap();
    drop(session);
    bench.furnish();
    let run = bench.apply("DOT-1");
    bench.exec("COMMIT");
    bench.until(&run, "succeeded");
}

/// Roles belong to the cluster, extensions to its databases: the first two may meet.
#[test]
fn two_databases_can_get_the_first_extension_of_a_cluster_at_once() {
    let cluster = std::sync::Arc::new(Cluster::start(&[], &[]));
    let benches = [Bench::empty(cluster.clone()), Bench::empty(cluster)];
    let mut first = benches[0].connect();
    let mut transaction = first.transaction().unwrap();
    transaction.batch_execute("CREATE EXTENSION dot_wrapper").unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| benches[1].exec("CREATE EXTENSION dot_wrapper"));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        until("the second waits for the first or is done", || {
            (benches[0].one::<i64>(waits, &[]) == 1 || second.is_finished()).then_some(())
        });
        transaction.commit().unwrap();
    });
    for bench in &benches {
        bench.furnish();
        bench.until(&bench.apply("DOT-1"), "succeeded");
    }
}

#[test]
fn an_extension_can_be_dropped_with_a_call_out_and_made_again() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    bench.exec("SET lock_timeout = '10s'; SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper");
    bench.agent.release(&request, Reply::succeeded());
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));

    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    bench.agent.reply(Reply::succeeded());
    bench.until(&bench.apply("DOT-1"), "succeeded");
    no_process_crashed(&bench);
}

/// The new extension is not the old one: what was out for the old one changes nothing in the new.
#[test]
fn an_extension_that_is_replaced_in_one_transaction_starts_anew() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    bench.exec(
        "SET dot_wrapper.allow_drop = on; BEGIN; DROP EXTENSION dot_wrapper; CREATE EXTENSION dot_wrapper; COMMIT",
    );
    bench.agent.release(&request, Reply::succeeded());
    bench.agent.reply(Reply::succeeded());
    bench.furnish();
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!(bench.all::<uuid::Uuid>("SELECT DISTINCT run_id FROM dot_wrapper.dot_run_event", &[]), [run.id()]);
    no_process_crashed(&bench);
}

/// The owner of a schema can drop what is in it, also when the ledger belongs to somebody else.
#[test]
fn a_schema_that_is_dropped_with_the_extension_in_it_takes_the_worker_along() {
    let bench = Bench::empty(Cluster::shared());
    bench.exec("CREATE SCHEMA ops; CREATE EXTENSION dot_wrapper SCHEMA ops; SET search_path = public, ops");
    bench.furnish();
    let sql = "SELECT to_jsonb(r) FROM ops.fn_dot_run('DOT-1', 'apply') r";
    let run = crate::harness::Run(bench.one(sql, &[]));
    bench.until(&run, "succeeded");
    bench.exec("SET dot_wrapper.allow_drop = on; DROP SCHEMA ops CASCADE");
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let error = Ask::new("DOT-1", "plan").on(&mut bench.connect()).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42883");
    no_process_crashed(&bench);
}

/// Nothing has happened until it is committed: not to the call that is out, nor to what is asked for meanwhile.
#[test]
fn a_drop_or_an_update_that_is_rolled_back_loses_and_doubles_nothing() {
    let bench = Bench::shared();
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE backend_type = 'dot_wrapper worker' AND datname = current_database() AND wait_event_type = 'Lock'";
    for sql in [
        "SET LOCAL dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper",
        "ALTER EXTENSION dot_wrapper UPDATE; UPDATE pg_extension SET extversion = '99' WHERE extname = 'dot_wrapper';
         ALTER TABLE dot_wrapper.dot_queue ADD COLUMN more int; ALTER TABLE dot_wrapper.dot_run ADD COLUMN more int",
    ] {
        let before = bench.agent.count();
        bench.agent.reply(Reply::Hold);
        let out = bench.apply("DOT-1");
        let request = bench.agent.wait_for(before + 1).pop().unwrap();
        let worker = bench.worker();
        let mut other = bench.connect();
        other.batch_execute(&format!("BEGIN; {sql}")).unwrap();
        // The answer comes while nobody may write it down.
        bench.agent.reply(Reply::succeeded());
        bench.agent.release(&request, Reply::succeeded());
        until("the worker is in front of a lock", || (other_count(&mut other, waits) == 1).then_some(()));
        other.batch_execute("ROLLBACK").unwrap();
        bench.until(&out, "succeeded");
        bench.until(&bench.apply("DOT-2"), "succeeded");
        assert_eq!(bench.worker(), worker, "the worker stayed");
        assert_eq!(bench.agent.count(), before + 2, "each was sent once");
    }
    no_process_crashed(&bench);
}

fn other_count(session: &mut postgres::Client, sql: &str) -> i64 {
    session.query_one(sql, &[]).unwrap().get(0)
}

/// Tables that change under a worker at work, as an update changes them, are the tables that it goes on with.
#[test]
fn an_update_that_is_committed_while_a_call_is_out_loses_nothing() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let out = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).pop().unwrap();
    let worker = bench.worker();
    bench.exec(
        "BEGIN; ALTER EXTENSION dot_wrapper UPDATE; ALTER TABLE dot_wrapper.dot_queue ADD COLUMN more int DEFAULT 1;
         ALTER TABLE dot_wrapper.dot_run_attempt ADD COLUMN more int; ALTER TABLE dot_wrapper.policy ADD COLUMN more int; COMMIT",
    );
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&out, "succeeded");
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert_eq!((bench.worker(), bench.agent.count()), (worker, 2));
    no_process_crashed(&bench);
}

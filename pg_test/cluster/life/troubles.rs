//! Troubles that concern one run, one tool or one moment, and must not become everybody's: locks, open transactions,
//! functions that raise odd codes, rows that cannot be read.

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

/// A lease of ten seconds is renewed while a call is out, although nothing else wakes the worker.
#[test]
fn a_short_lease_is_kept_while_a_call_is_out() {
    let bench = Bench::shared();
    bench.exec("UPDATE dot_wrapper.policy SET lease_ttl_s = 10 WHERE scope = 'engine'");
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    let sql = "SELECT expires_at::text FROM dot_iu_runtime_lease WHERE lease_key = 'tool:DOT-1'";
    let granted: String = bench.one(sql, &[]);
    until("the lease has been renewed", || (bench.one::<String>(sql, &[]) > granted).then_some(()));
    let second = bench.apply("DOT-1");
    assert_eq!((second.status(), second.reason()), ("refused", "lease_held"), "{second:?}");
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
}

/// A worker that was switched off keeps the lease of the call that it waits for.
#[test]
fn a_lease_is_kept_by_a_worker_that_is_about_to_leave() {
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease_ttl_s = 10 WHERE scope = 'engine'");
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    let sql = "SELECT expires_at::text FROM dot_iu_runtime_lease WHERE lease_key = 'tool:DOT-1'";
    let granted: String = bench.one(sql, &[]);
    until("the lease has been renewed", || (bench.one::<String>(sql, &[]) > granted).then_some(()));
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
    until("the worker has left", || bench.worker_now().is_none().then_some(()));
}

/// Any code of any class is a refusal, here and at the second gate, and stops nobody else's run.
#[test]
fn a_guard_that_raises_an_odd_code_refuses_and_nothing_more() {
    let bench = Bench::shared();
    for state in ["57000", "53000", "40000", "XX000", "P0001"] {
        bench.exec(&format!(
            "CREATE OR REPLACE FUNCTION fn_assert_safe_for_dot_action() RETURNS void LANGUAGE plpgsql AS
                 $f$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $f$"
        ));
        let run = bench.apply("DOT-1");
        assert_eq!((run.status(), run.reason()), ("refused", "guard_error"), "{state}: {run:?}");
    }
    assert_eq!(bench.agent.count(), 0);
}

/// A lock on the substrate means "not now": what is queued waits for it, and is not refused.
#[test]
fn a_lock_on_the_substrate_postpones_what_is_queued() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    let run = bench.apply("DOT-1");
    let mut migration = bench.connect();
    let mut migration = migration.transaction().unwrap();
    migration.batch_execute("LOCK TABLE dot_config IN ACCESS EXCLUSIVE MODE").unwrap();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    let postponed = "SELECT q.available_at > r.requested_at + interval '2 s' FROM dot_wrapper.dot_queue q
                     JOIN dot_wrapper.dot_run r USING (run_id) WHERE run_id = $1";
    until("the run is postponed", || bench.one::<bool>(postponed, &[&run.id()]).then_some(()));
    assert_eq!(bench.run(run.id()).status(), "queued");
    migration.rollback().unwrap();
    bench.until(&run, "succeeded");
}

/// A caller who takes a lease that ran out, and leaves his transaction open, holds up neither the end of the run that had
/// the lease before nor anybody else's run.
#[test]
fn an_open_transaction_of_a_caller_does_not_hold_up_the_worker() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let first = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    bench.exec(
        "UPDATE dot_iu_runtime_lease SET expires_at = 'epoch' WHERE lease_key = 'tool:DOT-1';
         UPDATE dot_wrapper.lease_grant SET expires_at = clock_timestamp() + interval '5 min' WHERE lease_key = 'tool:DOT-1'",
    );
    let mut session = bench.connect();
    let mut open = session.transaction().unwrap();
    assert_eq!(Ask::new("DOT-1", "apply").on(&mut open).unwrap().status(), "queued");
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&request, Reply::succeeded());
    until("the first run has ended", || (bench.run(first.id()).status() != "running").then_some(()));
    bench.until(&bench.apply("DOT-2"), "succeeded");
    open.rollback().unwrap();
}

/// What cannot be read is that tool's trouble.
#[test]
fn an_unreadable_catalogue_row_is_one_tools_trouble() {
    let bench = Bench::shared();
    bench.exec(
        "ALTER TABLE dot_tools ADD COLUMN extra jsonb;
         UPDATE dot_tools SET extra = (repeat('[', 300) || repeat(']', 300))::jsonb WHERE code = 'DOT-2'",
    );
    let spoilt = bench.apply("DOT-2");
    assert_eq!((spoilt.status(), spoilt.reason()), ("refused", "catalogue_unreadable"), "{spoilt:?}");
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let planned: i64 = bench.one("SELECT count(*) FROM fn_dot_run_all('{}') WHERE run_status = 'planned'", &[]);
    assert!(planned > 1);
}

/// What a worker owed to the counters when it ended, the next one pays.
#[test]
fn a_new_worker_pays_what_the_old_one_owed() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    bench.exec("INSERT INTO dot_wrapper.usage_debt VALUES ('DOT-1', 3, clock_timestamp())");
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    let sql = "SELECT usage_count FROM dot_tools WHERE code = 'DOT-1'";
    until("the debt is paid", || (bench.one::<i64>(sql, &[]) == 3).then_some(()));
}

/// Only who may call `fn_dot_run` may call it for many.
#[test]
fn run_all_wants_the_privilege_that_the_second_gate_asks_for() {
    let bench = Bench::shared();
    let role = bench.role("many");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run_all TO {role}"));
    let mut session = bench.connect_as(&role);
    let error = session.batch_execute("SELECT fn_dot_run_all('{}', 'apply')").unwrap_err();
    assert_eq!(error.code().map(postgres::error::SqlState::code), Some("42501"));
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {role}"));
    session.batch_execute("SELECT fn_dot_run_all('{\"code\": \"DOT-1\"}', 'apply')").unwrap();
    until("it has been sent", || (bench.agent.count() == 1).then_some(()));
}

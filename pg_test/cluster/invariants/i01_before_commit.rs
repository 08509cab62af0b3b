//! Invariant 1: no engine is called for a transaction that has not committed; a rollback leaves no run, no lease, no call.

use uuid::Uuid;

use crate::harness::bench::Params;
use crate::harness::run::Ask;
use crate::harness::{Bench, Run};

/// Everything that a run can leave behind.
fn traces(bench: &Bench, run: &Run) -> i64 {
    let id: Uuid = run.id();
    let params: Params<'_> = &[&id];
    let sql = "SELECT (SELECT count(*) FROM dot_wrapper.dot_run WHERE run_id = $1)
                    + (SELECT count(*) FROM dot_wrapper.dot_queue WHERE run_id = $1)
                    + (SELECT count(*) FROM dot_wrapper.dot_run_event WHERE run_id = $1)
                    + (SELECT count(*) FROM dot_wrapper.dot_run_attempt WHERE run_id = $1)
                    + (SELECT count(*) FROM dot_wrapper.lease_grant WHERE run_id = $1)
                    + (SELECT count(*) FROM dot_iu_runtime_lease WHERE holder LIKE '%' || $1::uuid)";
    bench.one(sql, params)
}

#[test]
fn invariant_01_nothing_before_commit_a_rollback_leaves_no_run_no_lease_no_call() {
    let bench = Bench::shared();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let rolled_back = Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    assert_eq!(rolled_back.status(), "queued", "{rolled_back:?}");
    transaction.rollback().unwrap();

    bench.drain();
    assert_eq!(traces(&bench, &rolled_back), 0);
    // The lease is free, and the agent hears of this run only.
    let committed = bench.apply("DOT-1");
    bench.until(&committed, "succeeded");
    let requests = bench.agent.requests();
    assert_eq!(requests.iter().map(|r| r.run_id()).collect::<Vec<_>>(), [Some(committed.id())]);
}

#[test]
fn invariant_01_nothing_before_commit_nor_does_a_savepoint_that_is_rolled_back() {
    let bench = Bench::shared();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let mut savepoint = transaction.savepoint("s").unwrap();
    let rolled_back = Ask::new("DOT-1", "apply").on(&mut savepoint).unwrap();
    savepoint.rollback().unwrap();
    let kept = Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    assert_eq!(kept.status(), "queued", "the lease went with the savepoint: {kept:?}");
    transaction.commit().unwrap();

    bench.until(&kept, "succeeded");
    bench.drain();
    assert_eq!(traces(&bench, &rolled_back), 0);
    assert_eq!(bench.agent.requests().iter().map(|r| r.run_id()).collect::<Vec<_>>(), [Some(kept.id())]);
}

#[test]
fn invariant_01_nothing_before_commit_an_open_transaction_is_not_sent() {
    let bench = Bench::shared();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let open = Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    // The worker has looked twice meanwhile, woken by others.
    bench.drain();
    bench.drain();
    assert_eq!(bench.agent.count(), 0);
    transaction.commit().unwrap();
    bench.until(&open, "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

//! A subscriber that has the extension too, with a worker and open gates: replicated rows are not permits (invariant 11).

use std::time::Duration;

use super::stream::{LEDGER, begin, caught_up, publish, subscribe};
use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Run, until};

/// Two databases of one server, each with an agent of its own.
fn pair() -> (Bench, Bench) {
    let (from, to) = alike();
    // Numbers of its own events must not be those of the ones that come.
    to.exec("ALTER TABLE dot_wrapper.dot_run_event ALTER event_id RESTART WITH 1000000000");
    (from, to)
}

/// The same, with numbers from 1 in both.
fn alike() -> (Bench, Bench) {
    let from = Bench::own(&["wal_level = logical"]);
    let to = Bench::on(from.cluster.clone());
    from.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    to.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    (from, to)
}

/// One that waits for good, and one that is out.
fn open_runs(bench: &Bench) -> [Run; 2] {
    bench.agent.reply(Reply::Hold);
    let out = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    let waiting = bench.between(
        &Ask::new("DOT-2", "apply"),
        "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = RUN",
    );
    [out, waiting]
}

fn copy_of(bench: &Bench, run: &Run) -> String {
    bench.run(run.id()).status().to_owned()
}

#[test]
fn a_subscriber_with_a_worker_shows_replicated_runs_and_executes_none() {
    let (from, to) = pair();
    let [out, waiting] = open_runs(&from);
    publish(&from, &LEDGER);
    subscribe(&to, &from);
    caught_up(&from);
    assert_eq!((copy_of(&to, &out), copy_of(&to, &waiting)), ("running".into(), "queued".into()));
    // Its own runs go on beside them.
    to.drain();
    to.look();
    assert_eq!((copy_of(&to, &out), copy_of(&to, &waiting)), ("running".into(), "queued".into()));

    from.agent.release(&from.agent.requests()[0], Reply::succeeded());
    from.until(&out, "succeeded");
    caught_up(&from);
    assert_eq!(copy_of(&to, &out), "succeeded");
    assert_eq!(to.agent.count(), 0, "{:?}", to.agent.requests());
    // They carry no mark of this database, and are told.
    let sql = "SELECT count(DISTINCT item) FROM fn_dot_verify()
               WHERE run_id = $1 AND kind = 'event' AND verdict IN ('unknown_origin', 'inserted')";
    assert_eq!(to.one::<i64>(sql, &[&out.id()]), 3);
}

/// Nobody should publish the queue. Who does, gets rows without a permit.
#[test]
fn a_replicated_queue_is_not_executed_either() {
    let (from, to) = pair();
    let [out, waiting] = open_runs(&from);
    publish(&from, &["dot_run", "dot_run_event", "dot_run_attempt", "dot_queue"]);
    subscribe(&to, &from);
    caught_up(&from);
    to.exec("UPDATE dot_wrapper.dot_queue SET available_at = '-infinity' WHERE state = 'queued'");
    to.look();
    to.look();
    holds("nothing is sent", Duration::from_millis(500), || to.agent.count() == 0);
    until("it is set aside", || (to.events(&waiting).last()? == "no_permit").then_some(()));
    assert_eq!(copy_of(&to, &waiting), "queued");
    assert!(["running", "in_doubt"].contains(&copy_of(&to, &out).as_str()));
}

/// Who runs tools in the subscriber too, and lets both number from 1, has a copy that stands still; his own runs go on.
#[test]
fn numbers_that_meet_stop_the_copy_and_nothing_else() {
    let (from, to) = alike();
    let own = to.until(&to.apply("DOT-1"), "succeeded");
    from.until(&from.apply("DOT-1"), "succeeded");
    publish(&from, &["dot_run_event"]);
    begin(&to, &from);
    let meets = "duplicate key value violates unique constraint \"dot_run_event_pkey\"";
    until("the copy has failed", || to.cluster.log().contains(meets).then_some(()));
    to.drain();
    assert_eq!(to.events(&own), ["queued", "running", "succeeded"]);
    assert_eq!(to.agent.count(), 1);
}

//! Events that join a run: for how long they may.

use super::{bound, busy, runs};
use crate::harness::{Reply, until};

#[test]
fn a_run_that_the_worker_wants_takes_no_more_events_and_so_starts_when_those_it_has_are_done() {
    let bench = bound("", "");
    let held = busy(&bench);
    bench.exec("INSERT INTO t VALUES (1)");
    let first = runs(&bench).remove(0);
    let mut writer = bench.connect();
    let mut joined = writer.transaction().unwrap();
    joined.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    bench.agent.release(&held, Reply::succeeded());
    until("the worker has closed it", || {
        let open = "SELECT alike IS NULL FROM dot_wrapper.dot_queue WHERE run_id = $1";
        bench.one::<bool>(open, &[&first.id()]).then_some(())
    });
    bench.exec("INSERT INTO t VALUES (3)");
    let second = runs(&bench).remove(1);
    assert_eq!(bench.run(first.id()).status(), "queued", "who has joined it is waited for");
    joined.commit().unwrap();
    bench.until(&first, "succeeded");
    bench.until(&second, "succeeded");
    assert_eq!((runs(&bench).len(), bench.events(&first)[1].as_str()), (2, "coalesced"));
}

#[test]
fn a_run_that_has_waited_half_of_its_time_takes_no_more_events() {
    let bench = bound("", "");
    let held = busy(&bench);
    bench.exec("INSERT INTO t VALUES (1)");
    bench.exec(
        "UPDATE dot_wrapper.dot_run SET start_by = clock_timestamp() + (clock_timestamp() - requested_at) / 2
         WHERE source = 'trigger'",
    );
    bench.exec("INSERT INTO t VALUES (2)");
    assert_eq!(runs(&bench).len(), 2);
    bench.agent.release(&held, Reply::succeeded());
}

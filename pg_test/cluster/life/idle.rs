//! A worker that has nothing to do hardly does anything.

use std::time::Duration;

use crate::harness::{Bench, Reply, until};

#[test]
fn a_worker_without_work_has_one_transaction_in_a_poll_interval() {
    let bench = Bench::own(&["dot_wrapper.poll_interval = 2s", "autovacuum = off"]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let sealed =
        "SELECT (SELECT h.high FROM dot_wrapper.seal_head h) = max(e.event_id) FROM dot_wrapper.dot_run_event e";
    until("it is sealed", || bench.one::<Option<bool>>(sealed, &[]).filter(|sealed| *sealed));
    // Nobody else's transactions are counted: not those of this session, which are told now, and no other one's.
    bench.exec("SELECT pg_stat_force_next_flush()");
    let mut other = bench.cluster.connect("postgres");
    let mut count = || {
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
        other.query_one(sql, &[&bench.name]).unwrap().get::<_, i64>(0)
    };
    // What follows a run comes to its end.
    std::thread::sleep(Duration::from_secs(5));
    let before = count();
    std::thread::sleep(Duration::from_secs(8));
    let after = count();
    // Four polls, and what the machine is late with.
    assert!((2..=5).contains(&(after - before)), "{} transactions in 8 s", after - before);
}

#[test]
fn what_nobody_tells_of_is_found_while_a_call_is_out() {
    let bench = Bench::own(&["dot_wrapper.poll_interval = 1s", "max_prepared_transactions = 5"]);
    bench.agent.reply(Reply::Hold);
    let held = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    bench.agent.reply(Reply::succeeded());
    // What follows the request comes to its end: then only the call is out.
    std::thread::sleep(Duration::from_secs(5));
    bench.exec("BEGIN; SELECT fn_dot_run('DOT-2', 'apply'); PREPARE TRANSACTION 'two'");
    bench.exec("COMMIT PREPARED 'two'");
    let other = "SELECT run_status FROM dot_wrapper.dot_run WHERE code = 'DOT-2'";
    until("it is found", || (bench.one::<String>(other, &[]) == "succeeded").then_some(()));
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&held, "succeeded");
}

//! O4: standbys stay silent; a promoted one starts within 2 s and treats inherited intents as in doubt.

use std::time::{Duration, Instant};

use postgres::Client;

use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Run, figure, rounds, until};

/// Inherited intents.
const OUT: usize = 10;

fn value<T: postgres::types::FromSqlOwned>(session: &mut Client, sql: &str) -> T {
    session.query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
}

/// Returns when the standby has replayed all that the primary has written.
fn caught_up(bench: &Bench) {
    let sql = "SELECT count(*) FROM pg_stat_replication
               WHERE application_name = 'standby' AND replay_lsn >= pg_current_wal_flush_lsn()";
    until("the standby has caught up", || (bench.one::<i64>(sql, &[]) == 1).then_some(()));
}

fn statuses(session: &mut Client, runs: &[Run]) -> Vec<String> {
    let sql = "SELECT run_status || coalesce(' ' || reason, '') FROM dot_wrapper.dot_run WHERE run_id = $1";
    runs.iter().map(|run| session.query_one(sql, &[&run.id()]).unwrap().get(0)).collect()
}

#[test]
fn o4_a_promoted_standby_takes_over_within_two_seconds_and_sends_nothing_twice() {
    let bench = Bench::own(&[&format!("dot_wrapper.max_in_flight = {OUT}"), "synchronous_commit = on"]);
    bench.exec(&format!("UPDATE dot_wrapper.policy SET lease = 'none', max_in_flight = {OUT}"));
    let standby = bench.cluster.standby(&[]);
    standby.start_again();
    bench.agent.reply(Reply::Hold);
    let out: Vec<Run> = (0..OUT).map(|_| bench.apply("DOT-1")).collect();
    bench.agent.wait_for(OUT);
    let queued: Vec<Run> = (0..OUT).map(|_| bench.apply("DOT-2")).collect();
    caught_up(&bench);

    // As long as it is a standby, none of our processes is there, and calls say what is the matter.
    let mut there = standby.connect(&bench.name);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dot_wrapper%'";
    holds("the standby is silent", Duration::from_secs(rounds(1, 10) as u64), || {
        value::<i64>(&mut there, ours) == 0 && bench.agent.count() == OUT
    });
    assert!(statuses(&mut there, &out).iter().all(|status| status == "running"));
    let error = Ask::new("DOT-1", "plan").on(&mut there).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006", "{error:?}");

    // The primary is gone for good; who promotes sees to that.
    bench.agent.reply(Reply::succeeded());
    bench.cluster.stop("immediate");
    let started = Instant::now();
    standby.promote();
    let worker = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker'";
    until("there is a worker", || (value::<i64>(&mut there, worker) == 1).then_some(()));
    let requests = bench.agent.wait_for(OUT + 1);
    let took = started.elapsed();
    assert!(took <= Duration::from_secs(2), "the first claim took {took:?}");

    until("what was out is in doubt", || {
        statuses(&mut there, &out).iter().all(|status| status == "in_doubt worker_lost").then_some(())
    });
    until("what was queued is done", || {
        statuses(&mut there, &queued).iter().all(|status| status == "succeeded").then_some(())
    });
    let requests = requests.len().max(bench.agent.count());
    figure(
        "O4",
        &format!(
            "0 processes and 0 requests while a standby; first request {} ms after pg_ctl promote; \
             {OUT}/{OUT} inherited intents in doubt, {OUT} queued runs sent once, {requests} requests in all",
            took.as_millis()
        ),
    );
    assert_eq!(requests, 2 * OUT, "each run was sent once");
}

/// With a synchronous standby, no request leaves before its intent is there too: neither time, nor a cancel, nor the
/// worker's end cuts that short.
#[test]
fn o4_no_request_leaves_before_a_synchronous_standby_has_the_intent() {
    let bench = Bench::own(&[]);
    let cluster = &bench.cluster;
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    let standby = cluster.standby(&[]);
    standby.start_again();
    caught_up(&bench);
    cluster.set(&[("synchronous_standby_names", "standby")]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!(bench.agent.count(), 1);

    // Everybody else goes on without it.
    bench.exec("SET synchronous_commit = local");
    // What has come is sealed a second later; that commit would wait for the standby before the one that this is about.
    let rests = "SELECT now() - state_change > interval '1500 ms' FROM pg_stat_activity WHERE pid = $1";
    let worker = bench.worker();
    until("the worker has sealed", || bench.one::<bool>(rests, &[&worker]).then_some(()));
    standby.stop("fast");
    let lost = bench.apply("DOT-1");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND wait_event = 'SyncRep'";
    let waits = || until("the worker waits for the standby", || (bench.one::<i64>(waiting, &[]) == 1).then_some(()));
    waits();
    let worker = bench.worker();
    for _ in 0..3 {
        assert!(bench.one::<bool>("SELECT pg_cancel_backend($1)", &[&worker]));
    }
    // Longer than any statement of the worker may take.
    holds("nothing is sent", Duration::from_secs(rounds(2, 15) as u64), || bench.agent.count() == 1);
    waits();
    // A worker that is told to go must not wait, and must not send either.
    let started = Instant::now();
    assert!(bench.one::<bool>("SELECT pg_terminate_backend($1, 3000)", &[&worker]), "it has gone");
    let ended = started.elapsed();
    until("there is another worker", || bench.worker_now().filter(|pid| *pid != worker));
    waits();
    assert_eq!(bench.agent.count(), 1, "nothing was sent");

    standby.start_again();
    // The intent was there, so nobody may say that it was not sent.
    assert_eq!(bench.until(&lost, "in_doubt").reason(), "worker_lost");
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert_eq!(bench.agent.count(), 2);
    figure(
        "O4-sync",
        &format!("0 requests without the standby, after cancels and a termination ({} ms)", ended.as_millis()),
    );
}

//! Runs that are queued without their lease and take it when it is their turn (`policy.lease_wait`).

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Run, until};

fn bench() -> Bench {
    let bench = Bench::shared();
    bench.exec("INSERT INTO dot_wrapper.policy (scope, name, lease_wait) VALUES ('tool', 'DOT-1', true)");
    bench
}

#[test]
fn a_run_that_waits_for_its_lease_goes_when_the_one_before_it_is_over() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    let first = bench.apply("DOT-1");
    let held = bench.agent.wait_for(1).remove(0);
    let [second, third] = [2, 3].map(|n| bench.ask(&Ask { args: json!({"n": n}), ..Ask::new("DOT-1", "apply") }));
    assert_eq!((second.status(), third.status()), ("queued", "queued"));
    assert_eq!(second.gate("lease").unwrap()["reason"], "lease_later");
    assert_eq!((second.token(), third.token()), (0, 0));
    bench.drain();
    // They have been looked at, and go on waiting.
    assert_eq!([second.id(), third.id()].map(|id| bench.run(id).status().to_owned()), ["queued", "queued"]);
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&held, Reply::succeeded());
    let runs = [first, second, third].map(|run| bench.until(&run, "succeeded"));
    assert!(runs[0].token() < runs[1].token() && runs[1].token() < runs[2].token(), "{runs:?}");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM dot_wrapper.lease_grant WHERE lease_key LIKE '%DOT-1'", &[]), 0);
}

#[test]
fn a_run_that_waits_for_a_lease_in_doubt_expires_at_its_start_by() {
    let bench = bench();
    bench.exec("UPDATE dot_wrapper.policy SET start_by_s = 3 WHERE name = 'DOT-1'");
    bench.agent.reply(Reply::Close);
    let first = bench.apply("DOT-1");
    bench.until(&first, "in_doubt");
    let second: Run = bench.apply("DOT-1");
    assert_eq!(second.status(), "queued");
    assert_eq!(bench.until(&second, "expired").reason(), "start_by_passed");
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn a_run_that_is_cancelled_while_it_waits_holds_up_no_other() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    let first = bench.apply("DOT-1");
    let held = bench.agent.wait_for(1).remove(0);
    let [second, third] = [2, 3].map(|n| bench.ask(&Ask { args: json!({"n": n}), ..Ask::new("DOT-1", "apply") }));
    // Both have been looked at, and stand in line.
    bench.drain();
    bench.exec(&format!("SELECT fn_dot_cancel('{}', 'not needed')", second.id()));
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&first, "succeeded");
    bench.until(&third, "succeeded");
    assert_eq!((bench.run(second.id()).status(), bench.agent.count()), ("cancelled", 2));
}

#[test]
fn without_lease_wait_a_held_lease_refuses_as_ever() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    bench.apply("DOT-2");
    bench.agent.wait_for(1);
    assert_eq!(bench.apply("DOT-2").reason(), "lease_held");
}

#[test]
fn an_open_transaction_that_takes_the_lease_holds_up_nobody_but_those_who_wait_for_it() {
    let bench = bench();
    bench.exec("INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', 'DOT-2', 'tool:DOT-1')");
    let mut other = bench.connect();
    let mut open = other.transaction().unwrap();
    let taker = Ask::new("DOT-2", "apply").on(&mut open).unwrap();
    assert_eq!(taker.status(), "queued");
    let waiting: Vec<Run> =
        (0..20).map(|n| bench.ask(&Ask { args: json!({"n": n}), ..Ask::new("DOT-1", "apply") })).collect();
    let begun = std::time::Instant::now();
    bench.drain();
    bench.drain();
    // One of them has met the lock for a second; before, each of them did, until the claim's time was up.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(waiting.iter().all(|run| bench.run(run.id()).status() == "queued"));
    open.commit().unwrap();
    bench.until(&taker, "succeeded");
    waiting.iter().for_each(|run| drop(bench.until(run, "succeeded")));
}

#[test]
fn a_long_line_behind_a_run_in_doubt_costs_the_worker_nothing() {
    let bench = bench();
    bench.agent.reply(Reply::Close);
    let first = bench.apply("DOT-1");
    bench.until(&first, "in_doubt");
    bench.exec("SELECT count(*) FROM generate_series(1, 300) n, fn_dot_run('DOT-1', 'apply', args => jsonb_build_object('n', n))");
    bench.drain();
    let parked = "SELECT count(*) FROM dot_wrapper.dot_queue WHERE available_at > clock_timestamp() + interval '20 s'";
    until("they are parked", || (bench.one::<i64>(parked, &[]) >= 295).then_some(()));
    bench.exec("CREATE TABLE kept AS SELECT run_id, xmin::text AS version FROM dot_wrapper.dot_queue");
    for _ in 0..5 {
        bench.drain();
    }
    let touched =
        "SELECT count(*) FROM dot_wrapper.dot_queue q JOIN kept k USING (run_id) WHERE q.xmin::text <> k.version";
    // One or the other has asked; before, all were taken up and put back every three seconds.
    assert!(bench.one::<i64>(touched, &[]) <= 5);
}

#[test]
fn who_waits_goes_at_once_when_the_run_before_it_is_stopped_at_the_second_gate() {
    let bench = bench();
    bench.exec(
        "INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', 'DOT-2', 'tool:DOT-1'), ('tool', 'DOT-6', 'none');
         UPDATE dot_wrapper.endpoint SET max_in_flight = 1",
    );
    bench.agent.plan(|request| if request.field("dot_code") == "DOT-6" { Reply::Hold } else { Reply::succeeded() });
    bench.apply("DOT-6");
    let held = bench.agent.wait_for(1).remove(0);
    let (holder, waiting) = (bench.apply("DOT-2"), bench.apply("DOT-1"));
    assert_eq!((holder.status(), waiting.status()), ("queued", "queued"));
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-2'");
    let begun = std::time::Instant::now();
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&holder, "refused");
    bench.until(&waiting, "succeeded");
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}

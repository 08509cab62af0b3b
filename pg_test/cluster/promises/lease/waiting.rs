//! Runs that are queued without their lease and take it when it is their turn (`policy.lease_wait`).

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Run};

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
fn without_lease_wait_a_held_lease_refuses_as_ever() {
    let bench = bench();
    bench.agent.reply(Reply::Hold);
    bench.apply("DOT-2");
    bench.agent.wait_for(1);
    assert_eq!(bench.apply("DOT-2").reason(), "lease_held");
}

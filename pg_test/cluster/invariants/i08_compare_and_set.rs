//! Invariant 8: every transition names the state, attempt and fencing token that it leaves; zero rows means stop.

use serde_json::Value;

use crate::harness::{Bench, Reply, Run, until};

/// The details of a run's events of one kind.
fn details(bench: &Bench, run: &Run, event: &str) -> Vec<Value> {
    let sql = "SELECT detail FROM dot_wrapper.dot_run_event WHERE run_id = $1 AND event = $2";
    bench.all(sql, &[&run.id(), &event])
}

/// A held apply, something done to its rows, and then a success that must change nothing.
#[track_caller]
fn success_after(mode: &str, tampering: &str) {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let run = if mode == "apply" { bench.apply("DOT-1") } else { bench.verify("DOT-1") };
    let request = bench.agent.wait_for(1).pop().unwrap();
    bench.exec(&tampering.replace("$1", &format!("'{}'", run.id())));
    let before = bench.run(run.id());
    let queue = "SELECT to_jsonb(q) FROM dot_wrapper.dot_queue q WHERE run_id = $1";
    let queued: Value = bench.one(queue, &[&run.id()]);
    bench.agent.release(&request, Reply::succeeded());
    let late = until("the late answer is noted", || details(&bench, &run, "late_answer").pop());
    assert_eq!(late["reason"], "ok", "{late}");
    assert_eq!(late["result"]["said"], "succeeded", "{late}");
    assert_eq!(bench.run(run.id()), before, "{mode} after {tampering}");
    assert_eq!(bench.one::<Value>(queue, &[&run.id()]), queued);
    let leases: i64 = bench.one("SELECT count(*) FROM dot_wrapper.lease_grant WHERE run_id = $1", &[&run.id()]);
    assert_eq!(leases, 1, "who does not end a run does not release its lease");
}

#[test]
fn invariant_08_compare_and_set_another_attempt_is_not_ended() {
    success_after("apply", "UPDATE dot_wrapper.dot_run SET attempts = 2 WHERE run_id = $1");
    success_after("verify", "UPDATE dot_wrapper.dot_run SET attempts = 2 WHERE run_id = $1");
}

#[test]
fn invariant_08_compare_and_set_another_token_is_not_ended() {
    let sql = "UPDATE dot_wrapper.dot_run SET fencing_token = fencing_token + 1 WHERE run_id = $1;
               UPDATE dot_wrapper.lease_grant SET fencing_token = fencing_token + 1 WHERE run_id = $1";
    success_after("apply", sql);
    success_after("verify", sql);
}

#[test]
fn invariant_08_compare_and_set_another_workers_run_is_not_ended() {
    success_after("apply", "UPDATE dot_wrapper.dot_queue SET worker = gen_random_uuid() WHERE run_id = $1");
}

#[test]
fn invariant_08_compare_and_set_another_state_is_not_left() {
    let doubt = "UPDATE dot_wrapper.dot_run SET run_status = 'in_doubt', reason = 'r', message = 'm' WHERE run_id = $1";
    success_after("apply", doubt);
}

/// A lease that ran out and that another run took: the first run may have been overtaken, whatever its agent says.
#[test]
fn invariant_08_compare_and_set_a_stale_lease_ends_in_doubt() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let first = bench.apply("DOT-1");
    bench.agent.wait_for(1);
    assert_eq!(bench.apply("DOT-1").reason(), "lease_held");
    bench.exec("UPDATE dot_iu_runtime_lease SET expires_at = now() - interval '1 s'");
    let second = bench.apply("DOT-1");
    let requests = bench.agent.wait_for(2);
    assert!(second.token() > first.token(), "{} {}", first.token(), second.token());
    assert_eq!(requests[1].body["fencing_token"], second.token());

    bench.agent.release(&requests[0], Reply::succeeded());
    let first = bench.until(&first, "in_doubt");
    assert_eq!((first.reason(), first.text("finished_at")), ("lease_lost", ""));
    assert_eq!(details(&bench, &first, "in_doubt")[0]["result"]["said"], "succeeded", "the answer is kept");
    // The loser does not take the winner's lease with it.
    assert_eq!(bench.apply("DOT-1").reason(), "lease_held");
    bench.agent.release(&requests[1], Reply::succeeded());
    bench.until(&second, "succeeded");

    bench.agent.reply(Reply::succeeded());
    let mut last = second.token();
    for _ in 0..3 {
        let run = bench.until(&bench.apply("DOT-1"), "succeeded");
        assert!(run.token() > last, "tokens grow");
        last = run.token();
    }
}

/// The token moves when the lease is taken again between the two gates, and the agent gets the one in force.
#[test]
fn invariant_08_compare_and_set_the_token_in_force_is_the_one_that_is_sent() {
    let bench = Bench::shared();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let run = crate::harness::run::Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    // A grant that had merely run out could be revived by the worker before it claims.
    let expire = "DELETE FROM dot_wrapper.lease_grant;
                  UPDATE dot_iu_runtime_lease SET expires_at = now() - interval '1 s'";
    transaction.batch_execute(expire).unwrap();
    transaction.commit().unwrap();
    let ended = bench.until(&run, "succeeded");
    assert!(ended.token() > run.token(), "{} {}", run.token(), ended.token());
    let request = bench.agent.requests().pop().unwrap();
    assert_eq!(request.body["fencing_token"], ended.token());
}

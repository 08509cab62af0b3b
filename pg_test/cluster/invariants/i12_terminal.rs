//! Invariant 12: terminal is final; a late answer becomes an event, never a new state.

use serde_json::Value;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

#[test]
fn invariant_12_terminal_is_final_even_for_the_owner() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.agent.reply(Reply::ended("failed"));
    bench.until(&bench.apply("DOT-2"), "failed");
    bench.ask(&Ask::new("DOT-3", "plan"));
    bench.ask(&Ask::new("DOT-NONE", "apply"));
    let all = "SELECT jsonb_agg(to_jsonb(r) ORDER BY run_id) FROM dot_wrapper.dot_run r";
    let before: Value = bench.one(all, &[]);
    for status in ["succeeded", "failed", "planned", "refused"] {
        for change in
            ["run_status = 'failed', reason = 'r', message = 'm'", "result = '1'", "code = code", "finished_at = NULL"]
        {
            let sql = format!("UPDATE dot_wrapper.dot_run SET {change} WHERE run_status = '{status}'");
            assert_eq!(bench.error(&sql).code().code(), "55000", "{sql}");
        }
    }
    for sql in [
        "DELETE FROM dot_wrapper.dot_run",
        "TRUNCATE dot_wrapper.dot_run",
        "UPDATE dot_wrapper.dot_run_event SET detail = '{}'",
        "DELETE FROM dot_wrapper.dot_run_event",
        "TRUNCATE dot_wrapper.dot_run_event",
        "UPDATE dot_wrapper.dot_run_attempt SET deadline = now()",
        "DELETE FROM dot_wrapper.dot_run_attempt",
        "TRUNCATE dot_wrapper.dot_run_attempt",
    ] {
        assert_eq!(bench.error(sql).code().code(), "55000", "{sql}");
    }
    assert_eq!(bench.one::<Value>(all, &[]), before);
}

#[test]
fn invariant_12_terminal_is_final_a_late_answer_is_only_an_event() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    for (n, mode) in ["apply", "verify"].into_iter().enumerate() {
        let run = bench.ask(&Ask::new("DOT-1", mode));
        let request = bench.agent.wait_for(n + 1).pop().unwrap();
        // Somebody ends the run otherwise, while the call is out.
        bench.exec(&format!(
            "UPDATE dot_wrapper.dot_run SET run_status = 'failed', reason = 'by_hand', message = 'by hand',
                    finished_at = clock_timestamp() WHERE run_id = '{0}';
             DELETE FROM dot_wrapper.dot_queue WHERE run_id = '{0}'",
            run.id()
        ));
        let ended = bench.run(run.id());
        bench.agent.release(&request, Reply::succeeded());
        let events = until("the late answer is noted", || {
            Some(bench.events(&run)).filter(|events| events.last().unwrap() == "late_answer")
        });
        assert_eq!(events, ["queued", "running", "late_answer"]);
        assert_eq!(bench.run(run.id()), ended);
        bench.exec("DELETE FROM dot_iu_runtime_lease; DELETE FROM dot_wrapper.lease_grant");
    }
    bench.agent.reply(Reply::succeeded());
    bench.until(&bench.apply("DOT-1"), "succeeded");
}

/// A run that ended before it was sent is never sent, and nothing that its key stands for comes back to life.
#[test]
fn invariant_12_terminal_is_final_a_withdrawn_run_was_never_sent() {
    let bench = Bench::shared();
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let run = Ask::new("DOT-1", "apply").on(&mut transaction).unwrap();
    let cancel = "UPDATE dot_wrapper.dot_run SET run_status = 'cancelled', reason = 'r', message = 'm', finished_at = clock_timestamp()";
    transaction.batch_execute(cancel).unwrap();
    transaction.commit().unwrap();
    bench.drain();
    assert_eq!(bench.agent.count(), 0);
    assert_eq!(bench.run(run.id()).status(), "cancelled");
}

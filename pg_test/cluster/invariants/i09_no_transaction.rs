//! Invariant 9: no transaction is open while a call is out.

use serde_json::{Value, json};

use crate::harness::{Bench, Reply, until};

/// What the worker holds, as seen from outside: its transaction, its snapshot, its locks other than being the worker.
const HELD: &str = "SELECT jsonb_build_object(
        'xact', a.xact_start, 'xid', a.backend_xid, 'xmin', a.backend_xmin, 'state', a.state,
        'locks', (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND l.locktype <> 'advisory'),
        'advisory', (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory'))
    FROM pg_stat_activity a WHERE a.backend_type = 'dot_wrapper worker' AND a.datname = current_database()";

fn nothing() -> Value {
    json!({"xact": null, "xid": null, "xmin": null, "state": "idle", "locks": 0, "advisory": 1})
}

#[test]
fn invariant_09_no_transaction_is_open_while_a_call_is_out() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).pop().unwrap();
    // The turn that sent it also looks after leases; what counts is how it waits then.
    until("the worker holds nothing", || (bench.one::<Value>(HELD, &[]) == nothing()).then_some(()));
    // Nobody is held up: not even who wants the catalogue, the ledger or the leases for himself.
    bench.exec(
        "SET lock_timeout = '2s';
         BEGIN; LOCK TABLE dot_tools, dot_config, dot_iu_runtime_lease, dot_wrapper.dot_run, dot_wrapper.dot_queue; ROLLBACK",
    );
    assert_eq!(bench.one::<Value>(HELD, &[]), nothing());
    assert_eq!(bench.run(run.id()).status(), "running");
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
}

#[test]
fn invariant_09_no_transaction_is_open_between_the_questions_about_an_accepted_run() {
    let bench = Bench::shared();
    bench.agent.plan(|request| if request.method == "POST" { Reply::Accepted } else { Reply::Hold });
    let run = bench.apply("DOT-1");
    let question = bench.agent.wait_for(2).pop().unwrap();
    until("the worker holds nothing", || (bench.one::<Value>(HELD, &[]) == nothing()).then_some(()));
    assert_eq!(bench.run(run.id()).status(), "running");
    bench.agent.release(&question, Reply::succeeded());
    bench.until(&run, "succeeded");
}

//! D5: what the very transaction changes that requests a run, the second gates know of, though a commit is seen a moment before
//! its changes are told.

use crate::harness::run::Ask;
use crate::harness::{Bench, until};

#[test]
fn d5_what_changes_with_the_request_itself_is_known_to_the_second_gates() {
    let bench = Bench::own(&[]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let role = bench.caller("caller");
    let requests = bench.agent.count();
    // A transaction that goes on has nothing to tell yet, and holds up nobody.
    let mut open = bench.connect();
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    let policy = "UPDATE dot_wrapper.policy SET modes = '{verify}' WHERE name = 'agent_api'";
    let privilege = "REVOKE EXECUTE ON FUNCTION fn_dot_run FROM REQUESTER";
    for (change, reason, nested) in [
        (policy, "mode_not_offered", false),
        // The row is a subtransaction's, which has let its lock go long before.
        (policy, "mode_not_offered", true),
        (privilege, "privilege_revoked", true),
    ] {
        let points = bench.cluster.fail_points(&["committed_not_told=wait once"]);
        let run = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let ask = Ask::new("DOT-1", "apply");
                if nested { bench.between_nested(&role, &ask, change) } else { bench.between_as(&role, &ask, change) }
            });
            points.wait_for(1);
            let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                        WHERE backend_type = 'dot_wrapper worker' AND wait_event = 'transactionid')";
            until("the worker has come to the run", || {
                (bench.one::<bool>(waits, &[]) || bench.agent.count() > requests).then_some(())
            });
            drop(points);
            asked.join().unwrap()
        });
        let run = bench.until(&run, "refused");
        assert_eq!(run.reason(), reason, "{run:?}");
        assert_eq!(bench.agent.count(), requests);
        bench.exec("UPDATE dot_wrapper.policy SET modes = '{verify,apply}' WHERE name = 'agent_api'");
    }
}

//! G3: what the very transaction changes that requests a run, the second gates know of, though a commit is seen a moment before its
//! changes are told.

use crate::harness::Bench;
use crate::harness::run::Ask;

#[test]
fn g3_what_changes_with_the_request_itself_is_known_to_the_second_gates() {
    let bench = Bench::own(&[]);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let role = bench.caller("caller");
    let policy = "INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-1', '{verify}')";
    let privilege = "REVOKE EXECUTE ON FUNCTION fn_dot_run FROM REQUESTER";
    // A transaction that goes on has nothing to tell yet, and holds up nobody.
    let mut open = bench.connect();
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    for (change, reason, nested) in [
        (policy, "mode_not_offered", false),
        // The row is a subtransaction's, which has let its lock go long before.
        (policy, "mode_not_offered", true),
        (privilege, "privilege_revoked", true),
    ] {
        let requests = bench.agent.count();
        let points = bench.cluster.fail_points(&["committed_not_told=wait once"]);
        let run = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let ask = Ask::new("DOT-1", "apply");
                if nested { bench.between_nested(&role, &ask, change) } else { bench.between_as(&role, &ask, change) }
            });
            points.wait_for(1);
            // The worker looks, and nothing holds up the others.
            bench.until(&bench.apply("DOT-2"), "succeeded");
            drop(points);
            asked.join().unwrap()
        });
        let run = bench.until(&run, "refused");
        assert_eq!(run.reason(), reason, "{run:?}");
        assert_eq!(bench.agent.count(), requests + 1);
        bench.exec("DELETE FROM dot_wrapper.policy WHERE scope = 'tool' AND name = 'DOT-1'");
    }
}

//! L2: a worker that slept past the end of its leases changes nothing under the old token.

use crate::harness::{Bench, Reply, figure, os, rounds};

#[test]
fn l2_a_worker_that_slept_past_its_lease_changes_nothing_with_the_old_token() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let worker = bench.worker();
    let cycles = rounds(3, 100);
    for cycle in 0..cycles {
        let first = bench.apply("DOT-1");
        assert_eq!(first.status(), "queued", "{first:?}");
        let old = bench.agent.wait_for(2 * cycle + 1).pop().unwrap();
        bench.until(&first, "running");
        assert!(os::signal(worker, "STOP"));
        // As if the lease's time had gone by meanwhile.
        bench.exec("UPDATE dot_iu_runtime_lease SET expires_at = clock_timestamp() - interval '1 s'");
        let second = bench.apply("DOT-1");
        assert_eq!(second.status(), "queued", "{second:?}");
        assert!(second.token() > first.token(), "{} {}", second.token(), first.token());
        bench.agent.release(&old, Reply::succeeded());
        assert!(os::signal(worker, "CONT"));
        let new = bench.agent.wait_for(2 * cycle + 2).pop().unwrap();
        assert_eq!((new.run_id(), &new.body["fencing_token"]), (Some(second.id()), &second.token().into()));
        let first = bench.until(&first, "in_doubt");
        assert_eq!((first.reason(), first.text("finished_at")), ("lease_lost", ""));
        // Nor does the loser let the winner's lease go.
        assert_eq!(bench.apply("DOT-1").reason(), "lease_held");
        bench.agent.release(&new, Reply::succeeded());
        bench.until(&second, "succeeded");
    }
    let sql = "SELECT count(*) FROM dot_wrapper.dot_run r JOIN dot_wrapper.dot_run_event e USING (run_id)
               WHERE e.from_status = 'running' AND e.to_status <> 'in_doubt'
                 AND EXISTS (SELECT FROM dot_wrapper.dot_run n WHERE n.lease_key = r.lease_key
                             AND n.fencing_token > r.fencing_token AND n.requested_at < e.at)";
    let stale: i64 = bench.one(sql, &[]);
    let doubted: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'in_doubt'", &[]);
    assert_eq!((stale, doubted), (0, i64::try_from(cycles).unwrap()));
    figure(
        "L2",
        &format!("{cycles} workers stopped past their lease: {stale} changes under the old token, {doubted} in doubt"),
    );
}

/// The lease table is the substrate's: somebody who never heard of runs can take what has run out, too.
#[test]
fn l2_a_lease_that_somebody_else_has_taken_is_lost() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let worker = bench.worker();
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).pop().unwrap();
    bench.until(&run, "running");
    assert!(os::signal(worker, "STOP"));
    bench.exec(
        "UPDATE dot_wrapper.lease_grant SET expires_at = clock_timestamp() - interval '1 s';
         UPDATE dot_iu_runtime_lease SET expires_at = clock_timestamp() - interval '1 s';
         SELECT fn_dot_iu_runtime_lease_acquire('tool:DOT-1', 'somebody', '1 h')",
    );
    bench.agent.release(&request, Reply::succeeded());
    assert!(os::signal(worker, "CONT"));
    assert_eq!(bench.until(&run, "in_doubt").reason(), "lease_lost");
    assert_eq!(bench.one::<String>("SELECT holder FROM dot_iu_runtime_lease", &[]), "somebody");
    figure("L2.elsewhere", "a lapsed lease taken past the wrapper: in doubt");
}

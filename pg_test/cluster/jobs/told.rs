//! What is committed together with a job, the first gates of its run know of.

use serde_json::json;

use super::Jobs;
use crate::harness::{Bench, until};

#[test]
fn what_changes_with_the_job_itself_is_known_when_it_is_taken() {
    let jobs = Jobs::on(Bench::own(&[]));
    jobs.until(jobs.apply("DOT-1"), "succeeded");
    let points = jobs.bench.cluster.fail_points(&["committed_not_told=wait once"]);
    let id = std::thread::scope(|scope| {
        let put = scope.spawn(|| {
            let mut session = jobs.bench.connect();
            let mut transaction = session.transaction().unwrap();
            transaction.batch_execute("SELECT dot_wrapper.announce()").unwrap();
            let sql = "INSERT INTO job_queue (family, payload) VALUES ('job:dot', $1) RETURNING id";
            let id: i64 = transaction.query_one(sql, &[&json!({"code": "DOT-1"})]).unwrap().get(0);
            let change = "UPDATE dot_wrapper.policy SET modes = '{verify}' WHERE name = 'agent_api'";
            transaction.batch_execute(change).unwrap();
            transaction.commit().unwrap();
            id
        });
        points.wait_for(1);
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                    WHERE backend_type = 'dot_wrapper worker' AND wait_event = 'transactionid')";
        let taken = "SELECT count(*) > 1 FROM dot_wrapper.dot_run";
        until("the worker has come to the job", || {
            (jobs.bench.one::<bool>(waits, &[]) || jobs.bench.one::<bool>(taken, &[])).then_some(())
        });
        drop(points);
        put.join().unwrap()
    });
    jobs.until(id, "refused");
    let run = jobs.run(id);
    assert_eq!((run.reason(), &run.0["admitted"]), ("mode_not_offered", &json!(false)), "{run:?}");
}

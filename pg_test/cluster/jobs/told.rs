//! What is committed together with a job, the first gates of its run know of.

use serde_json::json;

use super::Jobs;
use crate::harness::Bench;

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
            let change = "INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-1', '{verify}')";
            transaction.batch_execute(change).unwrap();
            transaction.commit().unwrap();
            id
        });
        points.wait_for(1);
        // The worker looks at jobs before it takes runs.
        jobs.bench.until(&jobs.bench.apply("DOT-2"), "succeeded");
        drop(points);
        put.join().unwrap()
    });
    jobs.until(id, "refused");
    let run = jobs.run(id);
    assert_eq!((run.reason(), &run.0["admitted"]), ("mode_not_offered", &json!(false)), "{run:?}");
}

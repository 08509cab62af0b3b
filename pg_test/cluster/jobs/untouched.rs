//! What is not to be touched: jobs without a source, behind the toggle, of other families, and those that somebody has.

use std::time::Duration;

use serde_json::json;

use super::Jobs;
use crate::harness::wait::holds;
use crate::harness::{Bench, until};

/// Rows with all that tells of a change or a lock.
const BYTES: &str =
    "SELECT coalesce(string_agg(concat_ws(' ', j.ctid, j.xmin, j.xmax, j), E'\\n' ORDER BY j.id), '') FROM job_queue j
                     WHERE j.family <> 'job:dot'";

fn doctor(bench: &Bench) -> String {
    bench.one("SELECT string_agg(verdict || ' ' || detail, E'\\n') FROM fn_dot_doctor() WHERE check_name = 'jobs'", &[])
}

#[test]
fn without_a_source_no_job_is_taken() {
    let bench = Bench::shared();
    assert_eq!(doctor(&bench), "OK dot_wrapper.job_source has no row; no job is taken");
    bench.exec("UPDATE dot_config SET value = 'true' WHERE key = 'queue.worker.enabled'");
    assert!(doctor(&bench).starts_with("WARN queue.worker.enabled is true, but"), "{}", doctor(&bench));
    bench.exec("INSERT INTO job_queue (family, payload) VALUES ('job:dot', '{\"code\": \"DOT-1\"}')");
    bench.look();
    bench.drain();
    let status: String = bench.one("SELECT status FROM job_queue", &[]);
    assert_eq!((status.as_str(), bench.agent.count()), ("queued", 0));
}

#[test]
fn behind_the_toggle_no_job_is_taken() {
    let jobs = Jobs::shared();
    // One spelling of yes.
    for no in ["false", "TRUE", "1", "on", " true", ""] {
        jobs.switch(no);
        let id = jobs.apply("DOT-1");
        let untouched = || jobs.job(id)["status"] == "queued";
        holds("a job waits behind the toggle", Duration::from_millis(150), untouched);
        assert!(doctor(&jobs.bench).starts_with("WARN queue.worker.enabled is not the word true"), "{no}");
        jobs.bench.exec(&format!("DELETE FROM job_queue WHERE id = {id}"));
    }
    let id = jobs.apply("DOT-1");
    jobs.bench.exec("DELETE FROM dot_config WHERE key = 'queue.worker.enabled'");
    holds("a job waits without a toggle", Duration::from_millis(150), || jobs.job(id)["status"] == "queued");
    jobs.bench.exec("INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', NULL)");
    jobs.bench.look();
    assert_eq!(jobs.bench.agent.count(), 0);
    jobs.switch("true");
    jobs.until(id, "succeeded");
    assert_eq!(doctor(&jobs.bench), format!("OK job:dot of public.job_queue run as {}", jobs.role));
}

#[test]
fn a_run_that_is_out_when_the_toggle_goes_off_still_tells_its_job() {
    let jobs = Jobs::shared();
    jobs.bench.agent.reply(crate::harness::Reply::Hold);
    let id = jobs.apply("DOT-1");
    let request = jobs.bench.agent.wait_for(1).remove(0);
    jobs.switch("false");
    jobs.bench.agent.release(&request, crate::harness::Reply::succeeded());
    jobs.until(id, "succeeded");
}

#[test]
fn other_families_are_neither_taken_nor_locked_nor_changed() {
    let jobs = Jobs::shared();
    jobs.bench.exec(
        "INSERT INTO job_queue (family, payload) SELECT f, '{\"code\": \"DOT-1\"}' FROM unnest(ARRAY[
             'job:cut', 'job:dot:nightly', 'job:dotty', 'job', 'JOB:DOT', ' job:dot', 'job:dot ', 'job:do', '']) f, generate_series(1, 20)",
    );
    let before: String = jobs.bench.one(BYTES, &[]);
    jobs.drain();
    assert_eq!(jobs.bench.one::<String>(BYTES, &[]), before);
    // With all of them locked, ours goes on, and nobody waits for anybody.
    let mut session = jobs.bench.connect();
    let mut locking = session.transaction().unwrap();
    locking.batch_execute("SELECT FROM job_queue WHERE family <> 'job:dot' FOR UPDATE").unwrap();
    jobs.drain();
    locking.rollback().unwrap();
    let same = "SELECT string_agg(concat_ws(' ', j.ctid, j.xmin, j), E'\\n' ORDER BY j.id) FROM job_queue j WHERE j.family <> 'job:dot'";
    let before: String = jobs.bench.one(same, &[]);
    jobs.drain();
    assert_eq!(jobs.bench.one::<String>(same, &[]), before);
    assert_eq!(jobs.bench.agent.count(), 0);
    // A family that is named is taken, and no more than that.
    jobs.bench.exec("UPDATE dot_wrapper.job_source SET families = '{job:dot,job:dotty}'");
    until("that family is taken", || {
        let sql = "SELECT count(*) FROM job_queue WHERE status = 'succeeded' AND family = 'job:dotty'";
        (jobs.bench.one::<i64>(sql, &[]) == 20).then_some(())
    });
    let waiting: i64 = jobs.bench.one("SELECT count(*) FROM job_queue WHERE status = 'queued'", &[]);
    assert_eq!(waiting, 160);
}

#[test]
fn a_job_that_somebody_has_locked_holds_up_no_other_and_comes_later() {
    let jobs = Jobs::shared();
    jobs.switch("false");
    let held = jobs.put(&json!({"code": "DOT-1"}));
    let mut session = jobs.bench.connect();
    let mut locking = session.transaction().unwrap();
    locking.execute("SELECT FROM job_queue WHERE id = $1 FOR UPDATE", &[&held]).unwrap();
    jobs.switch("true");
    jobs.drain();
    assert_eq!(jobs.job(held)["status"], "queued");
    locking.rollback().unwrap();
    jobs.bench.look();
    jobs.until(held, "succeeded");

    // And so with the outcome.
    jobs.bench.agent.reply(crate::harness::Reply::Hold);
    let held = jobs.apply("DOT-2");
    let request = jobs.bench.agent.wait_for(2).remove(1);
    jobs.until(held, "running");
    let mut locking = session.transaction().unwrap();
    locking.execute("SELECT FROM job_queue WHERE id = $1 FOR UPDATE", &[&held]).unwrap();
    jobs.bench.agent.release(&request, crate::harness::Reply::succeeded());
    jobs.bench.until(&jobs.run(held), "succeeded");
    jobs.drain();
    assert_eq!(jobs.job(held)["status"], "running");
    locking.rollback().unwrap();
    jobs.until(held, "succeeded");
}

#[test]
fn a_job_is_found_by_the_poll_where_no_trigger_tells() {
    let jobs = Jobs::on(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    jobs.bench.exec("ALTER TABLE job_queue DISABLE TRIGGER job_queue_wakes");
    jobs.drain();
}

/// Between its polls, a worker that takes jobs sleeps as soundly as one that takes none.
#[test]
fn a_worker_without_jobs_is_idle() {
    let jobs = Jobs::on(Bench::own(&["dot_wrapper.poll_interval = 1h"]));
    jobs.drain();
    let worker = jobs.bench.worker();
    // Longer than anything it does at fixed times after work.
    let sql = "SELECT state = 'idle' AND state_change < clock_timestamp() - interval '4 s' FROM pg_stat_activity WHERE pid = $1";
    until("the worker rests for 4 s", || jobs.bench.one::<bool>(sql, &[&worker]).then_some(()));
}

#[test]
fn a_copy_of_the_database_takes_no_job_before_it_is_resumed() {
    let jobs = Jobs::shared();
    jobs.switch("false");
    let id = jobs.apply("DOT-1");
    jobs.switch("true");
    jobs.until(id, "succeeded");
    jobs.switch("false");
    let id = jobs.apply("DOT-2");
    let copy = jobs.bench.copy();
    copy.exec("UPDATE dot_config SET value = 'true' WHERE key = 'queue.worker.enabled'; SELECT dot_wrapper.announce()");
    let status = |bench: &Bench| bench.one::<String>("SELECT status FROM job_queue WHERE id = $1", &[&id]);
    holds("a copy takes no job", Duration::from_millis(300), || status(&copy) == "queued");
    copy.exec("SELECT fn_dot_resume()");
    until("the copy takes it", || (status(&copy) == "succeeded").then_some(()));
    assert_eq!(status(&jobs.bench), "queued");
}

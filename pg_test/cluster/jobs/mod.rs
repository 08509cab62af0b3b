//! Jobs of the job queue as runs: taken, told how they ended, and nothing else of the table touched.
//!
//! Lives here: the bench with a job source. Does not live here: the reading of payloads (`domain::job`).

mod adopted;
mod crash;
mod hostile;
mod identity;
mod many;
mod outcomes;
mod source;
mod told;
mod untouched;
mod waits;

use serde_json::{Value, json};

use crate::harness::{Bench, Run, until};

/// A bench whose worker takes jobs of the shipped table, as a role of its own.
pub struct Jobs {
    /// The bench.
    pub bench: Bench,
    /// The role by which runs are requested.
    pub role: String,
}

impl Jobs {
    /// In the shared cluster.
    pub fn shared() -> Jobs {
        Jobs::on(Bench::shared())
    }

    /// On any bench.
    pub fn on(bench: Bench) -> Jobs {
        let role = bench.caller("jobs");
        bench.exec(&format!("INSERT INTO dot_wrapper.job_source (run_as) VALUES ('{role}')"));
        let jobs = Jobs { bench, role };
        jobs.switch("true");
        jobs
    }

    /// Sets `queue.worker.enabled`, and has the worker look.
    pub fn switch(&self, value: &str) {
        self.bench.exec(&format!(
            "UPDATE dot_config SET value = '{value}' WHERE key = 'queue.worker.enabled'; SELECT dot_wrapper.announce()"
        ));
    }

    /// A job of the family that is taken; its key.
    #[track_caller]
    pub fn put(&self, payload: &Value) -> i64 {
        self.bench.one("INSERT INTO job_queue (family, payload) VALUES ('job:dot', $1) RETURNING id", &[payload])
    }

    /// A job that applies a tool.
    #[track_caller]
    pub fn apply(&self, code: &str) -> i64 {
        self.put(&json!({"code": code}))
    }

    /// The job's row.
    #[track_caller]
    pub fn job(&self, id: i64) -> Value {
        self.bench.one("SELECT to_jsonb(j) FROM job_queue j WHERE id = $1", &[&id])
    }

    /// The job's row, as soon as its status is this.
    #[track_caller]
    pub fn until(&self, id: i64, status: &str) -> Value {
        let look = || Some(self.job(id)).filter(|job| job["status"] == status);
        let tell = || {
            let log = self.bench.cluster.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let links: Vec<String> = self.bench.all("SELECT l::text FROM dot_wrapper.job_link l", &[]);
            let queue: Vec<String> = self.bench.all("SELECT q::text FROM dot_wrapper.dot_queue q", &[]);
            let (job, runs) = (self.job(id), self.runs(id));
            format!("job {id} is {status}; it is {job}\n{runs:?}\n{links:?}\n{queue:?}\n{}", tail.join("\n"))
        };
        crate::harness::wait::until_or(look, tell)
    }

    /// The runs of a job.
    #[track_caller]
    pub fn runs(&self, id: i64) -> Vec<Run> {
        let sql =
            "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'job' AND source_ref = $1 ORDER BY run_id";
        self.bench.all(sql, &[&id.to_string()]).into_iter().map(Run).collect()
    }

    /// The one run of a job, as soon as there is one.
    #[track_caller]
    pub fn run(&self, id: i64) -> Run {
        let run = until("the job has a run", || self.runs(id).pop());
        assert_eq!(self.runs(id).len(), 1);
        run
    }

    /// How many jobs wait for a run, or are in trouble.
    pub fn links(&self) -> i64 {
        self.bench.one("SELECT count(*) FROM dot_wrapper.job_link", &[])
    }

    /// Returns when the worker has looked at the jobs that were there before: it takes them in that order.
    #[track_caller]
    pub fn drain(&self) {
        let canary = self.apply(crate::harness::agent::CANARY);
        self.until(canary, "succeeded");
    }
}

//! Their side: a database with graphile-worker's schema, jobs in it, and its process, driven through its input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use postgres::Client;

use crate::server::until;
use crate::world::World;

/// A task: its jobs are POSTed to the agent, which takes so long for them.
pub struct Task {
    /// Its name.
    pub name: &'static str,
    /// In ms.
    pub wait_ms: u32,
}

/// Options of graphile-worker that bear upon its speed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections of its pool.
    pub pool: u32,
    /// Size of its local queue; -1: none.
    pub queue: i32,
    /// How long it waits for more completions to record at once, in ms; -1: each by itself.
    pub complete_delay_ms: i32,
}

impl Options {
    /// What it is measured with; why: benches/README.md.
    pub const USED: Options = Options { pool: 10, queue: 500, complete_delay_ms: 0 };

    /// The same for so many jobs at a time: where the local queue held fewer, it would be what is measured.
    pub fn used(concurrency: usize) -> Options {
        let queue = Options::USED.queue.max(i32::try_from(2 * concurrency).unwrap_or(i32::MAX));
        Options { queue, ..Options::USED }
    }
}

/// A database of theirs. Dropped when dropped, and its worker ended.
pub struct Theirs<'w> {
    /// What it lives in.
    pub world: &'w World,
    /// Its name.
    pub name: String,
    /// A session of the superuser.
    pub session: Client,
    worker: Option<Child>,
}

impl<'w> Theirs<'w> {
    /// With the schema and nothing in it.
    pub fn new(world: &'w World) -> Theirs<'w> {
        let name = world.database();
        let session = world.server.session(&name);
        let theirs = Theirs { world, name, session, worker: None };
        let status = theirs.program().arg("migrate").stdout(Stdio::null()).status().expect("node");
        assert!(status.success(), "graphile-worker's schema could not be made");
        theirs
    }

    fn program(&self) -> Command {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; use make bench"));
        let mut command = Command::new(variable("BENCH_NODE"));
        command.arg(format!("{}/worker.mjs", variable("BENCH_GRAPHILE")));
        command.env("PGHOST", self.world.server.dir()).env("PGPORT", "5432").env("PGUSER", "postgres");
        command.env("PGDATABASE", &self.name).env("NODE_ENV", "production").env_remove("NODE_OPTIONS");
        command
    }

    /// Adds so many jobs in the way that its documentation recommends for many, a thousand in each transaction. Their
    /// payload has the members and the size of our request's body.
    pub fn add(&mut self, task: &str, count: usize) {
        let sql = "SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
                       SELECT json_populate_record(NULL::graphile_worker.job_spec, json_build_object('identifier', $3::text,
                                                   'payload', bench_payload(n)))
                       FROM generate_series($1::bigint, $2) n))";
        self.payload();
        let statement = self.session.prepare(sql).expect("a statement");
        for first in (1..=count).step_by(1000) {
            let (from, to) = (first as i64, count.min(first + 999) as i64);
            self.session.query(&statement, &[&from, &to, &task]).expect("jobs");
        }
    }

    /// Makes the function that makes a payload: what our worker sends, member by member.
    pub fn payload(&mut self) {
        let sql = "CREATE OR REPLACE FUNCTION bench_payload(n bigint) RETURNS json LANGUAGE sql VOLATILE AS $$
                       SELECT json_build_object('dot_code', 'FAST-' || (1 + n % 8), 'mode', 'apply', 'run_id', gen_random_uuid(),
                           'process_run_id', gen_random_uuid(), 'attempt', 1, 'args', json_build_object('n', n),
                           'fencing_token', n, 'deadline', '2026-01-01T00:00:00.000Z') $$";
        self.session.batch_execute(sql).expect("a function");
    }

    /// Starts the process; returns when it has loaded everything and waits for [`Theirs::go`].
    pub fn start(&mut self, tasks: &[Task], concurrency: usize) {
        self.start_with(&Options::used(concurrency), tasks, concurrency);
    }

    /// The same with other options.
    pub fn start_with(&mut self, options: &Options, tasks: &[Task], concurrency: usize) {
        let paths: serde_json::Map<_, _> = tasks
            .iter()
            .map(|task| (task.name.to_owned(), format!("/wait/{}/v1/dots/{}/runs", task.wait_ms, task.name).into()))
            .collect();
        let mut command = self.program();
        command.env("AGENT", format!("http://127.0.0.1:{}", self.world.agent.port()));
        command.env("TASKS", serde_json::Value::Object(paths).to_string());
        command.env("CONCURRENCY", concurrency.to_string()).env("POOL", options.pool.to_string());
        command.env("LOCAL_QUEUE", options.queue.to_string());
        command.env("COMPLETE_DELAY", options.complete_delay_ms.to_string());
        self.worker = Some(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node"));
        self.expect("ready");
    }

    /// Lets the process begin. Returns at once.
    pub fn go(&mut self) {
        let input = self.worker.as_mut().and_then(|worker| worker.stdin.as_mut()).expect("a worker");
        input.write_all(b"go\n").expect("a worker that listens");
    }

    /// Returns when the process has said that it works.
    pub fn working(&mut self) {
        self.expect("working");
    }

    fn expect(&mut self, word: &str) {
        let output = self.worker.as_mut().and_then(|worker| worker.stdout.as_mut()).expect("a worker");
        let mut line = String::new();
        BufReader::with_capacity(1, output).read_line(&mut line).expect("a worker that speaks");
        assert_eq!(line.trim_end(), word, "graphile-worker's process");
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.worker.as_ref().map_or(0, |worker| worker.id().cast_signed())
    }

    /// Its sessions' processes.
    pub fn backends(&mut self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.session.query(sql, &[]).expect("a query").iter().map(|row| row.get(0)).collect()
    }

    /// Ends the process.
    pub fn stop(&mut self) {
        let Some(mut worker) = self.worker.take() else { return };
        drop(worker.stdin.take());
        let mut left = 2000;
        until("graphile-worker has stopped", || {
            left -= 1;
            if left == 0 {
                let _ = worker.kill();
            }
            worker.try_wait().expect("a process").is_some()
        });
    }

    /// Waits until no job is left.
    pub fn until_idle(&mut self) {
        let sql = "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)";
        let left = self.session.prepare(sql).expect("a statement");
        until("all jobs are gone", || !self.session.query_one(&left, &[]).expect("a query").get::<_, bool>(0));
    }

    /// Every job was sent exactly once, as far as the agent saw.
    pub fn verify(&self, expected: usize) {
        let seen = self.world.agent.seen();
        assert_eq!(seen.len(), expected, "jobs that the agent saw");
        assert!(seen.values().all(|seen| seen.times == 1), "a job was sent twice");
    }
}

impl Drop for Theirs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut worker) = self.worker.take() {
                let _ = worker.kill();
            }
            return;
        }
        self.stop();
        self.world.drop_database(&self.name);
    }
}

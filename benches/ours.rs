//! Our side: a database with the extension, tools that may be run, and a worker that is switched on and off.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};

use postgres::Client;
use uuid::Uuid;

use crate::server::until;
use crate::world::World;

/// Tools of one endpoint, `FAST-1` and so on.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What its tools' codes begin with; also its endpoint's name, in small letters.
    pub name: &'static str,
    /// How many tools.
    pub tools: usize,
    /// How long the agent takes for them, in ms.
    pub wait_ms: u32,
    /// Each may have all calls that there are; otherwise they share as the defaults say.
    pub all_calls: bool,
}

/// A database of ours. Dropped when dropped.
pub struct Ours<'w> {
    /// What it lives in.
    pub world: &'w World,
    /// Its name.
    pub name: String,
    /// A session of the superuser.
    pub session: Client,
    requested: usize,
}

impl<'w> Ours<'w> {
    /// With these tools, and so many calls in flight. Each run has a lease of its own: `bench:{args.n}`.
    pub fn new(world: &'w World, kinds: &[Kind], in_flight: usize) -> Ours<'w> {
        let name = world.database();
        world.server.set("dot_wrapper.max_in_flight", Some(&in_flight.to_string()));
        world.server.set("dot_wrapper.max_queued", Some("0"));
        let mut session = world.server.session(&name);
        let port = world.agent.port();
        let sql = format!(
            "CREATE EXTENSION dot_wrapper;
             INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
             DELETE FROM dot_config WHERE key IN ('iu_core.operator_runtime_enabled', 'fs_snapshot_present');
             INSERT INTO dot_config (key, value) VALUES ('iu_core.operator_runtime_enabled', 'true'), ('fs_snapshot_present', '1');
             INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('engine', 'agent_api', 'bench:{{args.n}}')"
        );
        session.batch_execute(&sql).expect("the extension");
        let mut ours = Ours { world, name, session, requested: 0 };
        for kind in kinds {
            ours.furnish(kind, in_flight);
        }
        ours
    }

    fn furnish(&mut self, kind: &Kind, in_flight: usize) {
        let (name, tools, wait) = (kind.name, kind.tools, kind.wait_ms);
        let (endpoint, port) = (name.to_lowercase(), self.world.agent.port());
        let most = if kind.all_calls { in_flight.to_string() } else { "NULL".to_owned() };
        let sql = format!(
            "INSERT INTO dot_wrapper.endpoint (name, base_url, path) VALUES
                 ('{endpoint}', 'http://127.0.0.1:{port}', '/wait/{wait}/v1/dots/{{code}}/runs');
             INSERT INTO dot_tools (code, name, status, execution_engine)
                 SELECT '{name}-' || n, 'a tool', 'active', 'agent_api' FROM generate_series(1, {tools}) n;
             INSERT INTO dot_wrapper.policy (scope, name, endpoint, max_in_flight)
                 SELECT 'tool', '{name}-' || n, '{endpoint}', {most} FROM generate_series(1, {tools}) n"
        );
        self.session.batch_execute(&sql).expect("tools");
    }

    /// Requests so many applies of a kind's tools in turn, a thousand in each transaction; where there are many, with a
    /// session for each core.
    pub fn request(&mut self, kind: &Kind, count: usize) {
        let (first, end) = (self.requested as i64 + 1, (self.requested + count) as i64);
        self.requested += count;
        let next = AtomicI64::new(first);
        if count <= 2000 {
            return request(&mut self.session, kind, &next, end);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| request(&mut self.world.server.session(&self.name), kind, &next, end));
            }
        });
    }

    /// Switches the worker on or off. Off: returns when it is gone. On: returns at once.
    pub fn switch(&mut self, on: bool) {
        self.world.server.set("dot_wrapper.worker_enabled", (!on).then_some("off"));
        if !on {
            until("the worker is gone", || self.worker().is_none());
        }
    }

    /// The worker's pid.
    pub fn worker(&mut self) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND datname = current_database()";
        self.session.query_opt(sql, &[]).expect("a query").map(|row| row.get(0))
    }

    /// Waits until there is a worker; its pid.
    pub fn await_worker(&mut self) -> i32 {
        let mut found = None;
        until("there is a worker", || {
            found = self.worker();
            found.is_some()
        });
        found.expect("a pid")
    }

    /// Waits until nothing is left to do: no run that is not over, no lease that is not released.
    pub fn until_idle(&mut self) {
        let sql = "SELECT EXISTS (SELECT FROM dot_wrapper.dot_queue) OR EXISTS (SELECT FROM dot_iu_runtime_lease)";
        let left = self.session.prepare(sql).expect("a statement");
        until("all runs are over", || !self.session.query_one(&left, &[]).expect("a query").get::<_, bool>(0));
    }

    /// Waits until the worker has sealed every event.
    pub fn until_sealed(&mut self) {
        let sql = "SELECT coalesce((SELECT h.high FROM dot_wrapper.seal_head h), 0)
                          >= coalesce((SELECT e.event_id FROM dot_wrapper.dot_run_event e ORDER BY 1 DESC LIMIT 1), 0)";
        let sealed = self.session.prepare(sql).expect("a statement");
        until("all events are sealed", || self.session.query_one(&sealed, &[]).expect("a query").get(0));
    }

    /// Holds the ledger, and what the agent saw since it last forgot, against each other: every run since `after` has
    /// succeeded with one intent, its three events and no lease left, and was sent exactly once.
    pub fn verify(&mut self, after: Option<Uuid>, expected: usize) {
        let after = after.unwrap_or(Uuid::nil());
        let sql = "SELECT count(*) FILTER (WHERE r.run_status <> 'succeeded' OR r.finished_at IS NULL OR r.fencing_token IS NULL),
                          count(*) FILTER (WHERE a.n IS DISTINCT FROM 1),
                          count(*) FILTER (WHERE e.names IS DISTINCT FROM '{queued,running,succeeded}')
                   FROM dot_wrapper.dot_run r
                   LEFT JOIN (SELECT run_id, count(*) AS n FROM dot_wrapper.dot_run_attempt WHERE run_id > $1 GROUP BY 1) a USING (run_id)
                   LEFT JOIN (SELECT run_id, array_agg(event ORDER BY event_id) AS names FROM dot_wrapper.dot_run_event
                              WHERE run_id > $1 GROUP BY 1) e USING (run_id)
                   WHERE r.run_id > $1";
        let row = self.session.query_one(sql, &[&after]).expect("the ledger");
        let wrong: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        assert_eq!(wrong, [0; 3], "runs that have not succeeded, without their intent, without their events");
        let left = "SELECT (SELECT count(*) FROM dot_iu_runtime_lease) + (SELECT count(*) FROM dot_wrapper.dot_queue)";
        assert_eq!(
            self.session.query_one(left, &[]).expect("leases").get::<_, i64>(0),
            0,
            "leases and queue rows are left"
        );
        let runs =
            self.session.query("SELECT run_id FROM dot_wrapper.dot_run WHERE run_id > $1", &[&after]).expect("runs");
        let runs: HashSet<u128> = runs.iter().map(|row| row.get::<_, Uuid>(0).as_u128()).collect();
        let seen = self.world.agent.seen();
        assert_eq!(runs.len(), expected, "runs in the ledger");
        assert_eq!(seen.len(), expected, "runs that the agent saw");
        assert!(
            seen.iter().all(|(run, seen)| runs.contains(run) && seen.times == 1),
            "the agent saw what it should not"
        );
    }

    /// The last run so far.
    pub fn last(&mut self) -> Option<Uuid> {
        let sql = "SELECT run_id FROM dot_wrapper.dot_run ORDER BY run_id DESC LIMIT 1";
        self.session.query_opt(sql, &[]).expect("the ledger").map(|row| row.get(0))
    }
}

/// Takes thousands of numbers as long as there are any, and requests a run for each.
fn request(session: &mut Client, kind: &Kind, next: &AtomicI64, end: i64) {
    let sql = "SELECT count(*) FROM generate_series($1::bigint, $2) n,
                   LATERAL fn_dot_run($3 || '-' || (1 + n % $4), 'apply', args => jsonb_build_object('n', n)) r
               WHERE r.run_status = 'queued'";
    let statement = session.prepare(sql).expect("a statement");
    loop {
        let from = next.fetch_add(1000, Ordering::Relaxed);
        if from > end {
            return;
        }
        let (to, tools) = (end.min(from + 999), kind.tools as i64);
        let queued: i64 = session.query_one(&statement, &[&from, &to, &kind.name, &tools]).expect("runs").get(0);
        assert_eq!(queued, to - from + 1, "runs were refused");
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.drop_database(&self.name);
        }
    }
}

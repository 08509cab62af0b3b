//! One database, ready to run tools: the extension, a few tools, an agent that may be called, and open gates.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postgres::Client;
use postgres::error::DbError;
use postgres::types::{FromSqlOwned, ToSql};
use uuid::Uuid;

use super::agent::{Agent, CANARY};
use super::cluster::Cluster;
use super::run::{Ask, Run};
use super::{os, until};

/// The tools of every bench, besides the canary.
pub const TOOLS: [&str; 6] = ["DOT-1", "DOT-2", "DOT-3", "DOT-4", "DOT-5", "DOT-6"];

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A database and an agent. The database is dropped with it.
pub struct Bench {
    /// The server.
    pub cluster: Arc<Cluster>,
    /// The database.
    pub name: String,
    /// The agent that its endpoint names.
    pub agent: Agent,
    session: Mutex<Option<Client>>,
}

impl Bench {
    /// In the cluster that is shared; for tests that neither crash it nor change its settings.
    pub fn shared() -> Bench {
        Bench::on(Cluster::shared())
    }

    /// In a cluster of its own, with lines for its configuration.
    pub fn own(conf: &[&str]) -> Bench {
        Bench::on(Arc::new(Cluster::start(conf, &[])))
    }

    /// In any cluster.
    pub fn on(cluster: Arc<Cluster>) -> Bench {
        let bench = Bench::empty(cluster);
        bench.exec("CREATE EXTENSION dot_wrapper");
        bench.furnish();
        bench
    }

    /// A database without the extension.
    pub fn empty(cluster: Arc<Cluster>) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Bench::named(cluster, format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// As [`Bench::empty`], under a name that something else knows.
    pub fn named(cluster: Arc<Cluster>, name: String) -> Bench {
        cluster.connect("postgres").batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
        let session = Mutex::new(Some(cluster.connect(&name)));
        Bench { cluster, name, agent: Agent::start(), session }
    }

    /// A copy of this database, made from it as a template. Its endpoint still names this bench's agent.
    #[track_caller]
    pub fn copy(&self) -> Bench {
        self.forget_session();
        let name = format!("{}_copy", self.name);
        let sql = format!("CREATE DATABASE {name} TEMPLATE {}", self.name);
        self.cluster.connect("postgres").batch_execute(&sql).expect("a copy");
        let session = Mutex::new(Some(self.cluster.connect(&name)));
        Bench { cluster: Arc::clone(&self.cluster), name, agent: Agent::start(), session }
    }

    /// Tools, endpoint, egress rule and policy; toggle and guard let through. The endpoint's breaker does not open, since
    /// most tests' agents misbehave.
    pub fn furnish(&self) {
        let (tools, port) = (TOOLS.join("'), ('"), self.agent.port());
        self.exec(&format!(
            "INSERT INTO dot_tools (code, name, status, execution_engine)
                 SELECT c, lower(c), 'active', 'agent_api' FROM (VALUES ('{tools}'), ('{CANARY}')) AS t (c);
             INSERT INTO dot_wrapper.endpoint (name, base_url, breaker_failures) VALUES ('agent', 'http://127.0.0.1:{port}', 0);
             INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs)
                 VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
             INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes)
                 VALUES ('engine', 'agent_api', 'agent', '{{verify,apply}}');
             INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', '{CANARY}', 'none');"
        ));
        self.open();
    }

    /// Toggle and guard let through.
    pub fn open(&self) {
        self.exec(
            "DELETE FROM dot_config WHERE key IN ('iu_core.operator_runtime_enabled', 'fs_snapshot_present');
             INSERT INTO dot_config (key, value) VALUES ('iu_core.operator_runtime_enabled', 'true'), ('fs_snapshot_present', '1')",
        );
    }

    /// The bench's own session, a superuser's.
    pub fn session(&self) -> Session<'_> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.as_ref().is_none_or(Client::is_closed) {
            *session = Some(self.connect());
        }
        Session(session)
    }

    /// Another session of a superuser.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.cluster.connect(&self.name)
    }

    /// A session of an ordinary role.
    #[track_caller]
    pub fn connect_as(&self, user: &str) -> Client {
        self.cluster.connect_as(&self.name, user).expect("a connection")
    }

    /// Runs statements.
    #[track_caller]
    pub fn exec(&self, sql: &str) {
        if let Err(error) = self.session().batch_execute(sql) {
            panic!("{error:?} in: {}", sql.chars().take(300).collect::<String>());
        }
    }

    /// The one value that a query gives.
    #[track_caller]
    pub fn one<T: FromSqlOwned>(&self, sql: &str, params: Params<'_>) -> T {
        match self.session().query_one(sql, params) {
            Ok(row) => row.get(0),
            Err(error) => panic!("{error:?} in: {sql}"),
        }
    }

    /// The first column of all rows.
    #[track_caller]
    pub fn all<T: FromSqlOwned>(&self, sql: &str, params: Params<'_>) -> Vec<T> {
        match self.session().query(sql, params) {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => panic!("{error:?} in: {sql}"),
        }
    }

    /// The error that statements must raise.
    #[track_caller]
    pub fn error(&self, sql: &str) -> DbError {
        db_error(self.session().batch_execute(sql).expect_err(sql))
    }

    /// Calls `fn_dot_run`, in a transaction of its own.
    #[track_caller]
    pub fn ask(&self, ask: &Ask<'_>) -> Run {
        match ask.on(&mut *self.session()) {
            Ok(run) => run,
            Err(error) => panic!("{error:?} for {ask:?}"),
        }
    }

    /// An apply without arguments.
    #[track_caller]
    pub fn apply(&self, code: &str) -> Run {
        self.ask(&Ask::new(code, "apply"))
    }

    /// A verify without arguments.
    #[track_caller]
    pub fn verify(&self, code: &str) -> Run {
        self.ask(&Ask::new(code, "verify"))
    }

    /// The run as the ledger has it now.
    #[track_caller]
    pub fn run(&self, id: Uuid) -> Run {
        Run(self.one("SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE run_id = $1", &[&id]))
    }

    /// The run, as soon as it is in this state.
    #[track_caller]
    pub fn until(&self, run: &Run, status: &str) -> Run {
        let id = run.id();
        let tell = || {
            let now = self.run(id);
            let what = format!("{} run {id} is {status}", run.text("code"));
            format!("{what}; it is {}: {}\n{}", now.status(), now.text("message"), tail(&self.cluster.log()))
        };
        super::wait::until_or(|| Some(self.run(id)).filter(|run| run.status() == status), tell)
    }

    /// Returns when the worker has looked at everything that was committed before: it works in that order.
    #[track_caller]
    pub fn drain(&self) {
        let canary = self.apply(CANARY);
        assert_eq!(canary.status(), "queued", "{canary:?}");
        self.until(&canary, "succeeded");
    }

    /// Wakes the worker and returns when it has looked, whatever it made of what it saw.
    #[track_caller]
    pub fn look(&self) {
        let worker = self.worker();
        let sql = "SELECT state = 'idle' AND state_change > $2::text::timestamptz FROM pg_stat_activity WHERE pid = $1";
        let now: String = self.one("SELECT clock_timestamp()::text FROM dot_wrapper.announce()", &[]);
        until("the worker has looked", || self.one::<bool>(sql, &[&worker, &now]).then_some(()));
    }

    /// The names of a run's events, in order.
    #[track_caller]
    pub fn events(&self, run: &Run) -> Vec<String> {
        self.all("SELECT event FROM dot_wrapper.dot_run_event WHERE run_id = $1 ORDER BY event_id", &[&run.id()])
    }

    /// The gate that blocked at a stage, and its reason.
    #[track_caller]
    pub fn block(&self, run: &Run, stage: &str) -> (String, String) {
        let sql =
            "SELECT gate || ' ' || reason FROM dot_run_gate WHERE run_id = $1 AND stage = $2 AND verdict = 'BLOCK'";
        let found: String = self.one(sql, &[&run.id(), &stage]);
        let (gate, reason) = found.split_once(' ').unwrap();
        (gate.to_owned(), reason.to_owned())
    }

    /// Makes a role that may log in and nothing else; its name, which is this bench's own.
    #[track_caller]
    pub fn role(&self, name: &str) -> String {
        let role = format!("{}_{name}", self.name);
        self.exec(&format!("CREATE ROLE {role} LOGIN"));
        role
    }

    /// Crashes the whole server, and starts it again.
    #[track_caller]
    pub fn crash(&self) {
        self.cluster.stop("immediate");
        self.cluster.start_again();
        self.forget_session();
    }

    /// The next use of the bench's session opens a new one.
    pub fn forget_session(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The pid of the worker, as soon as there is one.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        until("there is a worker", || self.worker_now())
    }

    /// The pid of the worker, if there is one.
    pub fn worker_now(&self) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND datname = $1";
        self.cluster.connect("postgres").query_opt(sql, &[&self.name]).expect("a query").map(|row| row.get(0))
    }

    /// Kills a process of the server with SIGKILL and returns when the server has recovered from it.
    #[track_caller]
    pub fn kill(&self, pid: i32) {
        let mut witness = self.connect();
        assert!(os::signal(pid, "KILL"), "no process {pid}");
        until("the server has noticed", || witness.batch_execute("").is_err().then_some(()));
        until("the server is back", || self.cluster.connect_as(&self.name, "postgres").ok());
        self.forget_session();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.agent.close();
        self.forget_session();
        // A cluster of its own goes as a whole.
        if Arc::strong_count(&self.cluster) > 1
            && let Ok(mut session) = self.cluster.connect_as("postgres", "postgres")
        {
            let _ = session.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// The bench's session while it is in use.
pub struct Session<'a>(MutexGuard<'a, Option<Client>>);

impl std::ops::Deref for Session<'_> {
    type Target = Client;
    fn deref(&self) -> &Client {
        self.0.as_ref().expect("an open session")
    }
}

impl std::ops::DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.0.as_mut().expect("an open session")
    }
}

/// What the server said.
#[track_caller]
pub fn db_error(error: postgres::Error) -> DbError {
    error.as_db_error().unwrap_or_else(|| panic!("not the server's error: {error:?}")).clone()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

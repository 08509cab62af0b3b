//! One PostgreSQL server of the storm: with fsync, and one database that tolerates being asked while it is down.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use super::harness::{home, os, until};

/// The database.
pub const DATABASE: &str = "storm";

/// A data directory and the server on it. Removed when dropped.
pub struct Server {
    dir: PathBuf,
}

impl Server {
    /// A new, empty one.
    pub fn start() -> Server {
        let server = Server { dir: home::new_cluster() };
        server.configure(&[
            "listen_addresses = ''",
            "shared_preload_libraries = 'dot_wrapper'",
            "dot_wrapper.poll_interval = '1s'",
            "max_connections = 60",
            "max_prepared_transactions = 40",
            "shared_buffers = 32MB",
            "log_checkpoints = off",
            "log_line_prefix = '%m [%p] %b '",
            "wal_level = replica",
        ]);
        server.start_again();
        let mut session = server.session("postgres", "postgres").expect("a new server lets in");
        session.batch_execute(&format!("CREATE DATABASE {DATABASE}")).expect("a database");
        server
    }

    fn configure(&self, lines: &[&str]) {
        let file = std::fs::OpenOptions::new().append(true).open(self.dir.join("data/postgresql.conf"));
        let text = format!("unix_socket_directories = '{}'\n{}\n", self.dir.display(), lines.join("\n"));
        file.expect("a configuration").write_all(text.as_bytes()).expect("room on the disk");
    }

    /// A copy that follows this one. It is not started.
    pub fn standby(&self) -> Server {
        let standby = Server { dir: home::new_cluster() };
        let data = standby.dir.join("data");
        os::run(os::as_server("rm").arg("-rf").arg(&data));
        let mut copy = os::pg("pg_basebackup");
        copy.env("PGHOST", &self.dir)
            .env("PGUSER", "postgres")
            .args(["-R", "-c", "fast", "--no-sync", "-D"])
            .arg(&data);
        os::run(&mut copy);
        standby.configure(&[]);
        standby
    }

    /// Starts it. After a kill its children need a moment to go; until then a start is refused.
    pub fn start_again(&self) {
        let mut tries = 0;
        until("the server starts", || {
            tries += 1;
            let started = self.pg_ctl(&["-l", &self.dir.join("log").to_string_lossy(), "-w", "start"]);
            assert!(started || tries < 400, "the server does not start:\n{}", self.log_tail(30));
            started.then_some(())
        });
    }

    /// Stops it, `fast` or `immediate`; fine if it is down.
    pub fn stop(&self, mode: &str) {
        self.pg_ctl(&["-m", mode, "-w", "stop"]);
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        assert!(self.pg_ctl(&["-w", "promote"]), "the standby is not promoted:\n{}", self.log_tail(30));
    }

    fn pg_ctl(&self, arguments: &[&str]) -> bool {
        let mut command = os::pg("pg_ctl");
        command.arg("-D").arg(self.dir.join("data")).args(["-s", "-t", "60"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl").success()
    }

    /// The postmaster's pid.
    pub fn postmaster(&self) -> Option<i32> {
        let file = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// A session, if the server lets in.
    pub fn session(&self, database: &str, user: &str) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.dir).port(5432).dbname(database).user(user).application_name("storm");
        config.connect(NoTls)
    }

    /// A session of the superuser in the database, as soon as the server lets in.
    pub fn admin(&self) -> Client {
        until("the server lets in", || self.session(DATABASE, "postgres").ok())
    }

    /// Does something with a session of the superuser, again if the server goes down under it.
    pub fn surely<T>(&self, what: &str, mut act: impl FnMut(&mut Client) -> Result<T, postgres::Error>) -> T {
        until(what, || act(&mut self.session(DATABASE, "postgres").ok()?).ok())
    }

    /// Lines for postgresql.auto.conf, in force for new work when it returns.
    pub fn set(&self, name: &str, value: &str) {
        self.surely("a setting is changed", |session| {
            session.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'"))?;
            session.batch_execute("SELECT pg_reload_conf()")
        });
    }

    /// The worker's pid.
    pub fn worker(&self) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND datname = $1";
        self.session("postgres", "postgres").ok()?.query_opt(sql, &[&DATABASE]).ok()?.map(|row| row.get(0))
    }

    /// The worker's pid as soon as there is one, within a few seconds.
    pub fn worker_soon(&self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.worker() {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                found => return found,
            }
        }
    }

    /// The process that came by a fail point's entry first.
    pub fn reached(&self, entry: &str) -> Option<i32> {
        let journal = std::fs::read_to_string(self.dir.join("data/dot_wrapper.fail_points")).unwrap_or_default();
        let (_, pid) = journal.lines().filter_map(|line| line.rsplit_once('\t')).find(|(text, _)| *text == entry)?;
        pid.parse().ok()
    }

    /// A client program, pointed at it.
    pub fn client(&self, program: &str) -> std::process::Command {
        let mut command = os::pg(program);
        command.env("PGHOST", &self.dir).env("PGPORT", "5432").env("PGUSER", "postgres");
        command
    }

    /// The server's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// The end of the server's log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What the server said outlives it, for whoever has to find out.
        if let Some(kept) = std::env::var_os("KEEP_LOG") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(kept);
            let _ = file.and_then(|mut file| file.write_all(self.log().as_bytes()));
        }
        if self.dir.join("data/postmaster.pid").exists() {
            self.stop("immediate");
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

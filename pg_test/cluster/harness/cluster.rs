//! One server: started, stopped, crashed, and removed when dropped. Databases in it are `bench`'s business.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use postgres::{Client, Config, NoTls};

use super::{home, os, until};

/// A cluster of its own, with the library preloaded.
pub struct Cluster {
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Cluster {
    /// The one that all tests share which neither crash it nor change its settings. Removed when the process ends.
    pub fn shared() -> Arc<Cluster> {
        static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| {
            let cluster = Cluster::start(&[], &[]);
            // Leaves the worker's role, which belongs to the cluster.
            cluster
                .connect("postgres")
                .batch_execute("CREATE EXTENSION dot_wrapper; DROP EXTENSION dot_wrapper")
                .unwrap();
            Arc::new(cluster)
        }))
    }

    /// A new one, with lines for postgresql.conf and variables for the server's environment.
    pub fn start(conf: &[&str], env: &[(&str, &str)]) -> Cluster {
        let dir = home::new_cluster();
        os::run(os::as_server("mkdir").arg(dir.join("secrets")));
        let shown = dir.display();
        let mut lines = vec![
            "listen_addresses = ''".to_owned(),
            format!("unix_socket_directories = '{shown}'"),
            "shared_preload_libraries = 'dot_wrapper'".to_owned(),
            format!("dot_wrapper.secrets_dir = '{shown}/secrets'"),
            "fsync = off".to_owned(),
            "autovacuum = off".to_owned(),
            "log_checkpoints = off".to_owned(),
            "max_connections = 60".to_owned(),
            "max_worker_processes = 40".to_owned(),
            "shared_buffers = 16MB".to_owned(),
        ];
        lines.extend(conf.iter().map(|line| (*line).to_owned()));
        let file = std::fs::OpenOptions::new().append(true).open(dir.join("data/postgresql.conf"));
        writeln!(file.expect("the template's file"), "{}", lines.join("\n")).expect("room on the disk");
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cluster = Cluster { dir, env };
        cluster.start_again();
        cluster
    }

    /// A hot standby of this one, streaming from it under the name `standby`; not started yet.
    pub fn standby(&self, conf: &[&str]) -> Cluster {
        let dir = home::new_folder();
        let mut backup = self.client("pg_basebackup", "postgres");
        backup.env_remove("PGDATABASE").args(["-R", "-c", "fast", "-d", "application_name=standby"]);
        os::run(backup.arg("-D").arg(dir.join("data")));
        let mut lines = vec![format!("unix_socket_directories = '{}'", dir.display())];
        lines.extend(conf.iter().map(|line| (*line).to_owned()));
        let file = std::fs::OpenOptions::new().append(true).open(dir.join("data/postgresql.conf"));
        writeln!(file.expect("the copied file"), "{}", lines.join("\n")).expect("room on the disk");
        Cluster { dir, env: self.env.clone() }
    }

    /// Makes a standby a primary; returns when it is one.
    #[track_caller]
    pub fn promote(&self) {
        assert!(self.pg_ctl(&["-w", "promote"]), "the standby is not promoted");
    }

    /// Starts it after a stop or a crash.
    #[track_caller]
    pub fn start_again(&self) {
        until("the server starts", || {
            // After a kill of the postmaster, it and its children need a moment to go; until then a start is refused.
            let old = std::fs::metadata(self.log_path()).map_or(0, |meta| meta.len() as usize);
            if self.pg_ctl(&["-l", &self.log_path().to_string_lossy(), "-w", "start"]) {
                return Some(());
            }
            let log = self.log();
            let refused = log.get(old..).unwrap_or_default();
            let early = refused.contains("is still in use") || refused.contains("already exists");
            assert!(early, "the server does not start: {refused}");
            None
        });
    }

    /// Stops it: `fast` or `immediate`. Returns when it is down.
    #[track_caller]
    pub fn stop(&self, mode: &str) {
        assert!(self.pg_ctl(&["-m", mode, "-w", "stop"]), "the server does not stop");
    }

    fn pg_ctl(&self, arguments: &[&str]) -> bool {
        let mut command = os::pg("pg_ctl");
        command.arg("-D").arg(self.dir.join("data")).args(["-s", "-t", "60"]).args(arguments);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl").success()
    }

    /// The postmaster's pid.
    pub fn postmaster(&self) -> i32 {
        let file = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).expect("a running server");
        file.lines().next().unwrap().parse().expect("a pid")
    }

    /// A session of a superuser.
    #[track_caller]
    pub fn connect(&self, database: &str) -> Client {
        self.connect_as(database, "postgres").expect("a connection")
    }

    /// A session of any role.
    pub fn connect_as(&self, database: &str, user: &str) -> Result<Client, postgres::Error> {
        self.config(database, user).connect(NoTls)
    }

    /// How to get one, for who wants to hear the server's notices.
    pub fn config(&self, database: &str, user: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).port(5432).dbname(database).user(user).application_name("cluster test");
        config
    }

    /// A client program, pointed at a database.
    pub fn client(&self, program: &str, database: &str) -> std::process::Command {
        let mut command = os::pg(program);
        command.env("PGHOST", &self.dir).env("PGPORT", "5432").env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }

    /// Changes settings in the server's configuration, and waits until all sessions have been told.
    pub fn set(&self, settings: &[(&str, &str)]) {
        let mut session = self.connect("postgres");
        for (name, value) in settings {
            session.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
        }
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = session.query_one(loaded, &[]).unwrap().get(0);
        session.batch_execute("SELECT pg_reload_conf()").unwrap();
        until("the settings are in force", || {
            let now: String = session.query_one(loaded, &[]).unwrap().get(0);
            (now != before).then_some(())
        });
    }

    /// The folder of secrets.
    pub fn write_secret(&self, name: &str, value: &str) {
        home::write(&self.dir.join("secrets").join(name), value);
    }

    /// A folder for whatever a test wants to keep with the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.dir.join("data/postmaster.pid").exists() {
            self.pg_ctl(&["-m", "immediate", "-w", "stop"]);
        }
        // What is left now, the home's reaper removes.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

//! The one PostgreSQL server that both sides use: private, on a socket of its own, with default durability.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use crate::harness::{home, os};

/// What differs from the defaults, and why: benches/README.md. The same for both sides.
pub const SETTINGS: [(&str, &str); 6] = [
    ("listen_addresses", "''"),
    ("shared_preload_libraries", "'dot_wrapper'"),
    ("max_connections", "200"),
    ("shared_buffers", "'1GB'"),
    ("max_wal_size", "'4GB'"),
    ("checkpoint_timeout", "'15min'"),
];

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A server. Removed when dropped.
pub struct Server {
    dir: PathBuf,
}

impl Server {
    /// A new one.
    pub fn start() -> Server {
        let server = Server { dir: home::new_cluster() };
        let mut lines = format!("unix_socket_directories = '{}'\n", server.dir.display());
        lines.extend(SETTINGS.iter().map(|(name, value)| format!("{name} = {value}\n")));
        let file = std::fs::OpenOptions::new().append(true).open(server.dir.join("data/postgresql.conf"));
        file.expect("a configuration").write_all(lines.as_bytes()).expect("room on the disk");
        assert!(server.pg_ctl(&["-l", &server.dir.join("log").to_string_lossy(), "-w", "start"]), "{}", server.log());
        server
    }

    fn pg_ctl(&self, arguments: &[&str]) -> bool {
        let mut command = os::pg("pg_ctl");
        command.arg("-D").arg(self.dir.join("data")).args(["-s", "-t", "120"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl").success()
    }

    /// The folder of its socket, its log and its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A session of the superuser.
    pub fn session(&self, database: &str) -> Client {
        let mut config = Config::new();
        config.host_path(&self.dir).port(5432).dbname(database).user("postgres").application_name("bench");
        config.connect(NoTls).unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    /// Changes a setting of the whole server; `None` puts it back. Returns when all sessions have been told.
    pub fn set(&self, name: &str, value: Option<&str>) {
        let mut session = self.session("postgres");
        let change = value.map_or(format!("RESET {name}"), |value| format!("SET {name} = '{value}'"));
        session.batch_execute(&format!("ALTER SYSTEM {change}")).expect("a setting");
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = session.query_one(loaded, &[]).expect("a time").get(0);
        session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
        until("the settings are in force", || {
            session.query_one(loaded, &[]).expect("a time").get::<_, String>(0) != before
        });
    }

    /// The server's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the server's log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        self.pg_ctl(&["-m", "immediate", "-w", "stop"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Looks every 5 ms until it is so.
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < end, "it took too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

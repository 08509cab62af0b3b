//! PostgreSQL's own pgbench, for figures of many connections: one script, prepared statements, transactions a second once
//! it is warm. Knows nothing of what the script does.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{home, os};
use crate::ours::Ours;
use crate::process;
use crate::server::until;

/// Of each measurement, not counted: sessions prepare their plans.
const WARM_S: u64 = 2;

/// A script in a file.
pub struct Script {
    file: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transactions a second, after the first two seconds.
    pub tps: f64,
    /// What the sessions spent of the processors for a transaction, in µs: from their start to their end.
    pub cpu_us: f64,
    /// Bytes of WAL of a transaction.
    pub wal_bytes: f64,
}

/// Whether the server under test has it: a server from elsewhere may not.
pub fn is_there() -> bool {
    os::try_run(os::pg("pgbench").arg("--version")).is_ok()
}

impl Script {
    /// With texts that it uses as `:name`.
    pub fn new(ours: &Ours, name: &str, script: &str, variables: &[(&'static str, String)]) -> Script {
        let file = ours.world.server.dir().join(format!("{name}.pgbench"));
        home::write(&file, script);
        Script { file, variables: variables.to_vec() }
    }

    /// Runs it on so many connections, for so many seconds besides those in which it gets warm.
    pub fn run(&self, ours: &mut Ours, connections: u32, seconds: u64) -> Measured {
        let server = &ours.world.server;
        ours.world.settle();
        let postmaster = process::postmaster(server.dir());
        let (cpu, wal) = (process::children_ms(postmaster), wal(ours));
        let (connections, length) = (connections.to_string(), (seconds + WARM_S).to_string());
        let mut command = os::pg("pgbench");
        command.env("PGHOST", ours.world.server.dir()).env("PGPORT", "5432").env("PGUSER", "postgres");
        command.args(["-n", "-M", "prepared", "-P", "1", "-j", if connections == "1" { "1" } else { "2" }]);
        command.args(["-c", &connections, "-T", &length, "-f"]).arg(&self.file);
        for (name, value) in &self.variables {
            command.arg("-D").arg(format!("{name}={value}"));
        }
        let output = command.arg(&ours.name).output().expect("pgbench");
        let (out, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{progress}");
        let done = number_after(&out, "actually processed: ").expect("a count");
        // The postmaster has the times of sessions only once they are gone; statistics are told at their end, too.
        let gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pgbench')";
        until("the sessions are gone", || ours.session.query_one(gone, &[]).expect("a query").get(0));
        std::thread::sleep(Duration::from_millis(100));
        let (cpu, wal) = (process::children_ms(postmaster) - cpu, self::wal(ours) - wal);
        Measured { tps: warm(&progress).expect("its progress"), cpu_us: cpu * 1e3 / done, wal_bytes: wal / done }
    }
}

fn wal(ours: &mut Ours) -> f64 {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    ours.session.query_one(sql, &[]).expect("a position").get(0)
}

/// The mean of the progress after the first seconds.
fn warm(progress: &str) -> Option<f64> {
    let line = |line: &str| Some((number_after(line, "progress: ")?, number_after(line, " s, ")?));
    let rates: Vec<f64> =
        progress.lines().filter_map(line).filter(|(at, _)| *at > WARM_S as f64 + 0.5).map(|(_, tps)| tps).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

fn number_after(text: &str, what: &str) -> Option<f64> {
    let rest = text.split_once(what)?.1;
    rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.parse().ok()
}

//! The machine and the versions, as far as they bear upon the figures.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::server::SETTINGS;
use crate::stats::median;
use crate::world::World;

/// All of them.
pub fn facts(world: &World) -> Value {
    let mut session = world.server.session("postgres");
    let server: String = session.query_one("SELECT version()", &[]).expect("a version").get(0);
    let settings: serde_json::Map<_, _> =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": field("/proc/cpuinfo", "model name"),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load_before": read("/proc/loadavg"),
        "fsync_ms": fsync_ms(world),
        "postgresql": server,
        "settings": settings,
        "node": told(Command::new(std::env::var("BENCH_NODE").unwrap_or_default()).arg("--version")),
        "graphile_worker": graphile(),
        "dot_wrapper": told(Command::new("git").args(["describe", "--always", "--dirty"])),
        "date": told(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
}

fn told(command: &mut Command) -> String {
    command.output().map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

fn graphile() -> String {
    let dir = std::env::var("BENCH_GRAPHILE").unwrap_or_default();
    let text = read(&format!("{dir}/node_modules/graphile-worker/package.json"));
    let package: Value = serde_json::from_str(&text).unwrap_or_default();
    package["version"].as_str().unwrap_or_default().to_owned()
}

/// What a commit costs at least: writing 8 kB and fdatasync, on the file system of the data; the median of 200.
fn fsync_ms(world: &World) -> f64 {
    let path = world.server.dir().join("fsync_probe");
    let mut file = std::fs::File::create(&path).expect("a writable folder");
    let mut probe = || {
        let began = Instant::now();
        file.write_all(&[7; 8192]).and_then(|()| file.sync_data()).expect("a disk");
        began.elapsed().as_secs_f64() * 1e3
    };
    let times: Vec<f64> = (0..200).map(|_| probe()).collect();
    let _ = std::fs::remove_file(&path);
    median(&times)
}

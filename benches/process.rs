//! What a process has used, by /proc. Knows nothing of which process, or of what it did.

use std::path::Path;

/// One hundredth of a second: the clock of /proc.
const TICK_US: f64 = 10_000.0;

/// What a process has spent of the processors so far, in µs; what has become of its children counts with `with_children`.
pub fn cpu_us(pid: i32, with_children: bool) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // After the name in parentheses, from 0: 11 and 12 are its own time, 13 and 14 that of children that have ended.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).expect("a time");
    let own = ticks(11) + ticks(12);
    TICK_US * if with_children { ticks(13) + ticks(14) } else { own }
}

/// Resident memory of a process, in MB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Its own.
    pub own: f64,
    /// All of it, with the pages of shared memory that it has ever touched.
    pub all: f64,
}

/// As it is now; nothing for one that is not there.
pub fn memory(pid: i32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    Memory { own: field("RssAnon:"), all: field("VmRSS:") }
}

/// The postmaster of a data directory.
pub fn postmaster(dir: &Path) -> i32 {
    let file = std::fs::read_to_string(dir.join("data/postmaster.pid")).expect("a running server");
    file.lines().next().and_then(|line| line.trim().parse().ok()).expect("a pid")
}

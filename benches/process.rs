//! What processes have used of the processors, from /proc. Knows nothing of what they are.

use std::path::Path;

/// Milliseconds of processor time of a process with all its threads, to the microsecond where the kernel counts so
/// (CONFIG_SCHED_INFO), else in hundredths of a second. A thread that has ended counts in the second case only.
pub fn cpu_ms(pid: i32) -> f64 {
    fine(pid).unwrap_or_else(|| coarse(pid))
}

/// Milliseconds of processor time of one thread, by its folder in /proc; 0 where the kernel does not count so.
pub fn thread_ms(folder: &Path) -> f64 {
    let text = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

fn fine(pid: i32) -> Option<f64> {
    let mut all = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(text) = std::fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        all += text.split(' ').next()?.parse::<f64>().ok()? / 1e6;
    }
    (all > 0.0).then_some(all)
}

/// Likewise in hundredths of a second, with the threads that have ended.
pub fn coarse(pid: i32) -> f64 {
    ticks(pid, 11) + ticks(pid, 12)
}

/// What the children of a process that have ended and been waited for have spent, in milliseconds.
pub fn children_ms(pid: i32) -> f64 {
    ticks(pid, 13) + ticks(pid, 14)
}

/// A time of /proc/PID/stat in milliseconds, by its place after the name in parentheses, from 0.
fn ticks(pid: i32, place: usize) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let field = stat.rsplit(") ").next().unwrap_or_default().split(' ').nth(place);
    field.and_then(|field| field.parse::<f64>().ok()).unwrap_or_default() * 10.0
}

/// Resident memory of a process, in MB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Its own.
    pub own: f64,
    /// All of it, with the pages of shared memory that it has ever touched.
    pub all: f64,
}

/// As it is now; nothing for a process that is not there.
pub fn memory(pid: i32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    Memory { own: field("RssAnon:"), all: field("VmRSS:") }
}

/// The postmaster of a server's folder.
pub fn postmaster(dir: &Path) -> i32 {
    let file = std::fs::read_to_string(dir.join("data/postmaster.pid")).expect("a running server");
    file.lines().next().and_then(|line| line.trim().parse().ok()).expect("a pid")
}

//! What processes have used of the processors, from /proc. Knows nothing of what they are.

use std::path::Path;

/// Milliseconds of processor time of a process with all its threads, to the microsecond where the kernel counts so
/// (CONFIG_SCHED_INFO), else in hundredths of a second. A thread that has ended counts in the second case only.
pub fn cpu_ms(pid: i32) -> f64 {
    fine(pid).unwrap_or_else(|| coarse(pid))
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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) * 10.0
}

/// Resident memory in MB; 0 for no such process.
#[allow(dead_code, reason = "for figures about memory")]
pub fn resident_mb(pid: i32) -> f64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or_default() / 1024.0
}

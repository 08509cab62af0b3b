//! Fail points of the server under test: switching them on, and seeing that they were reached. What they can do is
//! described in src/pg/fail_point.rs.
#![allow(dead_code)]

use super::{Cluster, until};

/// Entries that are switched on, until it is dropped or released.
pub struct FailPoints<'a> {
    cluster: &'a Cluster,
    entries: Vec<String>,
}

impl Cluster {
    /// Switches points on, for example `claim_gate=wait(DOT-3)` or `submitted=abort once`. Those of before are off.
    #[track_caller]
    pub fn fail_points(&self, entries: &[&str]) -> FailPoints<'_> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        // The tag makes each entry a new one, whatever was reached before.
        let tag = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let entries: Vec<String> = entries.iter().map(|entry| format!("{entry} #{tag}")).collect();
        self.set(&[("dot_wrapper.fail_points", &entries.join("; "))]);
        FailPoints { cluster: self, entries }
    }
}

impl FailPoints<'_> {
    /// How often processes came by the entry at this position.
    pub fn reached(&self, index: usize) -> usize {
        self.pids(index).len()
    }

    fn pids(&self, index: usize) -> Vec<String> {
        let journal = std::fs::read_to_string(self.cluster.dir().join("data/dot_wrapper.fail_points"));
        let start = format!("{}\t", self.entries[index]);
        journal.unwrap_or_default().lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// Returns when somebody has died at each of the entries, and the server lets nobody in or is back already.
    #[track_caller]
    pub fn wait_for_deaths(&self) {
        // The postmaster buries a process and closes its doors in one go.
        let buried = |pid: &String| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        let dead = |index: usize| self.pids(index).last().is_some_and(buried);
        until("processes have died at all points", || (0..self.entries.len()).all(dead).then_some(()));
    }

    /// Returns when a process has come by the first entry so often.
    #[track_caller]
    pub fn wait_for(&self, times: usize) {
        until(&format!("{} was reached", self.entries[0]), || (self.reached(0) >= times).then_some(()));
    }
}

impl Drop for FailPoints<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // The server may be coming up from a crash.
            until("the fail points are off", || {
                let mut session = self.cluster.connect_as("postgres", "postgres").ok()?;
                session.batch_execute("ALTER SYSTEM RESET dot_wrapper.fail_points").ok()?;
                session.batch_execute("SELECT pg_reload_conf()").ok()
            });
        }
    }
}

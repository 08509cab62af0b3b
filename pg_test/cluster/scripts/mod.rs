//! The script engine: real files, real processes, real deaths. Lives here: the stage that the tests share.
//!
//!     seen  what a script finds     ends   what its end means     refused  what is not started
//!     stops  how it is ended, and what is left of it

mod ends;
mod refused;
mod seen;
mod stops;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, Run, home, until};

/// A database, and a folder for its scripts below the allowed root.
pub struct Stage {
    pub bench: Bench,
    pub dir: PathBuf,
}

impl Stage {
    /// In the cluster that these tests share.
    pub fn shared() -> Stage {
        static SHARED: OnceLock<(Arc<Cluster>, PathBuf)> = OnceLock::new();
        let (cluster, root) = SHARED.get_or_init(|| {
            let root = new_root();
            // A secret of the server's that no script may see.
            (Arc::new(Cluster::start(&[&conf(&root)], &[("DOT_SECRET_CANARY", "seen")])), root)
        });
        Stage::on(Bench::on(Arc::clone(cluster)), root)
    }

    /// In a cluster of its own, which it may crash.
    pub fn own() -> Stage {
        let root = new_root();
        Stage::on(Bench::own(&[&conf(&root)]), &root)
    }

    fn on(bench: Bench, root: &Path) -> Stage {
        let dir = root.join(&bench.name);
        make_dir(&dir);
        Stage { bench, dir }
    }

    /// Writes a shell script, and a tool for it with these settings of its policy.
    pub fn tool(&self, code: &str, script: &str, policy: &str) -> PathBuf {
        let path = self.dir.join(format!("{code}.sh"));
        write_script(&path, script);
        self.catalogue(code, &path.to_string_lossy(), policy);
        path
    }

    /// A tool with this path, and a policy such as `dry_run_arg = '-n'`.
    pub fn catalogue(&self, code: &str, path: &str, policy: &str) {
        self.bench.exec(&format!(
            "INSERT INTO dot_tools (code, name, status, execution_engine, script_path)
                 VALUES ('{code}', '{code}', 'active', 'script', '{path}');
             INSERT INTO dot_wrapper.policy (scope, name) VALUES ('tool', '{code}');"
        ));
        if !policy.is_empty() {
            self.bench.exec(&format!("UPDATE dot_wrapper.policy SET {policy} WHERE name = '{code}'"));
        }
    }

    /// An apply, as it ended.
    #[track_caller]
    pub fn apply(&self, code: &str, args: Value) -> Run {
        self.ended(&self.ask(code, "apply", args))
    }

    #[track_caller]
    pub fn ask(&self, code: &str, mode: &str, args: Value) -> Run {
        self.bench.ask(&Ask { args, ..Ask::new(code, mode) })
    }

    /// The run, once it is over or in doubt.
    #[track_caller]
    pub fn ended(&self, run: &Run) -> Run {
        until(&format!("{} has ended", run.text("code")), || {
            Some(self.bench.run(run.id())).filter(|now| !matches!(now.status(), "queued" | "running"))
        })
    }

    /// The detail of the event that ended the last attempt so.
    #[track_caller]
    pub fn detail(&self, run: &Run, event: &str) -> Value {
        let sql = "SELECT detail FROM dot_wrapper.dot_run_event WHERE run_id = $1 AND event = $2 ORDER BY event_id DESC LIMIT 1";
        self.bench.one(sql, &[&run.id(), &event])
    }

    /// A file in which a script notes things: its name is in `args.log`, and `note` in the script appends.
    pub fn notes(&self, name: &str) -> Notes {
        let path = self.dir.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        Notes(path)
    }
}

/// Lines that scripts have written.
pub struct Notes(pub PathBuf);

impl Notes {
    pub fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// As many lines as these, as soon as they are there: pids.
    #[track_caller]
    pub fn pids(&self, count: usize) -> Vec<i32> {
        until("the scripts have noted their pids", || {
            let lines = self.lines();
            (lines.len() >= count).then(|| lines.iter().map(|line| line.trim().parse().expect("a pid")).collect())
        })
    }

    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

/// Whether a process is at work; one that has ended and that nobody has asked about is not.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Returns when none of them is.
#[track_caller]
pub fn gone(pids: &[i32]) {
    until("all of them are gone", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

pub fn make_dir(path: &Path) {
    std::fs::create_dir(path).unwrap();
    mode(path, 0o755);
}

pub fn write_script(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    mode(path, 0o755);
}

pub fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn new_root() -> PathBuf {
    let root = home::new_folder();
    mode(&root, 0o755);
    root
}

fn conf(root: &Path) -> String {
    format!("dot_wrapper.script_roots = '{}'", root.display())
}

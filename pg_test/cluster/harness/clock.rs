//! A server whose clock the test sets. The library that moves it is made on the spot, from `clock.c`.

use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Bench, Cluster, os, until};

/// A bench in a cluster of its own, and the clock of that.
pub struct Clock {
    /// The bench.
    pub bench: Bench,
    dir: PathBuf,
}

impl Clock {
    /// Starts the server at the true time, with lines for its configuration.
    pub fn start(conf: &[&str]) -> Clock {
        Clock::with(conf, Bench::on)
    }

    /// As [`Clock::start`], with a bench of one's own making.
    pub fn with(conf: &[&str], bench: impl FnOnce(Arc<Cluster>) -> Bench) -> Clock {
        let dir = PathBuf::from(os::run(os::as_server("mktemp").args(["-d", "/tmp/dot_clock.XXXXXX"])).trim_end());
        os::run(Command::new("chmod").arg("755").arg(&dir));
        let (library, file) = (dir.join("clock.so"), dir.join("seconds"));
        std::fs::write(&file, 0_i64.to_ne_bytes()).expect("a writable folder");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/pg_test/cluster/harness/clock.c");
        os::run(
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source),
        );
        let (library, file) = (library.display().to_string(), file.display().to_string());
        let cluster = Cluster::start(conf, &[("LD_PRELOAD", &library), ("DOT_TEST_CLOCK", &file)]);
        Clock { bench: bench(Arc::new(cluster)), dir }
    }

    /// Steps to so many seconds from the true time, in all processes of the server at once.
    #[track_caller]
    pub fn step(&self, seconds: i64) {
        let mut file = std::fs::OpenOptions::new().write(true).open(self.dir.join("seconds")).expect("the file");
        file.rewind().and_then(|()| file.write_all(&seconds.to_ne_bytes())).expect("room");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "hours")]
        let expected = now + seconds as f64;
        let sql = "SELECT abs(extract(epoch FROM clock_timestamp())::float8 - $1) < 60";
        until("the server's clock has stepped", || self.bench.one::<bool>(sql, &[&expected]).then_some(()));
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

//! A server with the real pg_cron in it, whose minutes the test brings about: pg_cron looks at the clock once a second, and
//! the clock is the test's.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Bench, Clock, os};

/// The database that pg_cron keeps its jobs in.
pub const HOME: &str = "scheduled";

/// A bench in that database, with the extension pg_cron installed.
pub struct Cron {
    /// The bench and its clock.
    pub clock: Clock,
    ahead: std::cell::Cell<i64>,
}

impl Cron {
    /// Starts it; `None`, and a line that says why, where there is no pg_cron for this server.
    pub fn start() -> Option<Cron> {
        let shared = os::run(Command::new(os::variable("DOT_TEST_PG_CONFIG")).arg("--sharedir"));
        if !Path::new(shared.trim_end()).join("extension/pg_cron.control").exists() {
            println!("skipped: this server has no pg_cron; .ci/setup puts it beside PostgreSQL 15 alone");
            return None;
        }
        let conf = [
            "shared_preload_libraries = 'pg_cron,dot_wrapper'",
            &format!("cron.database_name = '{HOME}'"),
            "cron.use_background_workers = on",
        ];
        let clock = Clock::with(&conf, |cluster| {
            let bench = Bench::named(cluster, HOME.to_owned());
            bench.exec("CREATE EXTENSION pg_cron; CREATE EXTENSION dot_wrapper");
            bench.furnish();
            bench
        });
        Some(Cron { clock, ahead: std::cell::Cell::new(0) })
    }

    /// The bench.
    pub fn bench(&self) -> &Bench {
        &self.clock.bench
    }

    /// Brings the server's clock to the last second of a minute, so that the next tick is there in a moment.
    #[track_caller]
    pub fn next_minute(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let now = i64::try_from(now).expect("a time") + self.ahead.get();
        self.ahead.set(self.ahead.get() + 59 - now.rem_euclid(60));
        self.clock.step(self.ahead.get());
    }
}

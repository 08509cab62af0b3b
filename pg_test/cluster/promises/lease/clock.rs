//! L3: the server's clock steps by an hour, forwards and back, while runs contend. Leases may end early or late; a stale
//! writer never succeeds, and nothing that is due waits for the clock to catch up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::history;
use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, figure, os, rounds, until};

/// A server whose clock this test sets.
struct Clock {
    bench: Bench,
    file: PathBuf,
}

/// Debian's, and where other systems have it.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

impl Clock {
    fn new() -> Clock {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let library = library.expect("libfaketime, which .ci/setup installs: apt-get install libfaketime");
        let file = PathBuf::from(os::run(os::as_server("mktemp").arg("/tmp/dot_clock.XXXXXX")).trim_end());
        std::fs::write(&file, "+0").unwrap();
        let shown = file.display().to_string();
        let env = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", shown.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            // A step is of the wall's clock; what measures spans is not moved by it.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let bench = Bench::on(Arc::new(Cluster::start(&["dot_wrapper.poll_interval = 1s"], &env)));
        Clock { bench, file }
    }

    /// Steps to so many seconds from the true time.
    fn step(&self, seconds: i64) {
        std::fs::write(&self.file, format!("{seconds:+}")).unwrap();
        let sql = "SELECT abs(extract(epoch FROM clock_timestamp())::float8 - $1) < 60";
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let expected = now.as_secs_f64() + seconds as f64;
        until("the server's clock has stepped", || self.bench.one::<bool>(sql, &[&expected]).then_some(()));
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

const HOUR: i64 = 3600;

#[test]
fn l3_steps_of_the_clock_let_no_stale_writer_succeed() {
    let clock = Clock::new();
    let bench = &clock.bench;
    // Long enough that a lease which the step has ended is taken by another run while the call is out.
    let served = history::record(bench, Duration::from_millis(40));
    let (clients, span) = (rounds(4, 16), Duration::from_millis(rounds(1000, 15_000) as u64));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let call = || {
            let mut session = bench.connect();
            while !over.load(Ordering::Relaxed) {
                let run = Ask::new("DOT-1", "apply").on(&mut session).unwrap();
                assert!(run.status() == "queued" || run.reason() == "lease_held", "{run:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let lives: Vec<_> = (0..clients).map(|_| scope.spawn(call)).collect();
        for offset in [0, HOUR, 0, HOUR] {
            clock.step(offset);
            std::thread::sleep(span);
        }
        over.store(true, Ordering::Relaxed);
        lives.into_iter().for_each(|life| life.join().unwrap());
    });
    until("nothing is queued or out any more", || {
        let sql = "SELECT count(*) FROM dot_wrapper.dot_queue WHERE state <> 'in_doubt'";
        (bench.one::<i64>(sql, &[]) == 0).then_some(())
    });
    let served = served.lock().unwrap().clone();
    let stale: Vec<_> = history::stale(&served).into_iter().map(|(old, new)| (bench.run(old.run_id), new)).collect();
    let wrong: Vec<_> = stale.iter().filter(|(old, _)| old.status() == "succeeded").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let succeeded = served.iter().filter(|one| bench.run(one.run_id).status() == "succeeded").count();
    assert!(succeeded > clients, "they did contend: {succeeded} of {}", served.len());
    figure(
        "L3",
        &format!(
            "steps of +1 h, -1 h, +1 h, {clients} clients: {} runs sent, {} overtaken and in doubt, {} of them succeeded",
            served.len(),
            stale.len(),
            wrong.len()
        ),
    );
}

/// Two queues of the clock: runs that are due, and leases that are to be given back.
#[test]
fn l3_nothing_that_is_due_waits_for_a_clock_that_was_set_back() {
    let clock = Clock::new();
    let bench = &clock.bench;
    clock.step(HOUR);
    let before = bench.between(&Ask::new("DOT-1", "apply"), "");
    bench.until(&before, "succeeded");
    // Queued an hour ahead, and looked at an hour behind.
    bench.worker();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let waiting = bench.apply("DOT-2");
    clock.step(0);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    bench.until(&waiting, "succeeded");
    bench.until(&bench.apply("DOT-2"), "succeeded");
    figure("L3.queue", "a run queued before a step of -1 h is sent at once");
}

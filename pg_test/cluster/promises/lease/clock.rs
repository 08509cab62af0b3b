//! L3: the server's clock steps by an hour, forwards and back, while runs contend. Leases may end early or late; a stale
//! writer never succeeds, and nothing that is due waits for the clock to catch up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::history;
use crate::harness::run::Ask;
use crate::harness::{Clock, figure, rounds, until};

const HOUR: i64 = 3600;

/// An agent that answers at once, or keeps what reaches it until it is told to let go.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    /// Requests that are there now.
    out: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.out.fetch_add(1, Ordering::SeqCst);
        until("the gate is open", || (!self.shut.load(Ordering::SeqCst)).then_some(()));
        self.out.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns once so many requests are kept.
    fn keep(&self, count: usize) {
        self.shut.store(true, Ordering::SeqCst);
        until("requests are out", || (self.out.load(Ordering::SeqCst) >= count).then_some(()));
    }

    fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        until("they are answered", || (self.out.load(Ordering::SeqCst) == 0).then_some(()));
    }
}

/// Steps while a call is out. A step forwards ends its lease, so that another run takes it and is sent as well.
fn step(clock: &Clock, gate: &Gate, hours: i64) {
    gate.keep(1);
    clock.step(hours * HOUR);
    if hours > 0 {
        gate.keep(2);
    }
    gate.open();
}

#[test]
fn l3_steps_of_the_clock_let_no_stale_writer_succeed() {
    let clock = Clock::start(&["dot_wrapper.poll_interval = 1s"]);
    let bench = &clock.bench;
    let gate = Arc::new(Gate::default());
    let served = history::record(bench, {
        let gate = Arc::clone(&gate);
        move || gate.pass()
    });
    let (clients, span) = (rounds(4, 16), Duration::from_millis(rounds(500, 15_000) as u64));
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
        for hours in [1, 0, 1] {
            std::thread::sleep(span);
            step(&clock, &gate, hours);
        }
        std::thread::sleep(span);
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
    assert!(stale.len() >= 2, "each step forwards has ended a lease: {stale:?}");
    let succeeded = served.iter().filter(|one| bench.run(one.run_id).status() == "succeeded").count();
    assert!(succeeded > 2, "they did contend: {succeeded} of {}", served.len());
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

/// Queued an hour ahead, and looked at an hour behind.
#[test]
fn l3_nothing_that_is_due_waits_for_a_clock_that_was_set_back() {
    let clock = Clock::start(&["dot_wrapper.poll_interval = 1s"]);
    let bench = &clock.bench;
    clock.step(HOUR);
    let before = bench.between(&Ask::new("DOT-1", "apply"), "");
    bench.until(&before, "succeeded");
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

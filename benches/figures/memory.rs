//! The worker's resident memory through 100,000 runs, some of them with answers of 1 MB: at its start, at the most, and once it is
//! idle again. Its own memory is what counts: pages of the shared buffers that it has touched are everybody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::process::{self, Memory};
use crate::world::{World, given};

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };
const BIG: Kind = Kind { name: "BIG", tools: 2, wait_ms: 0, all_calls: true };
/// Parts of the load; each has some big ones.
const PARTS: usize = 20;
/// Somewhat longer than dot_wrapper.poll_interval: what a worker gives back, it has given back by then.
const REST: Duration = Duration::from_secs(65);

/// Once.
pub fn measure(world: &World) -> Outcome {
    let count = given("MEMORY", world.options.size(100_000, 10_000));
    let big = world.options.size(400, 100);
    let mut ours = Ours::new(world, &[FAST, BIG], 64);
    let sql = "UPDATE dot_wrapper.endpoint SET path = '/size/1000/v1/dots/{code}/runs' WHERE name = 'big';
               UPDATE dot_wrapper.policy SET max_response_bytes = 2097152 WHERE name LIKE 'BIG-%'";
    ours.session.batch_execute(sql).expect("an agent with big answers");
    ours.switch(true);
    let worker = ours.await_worker();
    std::thread::sleep(Duration::from_secs(2));
    let start = process::memory(worker);
    let (end, most) = watch(worker, || {
        for _ in 0..PARTS {
            ours.request(&FAST, (count - big) / PARTS);
            ours.request(&BIG, big / PARTS);
        }
        ours.until_idle();
        ours.until_sealed();
        std::thread::sleep(REST);
    });
    assert_eq!(ours.worker(), Some(worker), "the worker is another one by now");
    let note = format!(
        "own: {:.0} MB at its start, {:.0} at most, {:.0} idle; with shared pages: {:.0}, {:.0}, {:.0}",
        start.own, most.own, end.own, start.all, most.all, end.all
    );
    let values = |m: Memory| json!({ "own_mb": m.own, "all_mb": m.all });
    let figure = Figure::new(
        &format!("memory of the worker after {count} runs, {big} answers of 1 MB, above its start"),
        "MB",
        vec![end.own - start.own],
    );
    let raw = json!({ "start": values(start), "most": values(most), "end": values(end) });
    Outcome { figures: vec![figure.target(Target::AtMost(32.0)).note(note).raw(raw)], plots: Vec::new() }
}

/// What the process has at the end of `work`, and the most that it had meanwhile.
fn watch(pid: i32, work: impl FnOnce()) -> (Memory, Memory) {
    let over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut most = Memory::default();
            while !over.load(Ordering::Relaxed) {
                let now = process::memory(pid);
                most = Memory { own: most.own.max(now.own), all: most.all.max(now.all) };
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        }
    });
    work();
    let end = process::memory(pid);
    over.store(true, Ordering::Relaxed);
    (end, watcher.join().expect("a watcher"))
}

//! D2: no request byte leaves before that attempt's intent is flushed to disk, whatever synchronous_commit anyone has set.

use super::Dice;
use crate::harness::bench::TOOLS;
use crate::harness::run::Ask;
use crate::harness::{Bench, figure, rounds};

#[test]
fn d2_no_request_is_without_its_intent_after_a_crash() {
    let cycles = rounds(8, 200);
    // A server that really writes to its disk, and is in no hurry with what callers commit.
    let bench =
        Bench::own(&["fsync = on", "synchronous_commit = off", "wal_writer_delay = 10s", "checkpoint_timeout = 1h"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    bench.exec("CHECKPOINT");
    let mut dice = Dice::new(0x5EED);
    let (mut hits, mut lost, mut asked) = (0, 0, 0);
    for _ in 0..cycles {
        let before = bench.agent.count();
        let mut session = bench.connect();
        // Asks for as long as there is a server.
        let asking = std::thread::spawn(move || {
            let calls = (0..).map_while(|n| Ask::new(TOOLS[n % TOOLS.len()], "apply").on(&mut session).ok());
            calls.count()
        });
        // A random moment in the stream of requests.
        bench.agent.wait_for(before + 1 + dice.roll(40));
        bench.cluster.stop("immediate");
        asked += asking.join().unwrap();
        // What is on its way to the agent is counted, too.
        bench.cluster.start_again();
        bench.forget_session();
        bench.drain();
        for request in &bench.agent.requests()[before..] {
            hits += 1;
            let attempt = i32::try_from(request.body["attempt"].as_i64().unwrap()).unwrap();
            let found: i64 = bench.one(
                "SELECT count(*) FROM dot_wrapper.dot_run_attempt WHERE run_id = $1 AND attempt = $2",
                &[&request.run_id(), &attempt],
            );
            lost += usize::from(found != 1);
        }
    }
    figure("D2", &format!("{cycles} crashes, {asked} calls answered, {hits} requests, {lost} without an intent"));
    assert_eq!(lost, 0);
}

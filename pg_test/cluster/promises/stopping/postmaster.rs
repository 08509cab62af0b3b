//! O6: the postmaster's death ends all our processes within 2 s.

use std::time::{Duration, Instant};

use crate::harness::bench::{Params, TOOLS};
use crate::harness::{Bench, Reply, figure, os, rounds, until};

const LIMIT: Duration = Duration::from_secs(2);
const NO_PARAMS: Params<'_> = &[];

/// Whether a process is at work; one that has ended and that nobody has asked about is not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn o6_nothing_of_ours_outlives_the_postmaster() {
    let rounds = rounds(3, 20);
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    bench.agent.reply(Reply::Hold);
    let (mut survivors, mut longest) = (0, Duration::ZERO);
    for round in 0..rounds {
        bench.apply(TOOLS[round % TOOLS.len()]);
        bench.agent.wait_for(round + 1);
        let ours = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dot_wrapper%'";
        let pids: Vec<i32> = bench.all(ours, NO_PARAMS);
        assert!(pids.len() >= 2 && pids.iter().all(|pid| is_alive(*pid)), "launcher and worker: {pids:?}");
        let postmaster = bench.cluster.postmaster();
        assert!(os::signal(postmaster, "KILL"));
        let started = Instant::now();
        until("they have gone", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
        longest = longest.max(started.elapsed());
        survivors += usize::from(started.elapsed() > LIMIT);
        bench.forget_session();
        bench.cluster.start_again();
        until("the server is back", || bench.cluster.connect_as(&bench.name, "postgres").ok());
        bench.look();
    }
    figure(
        "O6",
        &format!(
            "{rounds} kills of the postmaster during a call: {survivors} survivors after 2 s, the last gone in {} ms",
            longest.as_millis()
        ),
    );
    assert_eq!(survivors, 0);
    assert_eq!(bench.agent.count(), rounds, "nothing was sent again");
}

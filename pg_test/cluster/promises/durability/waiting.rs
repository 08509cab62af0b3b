//! N6: the worker holds no transaction or snapshot while waiting on the network.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::bench::Params;
use crate::harness::{Bench, Reply, figure, rounds, until};

/// Between two samples.
const STEP: Duration = Duration::from_millis(100);
const HELD: &str = "SELECT jsonb_build_object('xact', xact_start, 'xmin', backend_xmin, 'xid', backend_xid)
    FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND datname = current_database()";
const NO_PARAMS: Params<'_> = &[];

#[test]
fn n6_no_transaction_and_no_snapshot_while_a_call_is_out() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    let nothing = json!({"xact": null, "xmin": null, "xid": null});
    // The turn that sent it ends with a look at the leases.
    until("the worker waits", || (bench.one::<Value>(HELD, NO_PARAMS) == nothing).then_some(()));
    bench.look();
    // What has come is sealed a second later, and leases are looked at after three.
    let rests = "SELECT now() - state_change > interval '3500 ms' FROM pg_stat_activity WHERE pid = $1";
    let worker = bench.worker();
    until("the worker has sealed and tended", || bench.one::<bool>(rests, &[&worker]).then_some(()));
    let started = Instant::now();
    let span = Duration::from_secs(rounds(3, 30) as u64);
    let (mut samples, mut free) = (0, 0);
    while started.elapsed() < span {
        samples += 1;
        free += usize::from(bench.one::<Value>(HELD, NO_PARAMS) == nothing);
        std::thread::sleep(STEP);
    }
    assert_eq!(bench.run(run.id()).status(), "running");
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
    figure(
        "N6",
        &format!("a call of {} s sampled at 10 Hz: no transaction and no snapshot in {free}/{samples}", span.as_secs()),
    );
    assert_eq!(free, samples);
}

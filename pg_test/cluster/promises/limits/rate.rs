//! The rate of an endpoint and the calls at the same time, as the agent sees them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{all_over, bench, flood};
use crate::harness::run::Ask;
use crate::harness::{Agent, Reply, figure, until};

/// Answers at once, and notes when each request came.
fn clocked(agent: &Agent) -> Arc<Mutex<Vec<Instant>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    agent.plan(move |_| {
        noted.lock().unwrap().push(Instant::now());
        Reply::succeeded()
    });
    times
}

/// The most requests within any span of this length.
fn most_within(times: &[Instant], span: Duration) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let within = |(i, first): (usize, &Instant)| times[i..].iter().take_while(|at| **at - *first < span).count();
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// On its way a request may be overtaken: so long are they believed to be at most.
const JITTER: Duration = Duration::from_millis(50);

#[test]
fn promise_r1_a_rate_is_kept_over_five_seconds_and_a_burst_comes_after_a_pause_only() {
    let (rate, burst, span) = (40.0, 10, Duration::from_secs(5));
    let bench = bench("");
    bench.exec(&format!("UPDATE dot_wrapper.endpoint SET rate_per_s = {rate}, rate_burst = {burst}"));
    let times = clocked(&bench.agent);
    assert_eq!(flood(&bench, "DOT-1", 300), 300);
    until("five seconds' worth came", || (times.lock().unwrap().len() >= 230).then_some(()));
    let first = times.lock().unwrap().clone();
    // No span holds more than its own and one burst, which is what had been left unused before.
    let allowed = |span: Duration| rate * (span + JITTER).as_secs_f64() + f64::from(burst);
    let (most, second) = (most_within(&first, span), most_within(&first, Duration::from_secs(1)));
    assert!(most as f64 <= allowed(span), "{most} in {span:?}");
    assert!(second as f64 <= allowed(Duration::from_secs(1)), "{second} in a second");
    // And the rate is reached, as far as the machine has time for it.
    let steady: Vec<Instant> = first.iter().copied().skip(burst as usize + 1).collect();
    let steady_most = most_within(&steady, Duration::from_secs(4));
    let wanted = rate * 4.0 * 0.8..=allowed(Duration::from_secs(4));
    assert!(wanted.contains(&(steady_most as f64)), "{steady_most} in 4 s");

    all_over(&bench);
    // What was not used is there again, up to the burst.
    std::thread::sleep(Duration::from_secs_f64(f64::from(burst) / rate));
    times.lock().unwrap().clear();
    let rest = 30;
    flood(&bench, "DOT-1", rest);
    all_over(&bench);
    let after = times.lock().unwrap().clone();
    let at_once = most_within(&after, Duration::from_millis(100));
    let bound = allowed(Duration::from_millis(100)) as usize;
    assert!((burst as usize..=bound).contains(&at_once), "{at_once} at once");
    figure(
        "R1-rate",
        &format!(
            "{rate}/s: {most} requests in {span:?} at most, {second} in one second, {steady_most} in 4 s once the burst was spent; {at_once} in 0.1 s after a pause, burst {burst}"
        ),
    );
}

/// How many calls were out at the same time, by what is counted: now and at most.
#[derive(Default)]
struct Gauge(HashMap<String, (usize, usize)>);

impl Gauge {
    fn enter(&mut self, names: &[String]) {
        for name in names {
            let (now, most) = self.0.entry(name.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
    }

    fn leave(&mut self, names: &[String]) {
        for name in names {
            self.0.get_mut(name).unwrap().0 -= 1;
        }
    }
}

#[test]
fn promise_r1_calls_at_the_same_time_are_limited_per_endpoint_tool_and_key() {
    let bench = bench("");
    bench.exec(
        "UPDATE dot_wrapper.endpoint SET max_in_flight = 7;
         INSERT INTO dot_wrapper.policy (scope, name, max_in_flight) VALUES ('tool', 'DOT-1', 3);
         INSERT INTO dot_wrapper.policy (scope, name, max_in_flight_per_key, in_flight_key)
             VALUES ('tool', 'DOT-2', 1, '{code}/{args.site}'), ('tool', 'DOT-3', 2, '{role}')",
    );
    let gauge = Arc::new(Mutex::new(Gauge::default()));
    let seen = Arc::clone(&gauge);
    bench.agent.plan(move |request| {
        let (code, site) = (request.field("dot_code"), &request.body["args"]["site"]);
        let names = ["all".to_owned(), code.to_owned(), format!("{code} {site}")];
        seen.lock().unwrap().enter(&names);
        // The work that the agent does.
        std::thread::sleep(Duration::from_millis(8));
        seen.lock().unwrap().leave(&names);
        Reply::succeeded()
    });
    bench.exec("BEGIN");
    for n in 0..30 {
        for code in ["DOT-1", "DOT-2", "DOT-3", "DOT-4"] {
            let run = bench.ask(&Ask { args: json!({"site": n % 4}), ..Ask::new(code, "apply") });
            assert_eq!(run.status(), "queued");
        }
    }
    // Those that are left when all others are through have the endpoint for themselves, and still their own limit.
    assert_eq!(flood(&bench, "DOT-1", 30), 30);
    bench.exec("COMMIT");
    all_over(&bench);
    let gauge = gauge.lock().unwrap();
    let most = |name: &str| gauge.0[name].1;
    assert_eq!((most("all"), most("DOT-1"), most("DOT-3")), (7, 3, 2));
    let keys: Vec<usize> = (0..4).map(|site| most(&format!("DOT-2 {site}"))).collect();
    assert_eq!(keys, [1; 4]);
    assert!((2..=4).contains(&most("DOT-2")) && (2..=7).contains(&most("DOT-4")));
    assert_eq!(bench.agent.count(), 150);
    figure("R1-in-flight", "150 runs; at the same time at most 7 of endpoint 7, 3 of tool 3, 1 of key 1, 2 of role 2");
}

/// A hundred runs of one key, one at a time: they follow each other without a pause.
#[test]
fn promise_r1_runs_of_one_key_go_one_after_the_other_in_order() {
    let bench = bench(", max_in_flight_per_key = 1");
    let begun = Instant::now();
    bench.exec("BEGIN");
    let runs: Vec<_> = (0..100).map(|_| bench.apply("DOT-1").id()).collect();
    bench.exec("COMMIT");
    all_over(&bench);
    let order: Vec<_> = bench.agent.requests().iter().map(|request| request.run_id().unwrap()).collect();
    assert_eq!(order, runs);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    figure(
        "R1-key",
        &format!("100 runs of one key, one at a time and in order, in {:.1} s", begun.elapsed().as_secs_f64()),
    );
}

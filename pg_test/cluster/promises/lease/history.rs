//! Histories of leases, and the checks that they must pass. Nothing here asks anybody; the tests fill it in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::{Bench, Reply};

/// A span in which a holder had reason to believe that the lease was his, in microseconds of the server's clock.
#[derive(Clone, Debug)]
pub struct Held {
    pub key: String,
    pub holder: String,
    pub from: i64,
    pub to: i64,
}

/// Pairs of spans of different holders on one key that overlap.
pub fn overlaps(history: &[Held]) -> Vec<(Held, Held)> {
    let mut sorted: Vec<&Held> = history.iter().filter(|held| held.from < held.to).collect();
    sorted.sort_by(|a, b| (&a.key, a.from).cmp(&(&b.key, b.from)));
    let mut found = Vec::new();
    // The one that reaches furthest on this key so far.
    let mut reach: Option<&Held> = None;
    for held in sorted {
        if let Some(before) = reach.filter(|before| before.key == held.key) {
            if before.to > held.from && before.holder != held.holder {
                found.push((before.clone(), held.clone()));
            }
            if before.to > held.to {
                continue;
            }
        }
        reach = Some(held);
    }
    found
}

/// What reached the agent: a request under a token, from its arrival until just before it is answered.
#[derive(Clone, Debug)]
pub struct Served {
    pub run_id: Uuid,
    pub token: i64,
    pub from: Instant,
    pub to: Instant,
}

/// Lets the agent do something that takes its time for each request, and notes them.
pub fn record(bench: &Bench, during: impl Fn() + Send + Sync + 'static) -> Arc<Mutex<Vec<Served>>> {
    let served = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&served);
    bench.agent.plan(move |request| {
        let from = Instant::now();
        during();
        let token = request.body["fencing_token"].as_i64().unwrap_or_default();
        let run_id = request.run_id().unwrap_or_default();
        book.lock().unwrap().push(Served { run_id, token, from, to: Instant::now() });
        Reply::succeeded()
    });
    served
}

/// Writes that came after, or ran beside, one with a larger token: pairs of (stale, newer).
pub fn stale(served: &[Served]) -> Vec<(Served, Served)> {
    let newer = |old: &Served| served.iter().find(|new| new.token > old.token && new.from < old.to).cloned();
    served.iter().filter_map(|old| newer(old).map(|new| (old.clone(), new))).collect()
}

/// The checks must be able to fail.
#[test]
fn l1_the_checks_of_histories_find_what_they_look_for() {
    let held = |holder: &str, from, to| Held { key: "k".into(), holder: holder.into(), from, to };
    assert!(overlaps(&[held("a", 0, 5), held("b", 5, 9), held("a", 10, 12), held("a", 11, 13)]).is_empty());
    assert_eq!(overlaps(&[held("b", 4, 9), held("a", 0, 5)]).len(), 1);
    assert_eq!(overlaps(&[held("a", 0, 50), held("a", 1, 2), held("b", 40, 41)]).len(), 1);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let served = |token, from, to| Served { run_id: Uuid::nil(), token, from: at(from), to: at(to) };
    assert!(stale(&[served(1, 0, 5), served(2, 5, 9)]).is_empty());
    assert_eq!(stale(&[served(1, 0, 6), served(2, 5, 9)]).len(), 1);
    assert_eq!(stale(&[served(2, 0, 3), served(1, 5, 9)]).len(), 1);
}

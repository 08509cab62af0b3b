//! What a storm came to, in words and figures.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::check::{self, Finding, Kind};
use super::harness;
use super::ledger::Ledger;
use super::world::{Crash, World};

/// Findings that are shown of each kind.
const SHOWN: usize = 5;
/// Seconds from "the server lets in" to the first run that is claimed or settled.
const MEDIAN: f64 = 2.0;
const WORST: f64 = 5.0;

/// Prints everything; whether all targets were met.
pub fn print(world: &World, ledger: &Ledger, found: &[Finding], cycles: u64, took: Duration) -> ExitCode {
    let by = |kind: Kind| found.iter().filter(|finding| finding.kind == kind).count();
    let mut kinds: Vec<Kind> = found.iter().map(|finding| finding.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        println!("chaos: {kind:?}: {}", by(kind));
        for finding in found.iter().filter(|finding| finding.kind == kind).take(SHOWN) {
            println!("    {}", finding.what);
        }
    }
    let states = count(ledger.values().map(|run| run.status.as_str()));
    let reasons = count(ledger.values().filter(|run| run.status == "in_doubt").map(|run| run.reason.as_str()));
    let (crashes, book) = (world.crashes(), world.agent.book());
    let kinds = count(crashes.iter().map(|crash| crash.kind));
    let again = book.received.iter().filter(|request| request.attempt > 1).count();
    println!("chaos: runs {}: {}", ledger.len(), list(&states));
    println!("chaos: in doubt: {}", list(&reasons));
    println!("chaos: calls that ended with an error: {:?}; connections cut off: {}", world.errors(), book.cut_off);
    println!("chaos: agent: {:?}", check::deeds(&book));
    let (aside, resolved) = (world.set_aside.load(Ordering::Relaxed), world.resolved.load(Ordering::Relaxed));
    println!("chaos: the operator resolved {resolved} doubts, and let {aside} runs go on that had been set aside");
    println!("chaos: crashes {}: {}", crashes.len(), list(&kinds));
    let whole = crashes.iter().filter(|crash| crash.whole);
    let mut slowest: Vec<_> = whole.filter_map(|crash| Some((recovery(ledger, crash)?, crash))).collect();
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let told: Vec<String> = slowest.iter().take(SHOWN).map(|(s, crash)| format!("{s:.2} s {}", crash.tell())).collect();
    println!("chaos: slowest recoveries: {}", told.join(", "));
    let mut times: Vec<f64> = slowest.iter().map(|(seconds, _)| *seconds).collect();
    times.sort_by(f64::total_cmp);
    let (median, worst) =
        (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    let unrecovered = crashes.iter().filter(|crash| crash.whole).count() - times.len();
    let slow = median >= MEDIAN || worst >= WORST || unrecovered > 1;
    let doubt = ledger.values().filter(|run| run.status == "in_doubt").count();
    let line = format!(
        "{} runs, {} requests ({again} of them repetitions), {cycles} cycles, {} crashes in {} s: lost {}, sent twice without \
         leave {}, stuck {}, in doubt {doubt}, other findings {}; recovery median {median:.2} s, worst {worst:.2} s",
        ledger.len(),
        book.received.len(),
        crashes.len(),
        took.as_secs(),
        by(Kind::Lost),
        by(Kind::Twice),
        by(Kind::Stuck),
        found.len() - by(Kind::Lost) - by(Kind::Twice) - by(Kind::Stuck),
    );
    harness::figure("chaos", &line);
    let good = found.is_empty() && !slow;
    println!("chaos: {}; SEED={}", if good { "ok" } else { "FAILED" }, world.seed);
    println!(
        "test result: {}. {} passed; {} failed; chaos",
        if good { "ok" } else { "FAILED" },
        u8::from(good),
        u8::from(!good)
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seconds from the moment that the server let in to the first thing that a worker wrote. Less than nothing is nothing.
fn recovery(ledger: &Ledger, crash: &Crash) -> Option<f64> {
    let events = ledger.values().flat_map(|run| &run.events);
    let first = events.filter(|event| event.from.is_some() && event.at > crash.down).map(|event| event.at).min()?;
    Some(first.duration_since(crash.accepts).unwrap_or_default().as_secs_f64())
}

fn count<'a>(of: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    of.for_each(|what| *counts.entry(what).or_default() += 1);
    counts
}

fn list(counts: &BTreeMap<&str, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    parts.join(", ")
}

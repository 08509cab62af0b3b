//! REASSIGN OWNED in the very moment between two looks: whose the extension is, and whose its tables are.

use std::sync::Arc;

use super::dropping::owned;
use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, Run};

/// A run of a caller who learnt the extension's owner before this was committed, and everything else after.
fn asked_meanwhile(bench: &Bench, change: &str) -> Run {
    let points = bench.cluster.fail_points(&["request_begun=wait(DOT-2)"]);
    let mut caller = bench.connect();
    let asked = std::thread::spawn(move || Ask::new("DOT-2", "apply").on(&mut caller));
    points.wait_for(1);
    bench.exec(change);
    drop(points);
    asked.join().unwrap().expect("a row")
}

/// A run that the worker claims after it learnt the extension's owner before this was committed, and everything else after.
fn claimed_meanwhile(bench: &Bench, change: &str) -> Run {
    let points = bench.cluster.fail_points(&["claim_begun=wait"]);
    let run = bench.apply("DOT-1");
    points.wait_for(1);
    bench.exec(change);
    drop(points);
    run
}

fn bench() -> (Bench, String, String) {
    let (bench, owner) = owned(Arc::new(Cluster::start(&[], &[])));
    let heir = bench.role("heir");
    bench.until(&bench.apply("DOT-3"), "succeeded");
    (bench, format!("REASSIGN OWNED BY {owner} TO {heir}"), format!("REASSIGN OWNED BY {heir} TO {owner}"))
}

#[test]
fn o5_the_moment_of_a_change_of_owners_refuses_no_run() {
    let (bench, there, back) = bench();
    bench.until(&claimed_meanwhile(&bench, &there), "succeeded");
    bench.exec(&back);
    let run = asked_meanwhile(&bench, &there);
    assert_eq!(run.status(), "queued", "{run:?}");
    bench.until(&run, "succeeded");
}

/// What looks like such a moment and is none: the table alone goes to somebody else.
#[test]
fn o5_a_catalogue_that_is_given_to_a_stranger_in_that_moment_is_refused() {
    let (bench, _, _) = bench();
    let stranger = bench.role("stranger");
    let there = format!("ALTER TABLE dot_tools OWNER TO {stranger}");
    let run = asked_meanwhile(&bench, &there);
    assert_eq!((run.status(), run.reason()), ("refused", "catalogue_unreadable"), "{run:?}");
    bench.exec("ALTER TABLE dot_tools OWNER TO postgres");
    let run = bench.until(&claimed_meanwhile(&bench, &there), "refused");
    assert_eq!(run.reason(), "catalogue_unreadable", "{run:?}");
}

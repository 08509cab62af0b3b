//! D1: a run, its gate decision and its outbox row commit or vanish together with the caller's transaction.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use crate::harness::bench::{Params, TOOLS};
use crate::harness::run::Ask;
use crate::harness::{Bench, figure, rounds, until};

const NO_PARAMS: Params<'_> = &[];

/// One step of a transaction.
#[derive(Clone, Debug)]
enum Step {
    /// A call: tool and mode. It may be refused, since the tool's lease may be held.
    Call(usize, &'static str),
    Savepoint,
    /// Both of the innermost savepoint, if there is one.
    RollbackTo,
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Commit,
    Rollback,
    PrepareCommit,
    PrepareRollback,
}

fn steps() -> impl Strategy<Value = (Vec<Step>, End)> {
    let modes = prop_oneof![6 => Just("apply"), 2 => Just("verify"), 1 => Just("plan")];
    let step = prop_oneof![
        5 => (0..TOOLS.len(), modes).prop_map(|(tool, mode)| Step::Call(tool, mode)),
        2 => Just(Step::Savepoint),
        2 => Just(Step::RollbackTo),
        1 => Just(Step::Release),
    ];
    let end = prop_oneof![
        3 => Just(End::Commit),
        2 => Just(End::Rollback),
        2 => Just(End::PrepareCommit),
        1 => Just(End::PrepareRollback),
    ];
    (prop::collection::vec(step, 1..9), end)
}

/// What must be left, and what must not be.
#[derive(Default)]
struct Expected {
    kept: BTreeSet<Uuid>,
    gone: BTreeSet<Uuid>,
    prepared: usize,
}

/// Plays one transaction, and notes what has to come of it.
fn play(bench: &Bench, steps: &[Step], end: End, expected: &mut Expected) {
    // The runs of each open level, the transaction's own first.
    let mut levels: Vec<Vec<Uuid>> = vec![Vec::new()];
    let mut gone = Vec::new();
    bench.exec("BEGIN");
    for step in steps {
        let depth = levels.len() - 1;
        match step {
            Step::Call(tool, mode) => {
                let run = bench.ask(&Ask::new(TOOLS[*tool], mode));
                levels[depth].push(run.id());
            }
            Step::Savepoint => {
                levels.push(Vec::new());
                bench.exec(&format!("SAVEPOINT s{}", depth + 1));
            }
            Step::RollbackTo if depth > 0 => {
                gone.append(&mut levels[depth]);
                bench.exec(&format!("ROLLBACK TO s{depth}"));
            }
            Step::Release if depth > 0 => {
                let mut inner = levels.pop().unwrap_or_default();
                levels[depth - 1].append(&mut inner);
                bench.exec(&format!("RELEASE s{depth}"));
            }
            Step::RollbackTo | Step::Release => {}
        }
    }
    let runs = levels.concat();
    let name = format!("t{}", expected.prepared);
    let last = match end {
        End::Commit => ["COMMIT".to_owned(), String::new()],
        End::Rollback => ["ROLLBACK".to_owned(), String::new()],
        End::PrepareCommit => [format!("PREPARE TRANSACTION '{name}'"), format!("COMMIT PREPARED '{name}'")],
        End::PrepareRollback => [format!("PREPARE TRANSACTION '{name}'"), format!("ROLLBACK PREPARED '{name}'")],
    };
    for sql in last {
        bench.exec(&sql);
    }
    expected.prepared += 1;
    match end {
        End::Commit | End::PrepareCommit => expected.kept.extend(runs),
        End::Rollback | End::PrepareRollback => expected.gone.extend(runs),
    }
    expected.gone.extend(gone);
}

/// Rows that have no run, or runs that lack what belongs to them: none.
const ORPHANS: &str = "SELECT
      (SELECT count(*) FROM dot_wrapper.dot_queue q WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id AND r.finished_at IS NULL))
    + (SELECT count(*) FROM dot_wrapper.dot_run_event e WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = e.run_id))
    + (SELECT count(*) FROM dot_wrapper.dot_run_attempt a WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = a.run_id))
    + (SELECT count(*) FROM dot_wrapper.lease_grant g WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = g.run_id))
    + (SELECT count(*) FROM dot_iu_runtime_lease l WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.lease_grant g WHERE l.holder = 'dot_run:' || g.run_id))
    + (SELECT count(*) FROM dot_wrapper.dot_run r WHERE jsonb_array_length(r.gates) = 0)
    + (SELECT count(*) FROM dot_wrapper.dot_run r WHERE NOT EXISTS
          (SELECT FROM dot_wrapper.dot_run_event e WHERE e.run_id = r.run_id))
    + (SELECT count(*) FROM dot_wrapper.dot_run r WHERE r.finished_at IS NULL AND NOT EXISTS
          (SELECT FROM dot_wrapper.dot_queue q WHERE q.run_id = r.run_id))";

#[test]
fn d1_what_a_transaction_does_commits_or_vanishes_as_one() {
    let cases = rounds(60, 1000);
    let bench = Bench::own(&["max_prepared_transactions = 10", "dot_wrapper.poll_interval = 1"]);
    let mut runner = TestRunner::new(Config { cases: 1, failure_persistence: None, ..Config::default() });
    let mut expected = Expected::default();
    for _ in 0..cases {
        let (steps, end) = steps().new_tree(&mut runner).unwrap().current();
        play(&bench, &steps, end, &mut expected);
        assert_eq!(bench.one::<i64>(ORPHANS, NO_PARAMS), 0, "after {steps:?} {end:?}");
    }
    until("all is over", || {
        (bench.one::<i64>("SELECT count(*) FROM dot_wrapper.dot_queue", NO_PARAMS) == 0).then_some(())
    });
    let left: BTreeSet<Uuid> = bench.all("SELECT run_id FROM dot_wrapper.dot_run", NO_PARAMS).into_iter().collect();
    assert_eq!(left, expected.kept, "the ledger has what was committed");
    assert_eq!(bench.one::<i64>(ORPHANS, NO_PARAMS), 0);
    let admitted: BTreeSet<Uuid> =
        bench.all("SELECT run_id FROM dot_wrapper.dot_run WHERE admitted", NO_PARAMS).into_iter().collect();
    let requests = bench.agent.requests();
    let sent: BTreeSet<Uuid> = requests.iter().filter_map(|request| request.run_id()).collect();
    assert_eq!(sent, admitted, "the agent was asked for what was admitted");
    assert_eq!(requests.len(), sent.len(), "each once");
    let wrong = sent.intersection(&expected.gone).count();
    assert!(!expected.gone.is_empty() && !admitted.is_empty());
    figure(
        "D1",
        &format!(
            "{cases} random transactions: {} runs kept, {} rolled back, 0 orphan rows, {} requests, {wrong} for what was rolled back",
            expected.kept.len(),
            expected.gone.len(),
            requests.len()
        ),
    );
    assert_eq!(wrong, 0);
}

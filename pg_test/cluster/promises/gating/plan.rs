//! G4: a plan leaves a row in the ledger and nothing else; verify reaches only tools that declare it, and says so.

use std::collections::HashMap;
use std::process::Command;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, figure, os, rounds};

/// A small generator of numbers, the same each time: what fails once fails again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// A value of any shape that arguments can have.
    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(1 << 31)),
            3 => json!("x".repeat(usize::try_from(self.below(60)).unwrap())),
            4 => json!(
                ["ü\"\\\u{1}", "'; DROP TABLE dot_tools; --", "{code}", "\u{1F600}"]
                    [usize::try_from(self.below(4)).unwrap()]
            ),
            5 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => json!({"a": self.value(depth - 1), "mode": self.value(depth - 1), "": 1}),
        }
    }
}

/// Processes below the postmaster that are not its own children: programs that a backend or a worker has started.
fn grandchildren(bench: &Bench) -> usize {
    let table = os::run(Command::new("ps").args(["-e", "-o", "pid=,ppid="]));
    let parents: HashMap<i32, i32> = table
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        })
        .collect();
    let postmaster = bench.cluster.postmaster();
    parents.values().filter(|parent| parents.get(parent) == Some(&postmaster)).count()
}

#[test]
fn g4_a_plan_touches_nothing() {
    let bench = Bench::shared();
    bench.worker();
    bench.exec(
        "INSERT INTO dot_wrapper.policy (scope, name, modes, lease) VALUES
             ('tool', 'DOT-2', '{verify}', NULL), ('tool', 'DOT-3', '{plan}', 'none'), ('tool', 'DOT-4', NULL, 'x:{args.a}');
         UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-5'",
    );
    let counts = "SELECT jsonb_build_array((SELECT count(*) FROM dot_wrapper.dot_queue), (SELECT count(*) FROM dot_wrapper.lease_grant),
        (SELECT count(*) FROM dot_iu_runtime_lease), (SELECT count(*) FROM dot_wrapper.dot_run_attempt),
        (SELECT count(*) FROM dot_wrapper.usage_debt), (SELECT last_value FROM dot_wrapper.dot_queue_seq_seq))";
    let (before, connections): (Value, usize) = (bench.one(counts, &[]), bench.agent.connections());
    let codes = ["DOT-1", "DOT-2", "DOT-3", "DOT-4", "DOT-5", "DOT-NONE", "'; --", "ü"];
    let (count, mut numbers, mut planned) = (rounds(500, 10_000), Numbers(42), 0);
    let mut session = bench.connect();
    for _ in 0..count {
        let code = codes[usize::try_from(numbers.below(8)).unwrap()];
        let key = format!("k{}", numbers.below(20));
        let ask = Ask {
            args: json!({"a": numbers.value(3)}),
            process: (numbers.below(3) == 0).then(|| Uuid::from_u128(u128::from(numbers.below(5)))),
            key: (numbers.below(3) == 0).then_some(key.as_str()),
            ..Ask::new(code, "plan")
        };
        let run = ask.on(&mut session).unwrap_or_else(|error| panic!("{error:?} for {ask:?}"));
        assert!(["planned", "refused"].contains(&run.status()), "{run:?}");
        planned += usize::from(run.status() == "planned");
    }
    assert!(planned > count / 4 && planned < count, "the generator makes both kinds: {planned}");
    bench.look();
    assert_eq!(grandchildren(&bench), 0);
    assert_eq!((bench.one::<Value>(counts, &[]), bench.agent.connections()), (before, connections));
    let rows: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE mode = 'plan' AND attempts = 0", &[]);
    assert_eq!(usize::try_from(rows).unwrap(), count, "and each is a row");
    figure(
        "G4",
        &format!("{count} generated plans ({planned} planned): 0 queue rows, 0 leases, 0 connections, 0 children"),
    );
}

#[test]
fn g4_verify_reaches_only_tools_that_declare_it_and_carries_its_mode() {
    let bench = Bench::shared();
    bench.worker();
    let undeclared = ["'{apply}'", "'{plan}'", "'{plan,apply}'", "'{}'"];
    for (number, modes) in undeclared.iter().enumerate() {
        bench.exec(&format!(
            "INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-{}', {modes})",
            number + 1
        ));
        let run = bench.verify(&format!("DOT-{}", number + 1));
        assert_eq!((run.status(), run.reason()), ("refused", "mode_not_offered"), "{modes}");
    }
    // Nor where nothing is declared at all, for the tool or for its engine.
    bench.exec("UPDATE dot_wrapper.policy SET modes = NULL WHERE name = 'agent_api'");
    assert_eq!(bench.verify("DOT-5").reason(), "mode_not_offered");
    bench.look();
    assert_eq!(bench.agent.connections(), 0);

    bench.exec("UPDATE dot_wrapper.policy SET modes = '{verify,apply}' WHERE name = 'agent_api'");
    let asked = bench.until(&bench.verify("DOT-5"), "succeeded");
    let request = bench.agent.wait_for(1).pop().unwrap();
    assert_eq!((request.field("mode"), request.run_id()), ("verify", Some(asked.id())));
    figure(
        "G4.verify",
        &format!("{} undeclared: refused, 0 connections; a declared one carries mode verify", undeclared.len() + 1),
    );
}

//! What a refusal costs, against an admission: processor time of the session for a call, commit included. One session, one
//! call after the other, the worker off.

use std::time::Instant;

use serde_json::json;

use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::process;
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 2, wait_ms: 0, all_calls: true };

/// One way to call.
pub struct Way {
    name: &'static str,
    /// A statement with the call's number as `$1`.
    call: &'static str,
    /// What its run comes to.
    reason: Option<&'static str>,
    /// What holds meanwhile.
    before: &'static str,
}

/// Calls go through.
const OPEN: &str = "UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled'";
const SHUT: &str = "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'";

/// What the others are held against.
pub const ADMITTED: Way = Way {
    name: "admitted",
    call: "SELECT r.reason FROM fn_dot_run('FAST-1', 'apply', args => jsonb_build_object('n', $1::bigint)) r",
    reason: None,
    before: OPEN,
};
/// Refused late, when everything else was asked.
pub const TOGGLE: Way = Way {
    name: "toggle",
    call: "SELECT r.reason FROM fn_dot_run('FAST-1', 'apply', args => jsonb_build_object('n', $1::bigint)) r",
    reason: Some("toggle_off"),
    before: SHUT,
};
const REFUSED: [Way; 4] = [
    Way {
        name: "unknown tool",
        call: "SELECT r.reason FROM fn_dot_run('NO-SUCH', 'apply', args => jsonb_build_object('n', $1::bigint)) r",
        reason: Some("uncatalogued"),
        before: OPEN,
    },
    Way {
        name: "mode",
        call: "SELECT r.reason FROM fn_dot_run('FAST-1', 'verify', args => jsonb_build_object('n', $1::bigint)) r",
        reason: Some("mode_not_offered"),
        before: OPEN,
    },
    TOGGLE,
    Way {
        name: "lease",
        call: "SELECT r.reason FROM fn_dot_run('FAST-1', 'apply', args => jsonb_build_object('n', 'held', 'i', $1::bigint)) r",
        reason: Some("lease_held"),
        before: OPEN,
    },
];

/// In turn with the admitted ones.
pub fn measure(world: &World) -> Outcome {
    let count = world.options.size(3000, 500);
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(false);
    let held = "SELECT r.reason FROM fn_dot_run('FAST-1', 'apply', args => jsonb_build_object('n', 'held')) r";
    assert_eq!(ours.session.query_one(held, &[]).expect("a run").get::<_, Option<String>>(0), None);
    let mut caller = Caller::new(&mut ours);
    // Every plan of the session is made before it counts.
    REFUSED.iter().chain([&ADMITTED]).for_each(|way| {
        caller.calls(way, 100);
    });
    let mut admitted = Vec::new();
    let mut refused: [Vec<Cost>; 4] = Default::default();
    for _ in 0..world.options.rounds {
        world.settle();
        admitted.push(caller.calls(&ADMITTED, count));
        for (way, costs) in REFUSED.iter().zip(&mut refused) {
            costs.push(caller.calls(way, count));
        }
    }
    let figure = |(way, costs): (&Way, &Vec<Cost>)| {
        let cpu = |costs: &[Cost]| costs.iter().map(|cost| cost.cpu_us).collect::<Vec<_>>();
        let took = |costs: &[Cost]| costs.iter().map(|cost| cost.took_us).collect::<Vec<_>>();
        Figure::new(&format!("refused by {}", way.name), "us CPU", cpu(costs))
            .against("admitted", cpu(&admitted))
            .target(Target::RatioAtMost(1.0))
            .raw(json!({ "took_us": took(costs), "admitted_took_us": took(&admitted), "calls": count }))
    };
    let figures = REFUSED.iter().zip(&refused).map(figure).collect();
    Outcome { figures, plots: Vec::new() }
}

/// What one call costs, in µs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of the processors, by the session.
    pub cpu_us: f64,
    /// For who waits for it.
    pub took_us: f64,
}

/// A session that calls.
pub struct Caller<'a, 'w> {
    ours: &'a mut Ours<'w>,
    pid: i32,
    number: i64,
}

impl<'a, 'w> Caller<'a, 'w> {
    /// The database's own session.
    pub fn new(ours: &'a mut Ours<'w>) -> Self {
        let row = ours.session.query_one("SELECT pg_backend_pid(), count(*) FROM dot_wrapper.dot_run", &[]);
        let row = row.expect("a query");
        Caller { ours, pid: row.get(0), number: 1_000_000_000 + row.get::<_, i64>(1) }
    }

    /// So many calls of a kind, each a transaction.
    pub fn calls(&mut self, way: &Way, count: usize) -> Cost {
        self.ours.session.batch_execute(way.before).expect("a toggle");
        let statement = self.ours.session.prepare(way.call).expect("a statement");
        let (began, cpu) = (Instant::now(), process::cpu_ms(self.pid));
        for _ in 0..count {
            self.number += 1;
            let reason: Option<String> =
                self.ours.session.query_one(&statement, &[&self.number]).expect("a run").get(0);
            assert_eq!(reason.as_deref(), way.reason, "{}", way.name);
        }
        let count = count as f64;
        let cost = Cost {
            cpu_us: (process::cpu_ms(self.pid) - cpu) * 1e3 / count,
            took_us: began.elapsed().as_secs_f64() * 1e6 / count,
        };
        self.ours.session.batch_execute(OPEN).expect("a toggle");
        cost
    }
}

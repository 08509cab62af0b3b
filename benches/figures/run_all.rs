//! `fn_dot_run_all` over a catalogue of 10,000 tools, in one statement: plans, and applies beside them.

use std::time::Instant;

use serde_json::json;

use crate::figure::{Figure, Outcome, Target};
use crate::ours::{Kind, Ours};
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 1, wait_ms: 0, all_calls: true };

/// Once to get warm, then a round each.
pub fn measure(world: &World) -> Outcome {
    let tools = world.options.size(10_000, 2_000);
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(false);
    furnish(&mut ours, tools);
    let mut rounds = |mode: &str, status: &str| -> Vec<f64> {
        run_all(&mut ours, mode, status, tools);
        (0..world.options.rounds)
            .map(|_| {
                world.settle();
                run_all(&mut ours, mode, status, tools)
            })
            .collect()
    };
    let (plans, applies) = (rounds("plan", "planned"), rounds("apply", "queued"));
    let raw = json!({ "tools": tools });
    let figures = vec![
        Figure::new(&format!("fn_dot_run_all, {tools} plans in one statement"), "plans/s", plans)
            .target(Target::AtLeast(10_000.0))
            .raw(raw.clone()),
        Figure::new(&format!("  the same, {tools} applies"), "runs/s", applies).raw(raw),
    ];
    Outcome { figures, plots: Vec::new() }
}

/// Tools with one policy, that of their engine, and a lease for each tool and round.
pub fn furnish(ours: &mut Ours, tools: usize) {
    let sql = format!(
        "INSERT INTO dot_tools (code, name, status, execution_engine, domain)
             SELECT 'MANY-' || n, 'a tool of many', 'active', 'agent_api', 'many' FROM generate_series(1, {tools}) n;
         UPDATE dot_wrapper.policy SET endpoint = 'fast', lease = '{{code}}:{{args.n}}' WHERE scope = 'engine';
         VACUUM (ANALYZE) dot_tools"
    );
    for statement in sql.split(';') {
        ours.session.batch_execute(statement).expect("tools");
    }
}

/// A second's worth of runs: how many are made and committed.
pub fn run_all(ours: &mut Ours, mode: &str, status: &str, tools: usize) -> f64 {
    let sql = "SELECT count(*) FILTER (WHERE r.run_status = $2), count(*)
               FROM fn_dot_run_all('{\"domain\": [\"many\"]}', $1, args => jsonb_build_object('n', gen_random_uuid())) r";
    let began = Instant::now();
    let row = ours.session.query_one(sql, &[&mode, &status]).expect("runs");
    let took = began.elapsed().as_secs_f64();
    let (made, all): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((made, all), (tools as i64, tools as i64), "runs of another status, or another number");
    tools as f64 / took
}

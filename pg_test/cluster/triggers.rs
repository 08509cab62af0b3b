//! Row triggers (docs/triggers.md): bindings and the triggers made of them, events and their runs, and what they cost.

mod cost;
mod events;
mod joining;
mod own;
mod restored;
mod sync;

use serde_json::Value;

use crate::harness::{Bench, Reply, Request, Run, until};

/// A bench with a table `t` that is bound to DOT-1 as this says, on top of code and relation.
fn bound(columns: &str, values: &str) -> Bench {
    let bench = Bench::shared();
    let (columns, values) = if columns.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(", {columns}"), format!(", {values}"))
    };
    bench.exec(&format!(
        "UPDATE dot_tools SET trigger_type = 'event';
         CREATE TABLE t (id int PRIMARY KEY, v int);
         INSERT INTO dot_wrapper.trigger_binding (code, relation{columns}) VALUES ('DOT-1', 'public.t'{values})"
    ));
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.t|dot_wrapper:DOT-1|created"]);
    bench
}

/// What a sync did: code, relation, trigger, action, detail.
fn synced(session: &mut postgres::Client) -> Vec<String> {
    let sql = "SELECT concat_ws('|', code, relation, trigger_name, action, detail) FROM fn_dot_trigger_sync() ORDER BY code, relation";
    session.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The runs that events asked for, oldest first.
fn runs(bench: &Bench) -> Vec<Run> {
    let sql = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'trigger' ORDER BY run_id";
    bench.all(sql, &[]).into_iter().map(Run).collect()
}

/// Their arguments.
fn arguments(bench: &Bench) -> Vec<Value> {
    runs(bench).into_iter().map(|run| run.0["args"].clone()).collect()
}

/// Keeps the endpoint busy, so that whatever is asked for stays queued until the request is answered.
pub fn busy(bench: &Bench) -> Request {
    bench.exec("UPDATE dot_wrapper.endpoint SET max_in_flight = 1");
    bench.agent.plan(|request| if request.field("dot_code") == "DOT-6" { Reply::Hold } else { Reply::succeeded() });
    bench.apply("DOT-6");
    until("the endpoint is busy", || {
        bench.agent.requests().into_iter().find(|request| request.field("dot_code") == "DOT-6")
    })
}

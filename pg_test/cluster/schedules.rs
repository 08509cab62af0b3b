//! Schedules (docs/schedules.md): jobs of the real pg_cron, ticks that it makes, and ticks that are asked for by hand.

mod real;
mod sync;
mod ticks;

use crate::harness::{Bench, Run};

/// What a sync did: code, action, detail.
fn synced(bench: &Bench, session: &mut postgres::Client) -> Vec<String> {
    let sql = "SELECT concat_ws('|', code, action, detail) FROM fn_dot_schedule_sync() ORDER BY code, action";
    session.query(sql, &[]).unwrap_or_else(|e| panic!("{e:?} in {}", bench.name)).iter().map(|row| row.get(0)).collect()
}

/// Asks for a tool's tick.
fn tick(session: &mut impl postgres::GenericClient, code: &str) -> Run {
    let row = session.query_one("SELECT to_jsonb(r) FROM fn_dot_tick($1) r", &[&code]);
    Run(row.unwrap_or_else(|error| panic!("{error:?} for {code}")).get(0))
}

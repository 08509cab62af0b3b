//! R1, R3 and R4, and the protection of the far side: limits that hold, agents that are left alone, and tenants who do
//! not feel each other. What all of these tests need is here; the tests are below.

mod breaker;
mod depth;
mod fair;
mod horizon;
mod rate;

use std::time::{Duration, Instant};

use crate::harness::agent::Agent;
use crate::harness::{Bench, until};

/// No leases, so that runs of one tool may overlap; `extra` sets more columns of the engine's policy.
fn bench(extra: &str) -> Bench {
    bench_with(&[], extra)
}

/// As [`bench`], with more lines for the server's configuration.
fn bench_with(conf: &[&str], extra: &str) -> Bench {
    let bench = Bench::own(&[&["max_connections = 80"], conf].concat());
    bench.exec(&format!("UPDATE dot_wrapper.policy SET lease = 'none'{extra} WHERE name = 'agent_api'"));
    bench
}

/// Another agent, at an endpoint of that name, for these tools.
fn second_agent(bench: &Bench, name: &str, tools: &[&str]) -> Agent {
    let agent = Agent::start();
    let port = agent.port();
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.endpoint (name, base_url, breaker_failures) VALUES ('{name}', 'http://127.0.0.1:{port}', 0);
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}')"
    ));
    for tool in tools {
        bench.exec(&format!(
            "INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('tool', '{tool}', '{name}')"
        ));
    }
    agent
}

/// Requests `count` applies in one transaction; how many were admitted.
fn flood(bench: &Bench, code: &str, count: usize) -> i64 {
    let sql = "SELECT count(*) FILTER (WHERE (r).run_status = 'queued')
               FROM (SELECT fn_dot_run($1, 'apply') AS r FROM generate_series(1, $2::integer) OFFSET 0) x";
    bench.one(sql, &[&code, &i32::try_from(count).unwrap()])
}

fn waiting(bench: &Bench) -> i64 {
    bench.one("SELECT count(*) FROM dot_wrapper.dot_queue WHERE state = 'queued'", &[])
}

/// Returns when every run is over.
fn all_over(bench: &Bench) {
    let sql = "SELECT count(*) FROM dot_wrapper.dot_queue";
    until("the queue is empty", || (bench.one::<i64>(sql, &[]) == 0).then_some(()));
}

/// The nearest-rank percentile.
fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// How long single runs take, one after the other, from the request to the end as its caller sees it.
fn durations(session: &mut postgres::Client, code: &str, count: usize) -> Vec<Duration> {
    let one = |_| {
        let begun = Instant::now();
        let id: uuid::Uuid = session.query_one("SELECT run_id FROM fn_dot_run($1, 'apply')", &[&code]).unwrap().get(0);
        let row = session.query_one("SELECT run_status FROM fn_dot_wait($1, '30 s')", &[&id]).unwrap();
        assert_eq!(row.get::<_, String>(0), "succeeded");
        begun.elapsed()
    };
    (0..count).map(one).collect()
}

//! Many sessions at once, shared keys, cancels, deletes, an agent of many moods, and a worker that is killed: at the end every
//! row is as its run is.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::served;
use crate::harness::bench::db_error;
use crate::harness::{Bench, Reply, os, until};

const SESSIONS: u64 = 6;
const ROUNDS: u64 = 40;

/// Plain and repeatable enough: what counts is that the mix is wide.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// One session's part; errors that concurrency explains are tried no further.
fn ask(bench: &Bench, role: &str, number: u64, process: uuid::Uuid) {
    let mut session = bench.connect_as(role);
    for round in 0..ROUNDS {
        let dice = mixed(number * 1000 + round);
        let (tool, mode) = (dice % 6 + 1, ["plan", "verify", "apply", "apply"][(dice >> 8) as usize % 4]);
        let sql = match (dice >> 16) % 8 {
            0 => format!("INSERT INTO dot_run_request (code, mode) SELECT 'DOT-' || n, '{mode}' FROM generate_series(1, 4) n"),
            1 => "SELECT fn_dot_cancel(w.run_id, 'storm') FROM (SELECT run_id FROM dot_run_request WHERE finished_at IS NULL ORDER BY random() LIMIT 1) w".into(),
            2 => "DELETE FROM dot_run_request WHERE id = (SELECT id FROM dot_run_request ORDER BY random() LIMIT 1)".into(),
            3..=5 => format!(
                "INSERT INTO dot_run_request (code, mode, process_run_id, idempotency_key) VALUES ('DOT-{tool}', '{mode}', '{process}', 'k{}')",
                (dice >> 24) % 12
            ),
            _ => format!("INSERT INTO dot_run_request (code, mode) VALUES ('DOT-{tool}', '{mode}')"),
        };
        let outcome = session.transaction().and_then(|mut transaction| {
            transaction.batch_execute(&sql)?;
            if (dice >> 32).is_multiple_of(7) { transaction.rollback() } else { transaction.commit() }
        });
        if let Err(error) = outcome {
            if session.is_closed() {
                session = until("the server is back", || bench.cluster.connect_as(&bench.name, role).ok());
                continue;
            }
            let code = db_error(error).code().code().to_owned();
            assert!(["40P01", "40001", "55P03"].contains(&code.as_str()), "{code} for {sql}");
        }
    }
}

#[test]
fn every_row_is_as_its_run_is_after_a_storm() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.exec(&format!(
        "UPDATE dot_wrapper.policy SET lease = 'none', retry_base_ms = 5, max_attempts = 3, connect_timeout_ms = 200,
             total_timeout_ms = 500 WHERE name = 'agent_api';
         UPDATE dot_wrapper.endpoint SET status_path = '/v1/runs/{{run_id}}';
         GRANT DELETE ON dot_run_request TO {role}; GRANT EXECUTE ON FUNCTION fn_dot_cancel TO {role}"
    ));
    let count = AtomicU64::new(0);
    bench.agent.plan(move |request| {
        let dice = mixed(count.fetch_add(1, Ordering::Relaxed));
        match (request.method.as_str(), dice % 6) {
            ("GET", 0) => Reply::Json(503, json!({})),
            ("GET", 1) => Reply::Json(404, json!({"status": "unknown"})),
            ("GET", _) => Reply::ended("succeeded"),
            (_, 0) => Reply::Json(429, json!({})),
            (_, 1) => Reply::Close,
            (_, 2) => Reply::Json(200, json!({"status": "failed", "result": {"dice": dice}})),
            _ => Reply::succeeded(),
        }
    });
    let process = uuid::Uuid::now_v7();
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                scope.spawn({
                    let (bench, role) = (&bench, &role);
                    move || ask(bench, role, number, process)
                })
            })
            .collect();
        until("runs are on their way", || (bench.agent.count() > 20).then_some(()));
        assert!(os::signal(bench.worker(), "KILL"));
        sessions.into_iter().for_each(|session| session.join().unwrap());
    });
    until("the server is back", || bench.cluster.connect_as(&bench.name, "postgres").ok());
    bench.forget_session();
    bench.agent.reply(Reply::ended("succeeded"));
    bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = '-infinity'; SELECT dot_wrapper.announce()");
    let open = "SELECT count(*) FROM dot_wrapper.dot_queue";
    until("everything is over", || (bench.one::<i64>(open, &[]) == 0).then_some(()));
    let differ = "SELECT count(*) FROM dot_run_request w LEFT JOIN dot_wrapper.dot_run r USING (run_id)
                  WHERE w.reason IS DISTINCT FROM 'invalid_request'
                    AND (w.run_status, w.reason, w.message, w.result, w.finished_at)
                        IS DISTINCT FROM (r.run_status, r.reason, r.message, r.result, r.finished_at)";
    until("all rows are up", || (bench.one::<i64>(differ, &[]) == 0).then_some(()));
    let orphans = "SELECT count(*) FROM dot_wrapper.dot_run r WHERE r.source <> 'request'";
    assert_eq!(bench.one::<i64>(orphans, &[]), 0);
    let told = "SELECT string_agg(run_status || ' ' || n, ', ' ORDER BY run_status)
                FROM (SELECT run_status, count(*) AS n FROM dot_run_request GROUP BY 1) x";
    println!("a storm of requests ended as: {}", bench.one::<String>(told, &[]));
}

//! The request table `dot_run_request`: who may insert and see what, what a row shows of its run, and what never makes a run.
//! Over HTTP it is tested by .ci/directus.

mod attempts;
mod forged;
mod outcome;
mod planted;
mod restored;
mod rows;
mod storm;
mod upsert;

use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Bench, until};

/// A bench, and a role that may INSERT and SELECT on the request table and nothing else.
fn served(bench: Bench) -> (Bench, String) {
    let role = requester(&bench, "api");
    (bench, role)
}

/// A role that may INSERT and SELECT on the request table and nothing else.
fn requester(bench: &Bench, name: &str) -> String {
    let role = bench.role(name);
    bench.exec(&format!("GRANT INSERT, SELECT ON dot_run_request TO {role}"));
    role
}

/// The rows that a statement of a role returns, as JSON.
fn rows(bench: &Bench, role: &str, sql: &str) -> Vec<Value> {
    let sql = format!("WITH w AS ({sql}) SELECT to_jsonb(w) FROM w");
    let found = bench.connect_as(role).query(&sql, &[]);
    found.unwrap_or_else(|error| panic!("{error:?} in {sql}")).iter().map(|row| row.get(0)).collect()
}

/// Requests a run as a role, with these columns and values; its row.
fn request(bench: &Bench, role: &str, columns: &str, values: &str) -> Value {
    let sql = format!("INSERT INTO dot_run_request ({columns}) VALUES ({values}) RETURNING *");
    rows(bench, role, &sql).pop().expect("a row")
}

/// An apply of a tool as a role.
fn apply(bench: &Bench, role: &str, code: &str) -> Value {
    request(bench, role, "code, mode", &format!("'{code}', 'apply'"))
}

/// A row by its id, as its owner sees it.
fn row(bench: &Bench, id: &Value) -> Value {
    let id: Uuid = id.as_str().and_then(|id| id.parse().ok()).expect("an id");
    bench.one("SELECT to_jsonb(w) FROM dot_run_request w WHERE w.id = $1", &[&id])
}

/// The row, as soon as it says this, and is as the ledger is.
fn until_says(bench: &Bench, asked: &Value, status: &str) -> Value {
    let now = until(&format!("the request is {status}"), || {
        Some(row(bench, &asked["id"])).filter(|row| row["run_status"] == status)
    });
    assert!(agrees(bench, &now), "{now:?}");
    now
}

/// Whether a row is as the ledger is.
fn agrees(bench: &Bench, row: &Value) -> bool {
    let id: Uuid = row["run_id"].as_str().and_then(|id| id.parse().ok()).expect("a run");
    let run = bench.run(id).0;
    ["run_status", "reason", "message", "result", "finished_at", "process_run_id", "code", "mode", "args"]
        .iter()
        .all(|column| run[*column] == row[*column])
}

/// How many runs there are.
fn runs(bench: &Bench) -> i64 {
    bench.one("SELECT count(*) FROM dot_wrapper.dot_run", &[])
}

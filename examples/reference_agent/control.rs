//! What a test needs to see and steer. A real agent has none of this; it is open to whoever reaches the port.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::Agent;

/// `GET /control/requests`: the records, in the order of arrival.
pub async fn requests(State(agent): State<Arc<Agent>>) -> Json<Vec<Value>> {
    Json(agent.journal.records())
}

/// `GET /control/counts`: how many requests there were of each mode, and how many of them changed the world.
pub async fn counts(State(agent): State<Arc<Agent>>) -> Json<Value> {
    let records = agent.journal.records();
    let count = |fits: &dyn Fn(&Value) -> bool| records.iter().filter(|record| fits(record)).count();
    let of_mode = |mode: &str| count(&|record| record["body"]["mode"] == mode);
    Json(json!({
        "requests": records.len(),
        "verifies": of_mode("verify"),
        "applies": of_mode("apply"),
        "effects": count(&|record| record["decision"]["executed"] == true),
    }))
}

/// `POST /control/reset`: forgets records, runs and tokens.
pub async fn reset(State(agent): State<Arc<Agent>>) {
    agent.journal.clear();
    agent.book.reset();
}

/// `POST /control/release`: lets all held answers go.
pub async fn release(State(agent): State<Arc<Agent>>) {
    agent.book.release();
}

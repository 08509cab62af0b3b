//! What a test needs to see and steer. A real agent has none of this; it is open to whoever reaches the port.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use crate::Agent;

/// `GET /control/requests`: the records, in the order of arrival.
pub async fn requests(State(agent): State<Arc<Agent>>) -> Json<Vec<Value>> {
    Json(agent.journal.records())
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

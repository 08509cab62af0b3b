//! `dot_wrapper.dot_run_event`: state changes at the request, and remarks. Changes that the worker makes are recorded
//! by the statements that make them (`queue`).

use serde_json::Value;
use uuid::Uuid;

use super::ledger::list;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::state::RunStatus;

/// Records a run's first state. The gates' decisions are in the run's own row.
///
/// # Errors
/// XX000 only.
pub fn born(run_id: Uuid, status: RunStatus) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_run_event (run_id, event, to_status) VALUES ($1, $2, $2)";
    spi::run(sql, &[spi::uuid(run_id).into(), status.as_str().into()]).map(drop)
}

/// A remark: something that happened to a run without changing its state.
#[derive(Clone, Debug)]
pub struct Remark {
    /// The run.
    pub run_id: Uuid,
    /// The attempt it is about.
    pub attempt: Option<i32>,
    /// `accepted`, `late_answer`, `lease_lost`, `no_permit`.
    pub event: &'static str,
    /// The facts.
    pub detail: Value,
}

/// Records remarks.
///
/// # Errors
/// XX000 only.
pub fn remark(remarks: &[Remark]) -> Result<(), DotError> {
    if remarks.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, detail)
               SELECT x.run_id, x.event, x.attempt, x.detail
               FROM jsonb_to_recordset($1) AS x (run_id uuid, event text, attempt integer, detail jsonb)";
    let items = remarks
        .iter()
        .map(|r| serde_json::json!({"run_id": r.run_id, "event": r.event, "attempt": r.attempt, "detail": r.detail}))
        .collect();
    spi::run(sql, &[list(items).into()]).map(drop)
}

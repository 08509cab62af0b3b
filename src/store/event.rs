//! `dot_wrapper.dot_run_event`: state changes at the request, and remarks. Changes that the worker makes are recorded
//! by the statements that make them (`queue`).

use serde_json::Value;
use uuid::Uuid;

use super::extension;
use super::ledger::list;
use super::spi;
use crate::domain::canonical;
use crate::domain::error::DotError;
use crate::domain::seal::{self, EventFacts};
use crate::pg::session;

/// What marks events as ours: see `domain::seal`. Read once for a statement.
pub struct Marker(Vec<u8>);

impl Marker {
    /// The marker of this database.
    ///
    /// # Errors
    /// XX000 only.
    pub fn load() -> Result<Marker, DotError> {
        let instance = extension::find_instance(session::system_identifier())?;
        Ok(Marker(instance.map(|instance| instance.permit_key).unwrap_or_default()))
    }

    /// The mark; `None` where there is no key, as in a database that was restored.
    pub fn mark(&self, facts: &EventFacts<'_>) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| seal::mark(&self.0, facts).to_vec())
    }

    /// As [`Marker::mark`], of facts whose detail is given as its canonical text.
    fn mark_text(&self, facts: &EventFacts<'_>, detail: &str) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| seal::mark_text(&self.0, facts, detail).to_vec())
    }
}

/// A change of a run's state.
#[derive(Clone, Debug)]
pub struct Step {
    /// The run.
    pub run_id: Uuid,
    /// The attempt it is about.
    pub attempt: Option<i32>,
    /// The state that it leaves.
    pub from: &'static str,
    /// The state that follows; the event's name as well.
    pub to: &'static str,
    /// The facts, as `canonical::by_value` writes them: JSON that is marked and recorded as it is.
    pub detail: String,
}

/// Records changes of state that the same transaction has made.
///
/// # Errors
/// XX000 only.
pub fn steps(steps: &[Step]) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, detail, mark)
               SELECT x.run_id, x.event, x.attempt, x.from_status, x.event, x.detail::jsonb, x.mark
               FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::bytea[])
                   AS x (run_id, event, attempt, from_status, detail, mark)";
    if steps.is_empty() {
        return Ok(());
    }
    let marker = Marker::load()?;
    let mark = |step: &Step| {
        let facts = EventFacts {
            run_id: step.run_id,
            event: step.to,
            attempt: step.attempt,
            from_status: Some(step.from),
            to_status: Some(step.to),
            detail: &Value::Null,
        };
        marker.mark_text(&facts, &step.detail)
    };
    let args = [
        steps.iter().map(|step| spi::uuid(step.run_id)).collect::<Vec<_>>().into(),
        steps.iter().map(|step| step.to).collect::<Vec<_>>().into(),
        steps.iter().map(|step| step.attempt).collect::<Vec<_>>().into(),
        steps.iter().map(|step| step.from).collect::<Vec<_>>().into(),
        steps.iter().map(|step| step.detail.as_str()).collect::<Vec<_>>().into(),
        steps.iter().map(mark).collect::<Vec<_>>().into(),
    ];
    spi::steady_rows(sql, &args, |_| Ok(())).map(drop)
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
    let sql = "INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, detail, mark)
               SELECT x.run_id, x.event, x.attempt, x.detail, decode(x.mark, 'hex')
               FROM jsonb_to_recordset($1) AS x (run_id uuid, event text, attempt integer, detail jsonb, mark text)";
    let marker = Marker::load()?;
    let items = remarks
        .iter()
        .map(|r| {
            let facts = EventFacts {
                run_id: r.run_id,
                event: r.event,
                attempt: r.attempt,
                from_status: None,
                to_status: None,
                detail: &r.detail,
            };
            serde_json::json!({"run_id": r.run_id, "event": r.event, "attempt": r.attempt, "detail": r.detail,
                               "mark": marker.mark(&facts).map(|mark| canonical::hex(&mark))})
        })
        .collect();
    spi::run(sql, &[list(items).into()]).map(drop)
}

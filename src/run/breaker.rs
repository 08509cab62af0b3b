//! Circuit breakers in transactions: an operator's order, the warning for a caller, and the worker's memory of them.

use std::time::Instant;

use super::doctor::check::{self, Check};
use crate::domain::breaker::Order;
use crate::domain::call::shorten;
use crate::domain::decide;
use crate::domain::error::{DotError, SqlState};
use crate::domain::limits::Flow;
use crate::pg::rows::Row;
use crate::pg::user;
use crate::store::{breaker, extension};

/// The longest note, in characters.
const MAX_NOTE: usize = 500;

/// Orders an endpoint's breaker open, closed, or left to itself; its row of the view.
///
/// # Errors
/// 22004 for a NULL endpoint, state or note; 22023 for another word than `open`, `closed` and `auto`, and for a note that is
/// empty or longer than 500 characters; 42704 when there is no such endpoint.
pub fn order(endpoint: Option<String>, state: Option<String>, note: Option<String>) -> Result<Row, DotError> {
    let endpoint = endpoint.ok_or_else(|| null("endpoint"))?;
    let state = state.ok_or_else(|| null("state"))?;
    let order = Order::parse(&state).ok_or_else(|| {
        DotError::new(SqlState::InvalidParameterValue, format!("unknown state \"{}\"", shorten(&state)))
            .hint("It is open, closed, or auto, which takes an open back.")
    })?;
    let note = note.ok_or_else(|| null("note"))?;
    let note = note.trim();
    if note.is_empty() || note.chars().count() > MAX_NOTE || note.chars().any(char::is_control) {
        return Err(DotError::new(SqlState::InvalidParameterValue, "note must be a line of 1 to 500 characters")
            .hint("Say in a few words why; it is kept with the order."));
    }
    let caller = user::name_of(user::current());
    let extension = extension::for_writing()?;
    extension::as_owner(&extension, || {
        breaker::order(&extension.schema, &endpoint, order, note, &caller)?.ok_or_else(|| {
            DotError::new(SqlState::UndefinedObject, format!("there is no endpoint \"{}\"", shorten(&endpoint)))
                .hint("SELECT name FROM dot_wrapper.endpoint;")
        })
    })
}

fn null(name: &str) -> DotError {
    DotError::new(SqlState::NullValueNotAllowed, format!("{name} must not be null"))
}

/// Tells a worker that starts where the breakers stand.
///
/// # Errors
/// XX000 only.
pub fn restore(flow: &mut Flow) -> Result<(), DotError> {
    for (endpoint, breaker) in breaker::load()? {
        flow.restore(&endpoint, breaker);
    }
    Ok(())
}

/// Follows what operators have ordered since.
///
/// # Errors
/// XX000 only.
pub fn follow(flow: &mut Flow) -> Result<(), DotError> {
    let now = Instant::now();
    for (endpoint, number, order) in breaker::orders()?.iter() {
        flow.follow(endpoint, *number, *order, now);
    }
    Ok(())
}

/// Writes down what has changed. Tell the flow that it is saved once the transaction has committed.
///
/// # Errors
/// XX000 only.
pub fn save(flow: &Flow) -> Result<(), DotError> {
    flow.unsaved().into_iter().try_for_each(|(endpoint, state)| breaker::save(endpoint, state))
}

/// A line of the doctor's for each endpoint to which nothing goes now; none while all is well.
pub(super) fn checks(closures: &[breaker::Closure]) -> Vec<Check> {
    let check = |closure: &breaker::Closure| {
        let advice = match closure.state.as_str() {
            "paused" => "The agent asked for it; runs wait in the queue.".to_owned(),
            "half_open" => "The next run for it decides.".to_owned(),
            _ => format!(
                "Runs wait in the queue. Once it is well: SELECT fn_dot_breaker('{}', 'closed', 'why');",
                closure.endpoint.replace('\'', "''")
            ),
        };
        let until = closure.until.as_ref().map_or_else(String::new, |until| format!(", until {until}"));
        check::warn("breaker", format!("{}: {}{until}: {}", closure.endpoint, closure.state, closure.says), advice)
    };
    closures.iter().map(check).collect()
}

/// The warning for a run of an endpoint to which nothing goes now.
pub(super) fn warning(closures: &[breaker::Closure], endpoint: &str) -> Option<crate::domain::gate::Decision> {
    let closure = closures.iter().find(|closure| closure.endpoint == endpoint)?;
    Some(decide::breaker(endpoint, &closure.state, closure.until.as_deref(), &closure.says))
}

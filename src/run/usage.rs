//! The catalogue's counters: what is owed to them is paid in a transaction of its own, so that neither a lock nor a
//! trigger of the catalogue's owner can hold up or undo the end of a run.

use crate::domain::error::{DotError, SqlState};
use crate::pg::object::Use;
use crate::store::extension::Extension;
use crate::store::{catalogue, usage};

/// Pays all debts. The number of tools whose counters moved. On an error the caller aborts, and the debts stay.
///
/// # Errors
/// 55000 with the reason, when the catalogue does not take them.
pub fn pay(extension: &Extension) -> Result<usize, DotError> {
    let debts = usage::collect()?;
    if debts.is_empty() {
        return Ok(0);
    }
    let unpaid = |why: String| {
        Err(DotError::new(SqlState::ObjectNotInPrerequisiteState, "the catalogue's counters cannot be moved")
            .detail(why))
    };
    match catalogue::find(extension, Use::Write) {
        None => unpaid("there is no table dot_tools of a trusted owner".into()),
        Some(catalogue) => match catalogue.count(&debts) {
            Ok(()) => Ok(debts.len()),
            Err(why) => unpaid(why),
        },
    }
}

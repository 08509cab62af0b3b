//! `fn_dot_iu_commands`: the IU-command layer's rows, for the views that show them beside the runs.

use serde_json::Value;

use crate::domain::command::Command;
use crate::domain::error::DotError;
use crate::pg::user;
use crate::store::{command, extension};

/// What that layer's ledger tells the caller, with each row as it stands; nothing where there is no such table, or where he
/// may not read all of it himself. A table that cannot be read is told in a warning, and hides no run.
///
/// # Errors
/// XX000 only.
pub fn commands() -> Result<Vec<(Command, Value)>, DotError> {
    // Somebody's code is being asked: it must not ask its own table again by way of this.
    if user::is_restricted() {
        return Ok(Vec::new());
    }
    let Some(extension) = extension::for_reading()? else { return Ok(Vec::new()) };
    let Some(commands) = command::find(&extension, user::current())? else { return Ok(Vec::new()) };
    let rows = commands.read().unwrap_or_else(|why| {
        pgrx::warning!("dot_iu_command_run cannot be read and is not shown: {why}");
        Vec::new()
    });
    Ok(rows.into_iter().map(|row| (Command::from_row(&row), row)).collect())
}

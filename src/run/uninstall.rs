//! Before the ledger goes: who drops it by one command or another is asked for a second thought.

use pgrx::PgLogLevel;

use crate::domain::error::{DotError, SqlState};
use crate::domain::state::RunStatus;
use crate::pg::dropping::{self, Doomed, Watch};
use crate::pg::{object, scan};
use crate::{error, guc};

/// From here on nothing drops a ledger with runs in it, unless dot_wrapper.allow_drop is on. Call it from `_PG_init`.
pub fn install() {
    dropping::install(Watch { extension: c"dot_wrapper", table: c"dot_run", before });
}

fn before(doomed: Doomed) {
    if guc::allow_drop() {
        return;
    }
    if let Err(refusal) = ask(doomed) {
        error::report(refusal).report(PgLogLevel::ERROR);
    }
}

/// # Errors
/// 55000 when there are runs.
fn ask(doomed: Doomed) -> Result<(), DotError> {
    let (table, what) = match doomed {
        Doomed::Table(table) => (Some(table), "dropping dot_wrapper would drop its ledger"),
        Doomed::Member => {
            (object::find_relation(c"dot_run", c"dot_wrapper"), "taking dot_wrapper apart would endanger its ledger")
        }
    };
    let counts = table.map(|table| scan::count_by_text(table, c"run_status")).unwrap_or_default();
    let total: u64 = counts.values().sum();
    if total == 0 {
        return Ok(());
    }
    let of = |status: RunStatus| counts.get(status.as_str()).copied().unwrap_or(0);
    Err(DotError::new(SqlState::ObjectNotInPrerequisiteState, what)
        .detail(format!(
            "Runs in the ledger: {total}; of these not yet sent: {}, being executed: {}, in doubt: {}.",
            of(RunStatus::Queued),
            of(RunStatus::Running),
            of(RunStatus::InDoubt)
        ))
        .hint("Keep them with pg_dump first; then SET dot_wrapper.allow_drop = on, and do it again."))
}

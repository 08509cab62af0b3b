//! The functions of row triggers, declared in sql/55_triggers.sql.

use pgrx::iter::TableIterator;
use pgrx::name;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{woken, worker_facts};
use crate::error::report;
use crate::pg::trigger::{self, Firing};
use crate::run::bindings;
use crate::run::fire::{self, Fired};

/// From here on `dot_wrapper.fire()` asks for runs.
pub(super) fn install() {
    trigger::install(fired);
}

fn fired(firing: Firing) {
    let name = firing.trigger.clone();
    match fire::fire(firing, worker_facts()) {
        Ok(Fired::Run(requested)) => drop(woken(*requested)),
        Ok(Fired::Nothing) => {}
        Ok(Fired::Stale(why)) => {
            let message = format!("trigger {name} runs nothing: {why}");
            let report = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "dot_wrapper");
            report.set_hint("SELECT * FROM fn_dot_trigger_sync();").report(PgLogLevel::WARNING);
        }
        Err(error) => report(error).report(PgLogLevel::ERROR),
    }
}

/// See the COMMENT in sql/55_triggers.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_trigger_sync() -> Result<
    TableIterator<
        'static,
        (
            name!(code, Option<String>),
            name!(relation, String),
            name!(trigger_name, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let done = bindings::sync().map_err(report)?;
    let rows =
        done.into_iter().map(|row| (row.code, row.relation, row.trigger_name, row.action.to_owned(), row.detail));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

//! The functions of schedules, declared in sql/54_schedules.sql.

use pgrx::iter::TableIterator;
use pgrx::name;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{woken, worker_facts};
use crate::error::report;
use crate::pg::rows::Row;
use crate::run::{schedule, tick};

/// See the COMMENT in sql/54_schedules.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_schedule_sync() -> Result<
    TableIterator<
        'static,
        (
            name!(code, Option<String>),
            name!(jobname, Option<String>),
            name!(schedule, Option<String>),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let done = schedule::sync().map_err(report)?;
    let rows = done.into_iter().map(|row| (row.code, row.jobname, row.schedule, row.action.to_owned(), row.detail));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// See the COMMENT in sql/54_schedules.sql.
#[pg_extern(sql = false)]
fn fn_dot_tick(code: Option<String>) -> Result<Row, ErrorReport> {
    tick::tick(code, worker_facts()).map(woken).map_err(report)
}

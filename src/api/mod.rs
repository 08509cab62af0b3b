//! The SQL surface: one function per SQL function of sql/50_api.sql, which declares them. Arguments in, errors out.
//!
//! Does not live here: anything that could be called twice.
#![allow(clippy::result_large_err)] // pgrx raises a Result's error with its SQLSTATE only if it is an ErrorReport

mod checks;
mod observe;
mod requests;

use std::time::Duration;

use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{name, pg_sys};

use crate::domain::call::Raw;
use crate::domain::error::{DotError, SqlState};
use crate::error::report;
use crate::pg::json::JsonText;
use crate::pg::rows::Row;
use crate::run::request::{Requested, WorkerFacts};
use crate::run::{bind, breaker, doctor, request, request_all, resume, verify, wait, withdraw};
use crate::worker::{slots, wake};

mod schedules;
mod triggers;

/// Says what a trigger of ours does. From `_PG_init`, preloaded or not.
pub fn install() {
    checks::install();
    triggers::install();
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_run(
    code: Option<String>,
    mode: Option<String>,
    process_run_id: Option<pgrx::Uuid>,
    args: Option<JsonText>,
    idempotency_key: Option<String>,
) -> Result<Row, ErrorReport> {
    let args = parse("args", args)?;
    let raw = Raw { code, mode, process_run_id: process_run_id.map(uuid), args, idempotency_key };
    let requested = request::one(raw, worker_facts()).map_err(report)?;
    Ok(woken(requested))
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_run_all(
    filter: Option<JsonText>,
    mode: Option<String>,
    process_run_id: Option<pgrx::Uuid>,
    args: Option<JsonText>,
) -> Result<SetOfIterator<'static, Row>, ErrorReport> {
    let (filter, args) = (parse("filter", filter)?, parse("args", args)?);
    let raw = Raw { mode, process_run_id: process_run_id.map(uuid), args, ..Raw::default() };
    let all = request_all::all(filter, raw, worker_facts()).map_err(report)?;
    Ok(SetOfIterator::new(all.into_iter().map(woken).collect::<Vec<_>>()))
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_wait(run_id: Option<pgrx::Uuid>, timeout: Option<pgrx::datum::Interval>) -> Result<Row, ErrorReport> {
    let run_id = run_id.map(uuid).ok_or_else(|| report(null("run_id")))?;
    wait::wait(run_id, limit(timeout)?).map_err(report)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_doctor() -> Result<
    TableIterator<
        'static,
        (name!(check_name, String), name!(verdict, String), name!(detail, String), name!(advice, Option<String>)),
    >,
    ErrorReport,
> {
    let facts = slots::facts();
    let worker = doctor::Background {
        preloaded: facts.preloaded,
        launcher_pid: facts.launcher_pid,
        worker_pid: facts.worker_pid,
        state: facts.state,
        last_error: facts.last_error,
    };
    let checks = doctor::examine(&worker).map_err(report)?;
    Ok(TableIterator::new(checks.into_iter().map(|c| (c.name.to_owned(), c.verdict.to_owned(), c.detail, c.advice))))
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_bind(port: Option<String>, function: Option<pg_sys::Oid>) -> Result<Row, ErrorReport> {
    bind::bind(port, function).map_err(report)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_resume(run_ids: Option<Vec<Option<pgrx::Uuid>>>) -> Result<i64, ErrorReport> {
    let run_ids = run_ids.map(|ids| ids.into_iter().flatten().map(uuid).collect());
    let resumed = resume::resume(run_ids).map_err(report)?;
    wake::request_wake();
    Ok(resumed)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_cancel(run_id: Option<pgrx::Uuid>, reason: Option<String>) -> Result<Row, ErrorReport> {
    let run_id = run_id.map(uuid).ok_or_else(|| report(null("run_id")))?;
    let row = withdraw::cancel(run_id, reason).map_err(report)?;
    wake::request_wake();
    Ok(row)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_resolve(
    run_id: Option<pgrx::Uuid>,
    outcome: Option<String>,
    note: Option<String>,
) -> Result<Row, ErrorReport> {
    let run_id = run_id.map(uuid).ok_or_else(|| report(null("run_id")))?;
    let row = withdraw::resolve(run_id, outcome, note).map_err(report)?;
    wake::request_wake();
    Ok(row)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn fn_dot_breaker(endpoint: Option<String>, state: Option<String>, note: Option<String>) -> Result<Row, ErrorReport> {
    let row = breaker::order(endpoint, state, note).map_err(report)?;
    wake::request_wake();
    Ok(row)
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_verify(
    process_run_id: Option<pgrx::Uuid>,
    anchor_seal: Option<i64>,
    anchor_hash: Option<Vec<u8>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(kind, String),
            name!(run_id, Option<pgrx::Uuid>),
            name!(item, Option<i64>),
            name!(verdict, String),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    let anchor = verify::Anchor::parse(anchor_seal, anchor_hash).map_err(report)?;
    let found = verify::verify(process_run_id.map(uuid), anchor).map_err(report)?;
    Ok(TableIterator::new(found.into_iter().map(|f| {
        let run_id = f.run_id.map(|id| pgrx::Uuid::from_bytes(*id.as_bytes()));
        (f.kind.to_owned(), run_id, f.item, f.verdict, f.detail)
    })))
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_seal_head() -> Result<
    TableIterator<
        'static,
        (name!(seal_id, i64), name!(hash, Vec<u8>), name!(sealed_at, pgrx::datum::TimestampWithTimeZone)),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(verify::head().map_err(report)?))
}

/// See the COMMENT in sql/50_api.sql.
#[pg_extern(sql = false)]
fn announce() {
    wake::request_wake();
}

/// How long to wait.
fn limit(timeout: Option<pgrx::datum::Interval>) -> Result<Duration, ErrorReport> {
    let timeout = timeout.ok_or_else(|| report(null("timeout")))?;
    let limit = u64::try_from(timeout.as_micros()).ok().map(Duration::from_micros).filter(|limit| *limit <= wait::MAX);
    limit.ok_or_else(|| {
        report(
            DotError::new(SqlState::InvalidParameterValue, "timeout is out of range")
                .hint("It is at least 0 and at most one hour."),
        )
    })
}

/// How serde_json passes numbers on digit by digit: an object with this key would arrive as something else.
const RESERVED_KEY: &str = "$serde_json::private::Number";

/// PostgreSQL has parsed it already; what is left to refuse is nesting that no agent could read, and a reserved key.
fn parse(name: &str, text: Option<JsonText>) -> Result<Option<serde_json::Value>, ErrorReport> {
    text.map(|text| read_json(name, &text.0)).transpose().map_err(report)
}

fn read_json(name: &str, text: &str) -> Result<serde_json::Value, DotError> {
    // In the text of a jsonb, a key and nothing else is followed by a colon; quotes inside of strings are escaped.
    if text.contains(&format!("\"{RESERVED_KEY}\": ")) {
        let reserved = format!("{name} has a reserved key");
        return Err(DotError::new(SqlState::InvalidParameterValue, reserved).detail(RESERVED_KEY));
    }
    serde_json::from_str(text).map_err(|why| {
        DotError::new(SqlState::ProgramLimitExceeded, format!("{name} cannot be read")).detail(why.to_string())
    })
}

fn woken(requested: Requested) -> Row {
    wake_for(&requested);
    requested.row
}

fn wake_for(requested: &Requested) {
    if requested.admitted {
        wake::request_wake();
    } else {
        wake::request_seal();
    }
}

fn worker_facts() -> WorkerFacts {
    let facts = slots::facts();
    WorkerFacts { preloaded: facts.preloaded, alive: facts.worker_pid.is_some() }
}

fn uuid(id: pgrx::Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*id.as_bytes())
}

fn null(name: &str) -> DotError {
    DotError::new(SqlState::NullValueNotAllowed, format!("{name} must not be null"))
}

//! The SQL surface of observation and of the dry run: one function per SQL function of sql/57_observe.sql. Arguments in,
//! errors out.

use pgrx::iter::TableIterator;
use pgrx::name;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{limit, null, parse, uuid};
use crate::error::report;
use crate::pg::json::JsonText;
use crate::pg::rows::Row;
use crate::run::dry_run::Baseline;
use crate::run::{dry_run, observe, wait_all};

/// See the COMMENT in sql/57_observe.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_iu_commands() -> Result<
    TableIterator<
        'static,
        (
            name!(id, Option<String>),
            name!(process_run_id, Option<pgrx::Uuid>),
            name!(name, Option<String>),
            name!(mode, Option<String>),
            name!(status, Option<String>),
            name!(mutating, Option<bool>),
            name!(reason, Option<String>),
            name!(message, Option<String>),
            name!(requested_by, Option<String>),
            name!(at, Option<TimestampWithTimeZone>),
            name!(finished_at, Option<TimestampWithTimeZone>),
            name!(detail, pgrx::JsonB),
        ),
    >,
    ErrorReport,
> {
    let time = |micros: Option<i64>| micros.and_then(|micros| TimestampWithTimeZone::try_from(micros).ok());
    let rows = observe::commands().map_err(report)?;
    Ok(TableIterator::new(rows.into_iter().map(move |(c, row)| {
        let process_run_id = c.process_run_id.map(|id| pgrx::Uuid::from_bytes(*id.as_bytes()));
        let (at, finished_at) = (time(c.at), time(c.finished_at));
        (
            c.id,
            process_run_id,
            c.name,
            c.mode,
            c.status,
            c.mutating,
            c.reason,
            c.message,
            c.requested_by,
            at,
            finished_at,
            pgrx::JsonB(row),
        )
    })))
}

/// See the COMMENT in sql/57_observe.sql.
#[pg_extern(sql = false)]
fn fn_dot_wait_all(
    process_run_id: Option<pgrx::Uuid>,
    timeout: Option<pgrx::datum::Interval>,
) -> Result<Row, ErrorReport> {
    let process_run_id = process_run_id.map(uuid).ok_or_else(|| report(null("process_run_id")))?;
    wait_all::wait(process_run_id, limit(timeout)?).map_err(report)
}

/// See the COMMENT in sql/57_observe.sql.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the shape that pgrx wants for RETURNS TABLE
fn fn_dot_dry_run_report(
    process_run_id: Option<pgrx::Uuid>,
    baseline: Option<pgrx::Uuid>,
    baseline_report: Option<JsonText>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(code, String),
            name!(name, Option<String>),
            name!(verdict, Option<String>),
            name!(why, Option<String>),
            name!(change, Option<String>),
            name!(plan_status, Option<String>),
            name!(plan_reason, Option<String>),
            name!(verify_status, Option<String>),
            name!(verify_reason, Option<String>),
            name!(fingerprint, Option<String>),
            name!(baseline_verdict, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let process_run_id = process_run_id.map(uuid).ok_or_else(|| report(null("process_run_id")))?;
    let baseline = Baseline::parse(baseline.map(uuid), parse("baseline_report", baseline_report)?).map_err(report)?;
    let lines = dry_run::report(process_run_id, baseline).map_err(report)?;
    Ok(TableIterator::new(lines.into_iter().map(|line| {
        let change = line.change.map(|change| change.as_str().to_owned());
        let before = line.before.as_ref().map(|before| before.verdict.clone());
        let code = line.now.as_ref().or(line.before.as_ref()).map(|outcome| outcome.code.clone()).unwrap_or_default();
        let (verdict, plan, verify, fingerprint) = match line.now {
            Some(now) => (
                Some(now.verdict),
                (now.plan_status, now.plan_reason),
                (now.verify_status, now.verify_reason),
                now.fingerprint,
            ),
            None => (None, (None, None), (None, None), None),
        };
        (code, line.name, verdict, line.why, change, plan.0, plan.1, verify.0, verify.1, fingerprint, before)
    })))
}

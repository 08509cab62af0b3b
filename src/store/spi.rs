//! Statements: prepared once per session, kept, and run with parameters. The only caller of pgrx's SPI.
#![allow(clippy::disallowed_methods)] // this is the place that the rule points to

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::spi::{Result as SpiResult, Spi, SpiHeapTupleData};

use crate::domain::error::DotError;
use crate::error;
use crate::pg::session;
pub use crate::pg::statement::Planned;
use crate::pg::statement::Statement;

thread_local! {
    /// Plans of this session. Statement texts are constants but for the API schema's name, so the map stays small.
    static PLANS: RefCell<HashMap<String, Rc<Statement>>> = RefCell::new(HashMap::new());
}

/// Runs a statement and reads its rows. Sees what earlier statements of the transaction did.
///
/// # Errors
/// XX000 when a row is not of the shape that `read` expects: a defect of ours. PostgreSQL's own errors are raised.
pub fn rows<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Vec<T>, DotError> {
    let mut found = Vec::new();
    run_as(Planned::AsItGoes, sql, args, |row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// As [`rows`], for a statement whose plan does not depend on its parameters: it is planned once and kept.
///
/// # Errors
/// As [`rows`].
pub fn steady_rows<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Vec<T>, DotError> {
    let mut found = Vec::new();
    run_as(Planned::Once, sql, args, |row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// As [`steady_rows`], for a statement that gives at most one row.
///
/// # Errors
/// As [`rows`].
pub fn steady_row<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Option<T>, DotError> {
    let mut found = None;
    run_as(Planned::Once, sql, args, |row| {
        if found.is_none() {
            found = Some(read(row)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// As [`rows`], for a statement of the worker's that finds every row by an index, however many it is given and whatever is known
/// of the tables: one plan, made once, that never reads a whole table. Statistics of a queue are wrong most of the time.
///
/// # Errors
/// As [`rows`].
pub fn rows_by_index<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Vec<T>, DotError> {
    session::with_settings(BY_INDEX, || steady_rows(sql, args, read))
}

/// What leaves the planner nothing but nested loops over indexes.
const BY_INDEX: &[(&CStr, &CStr)] = &[
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
];

/// Runs statements that are read in the order of an index, whatever is known of the tables: a plan that was made while they
/// were empty, and kept, is then good whatever they become.
pub fn in_index_order<T>(body: impl FnOnce() -> T) -> T {
    session::with_settings(
        &[(c"enable_seqscan", c"off"), (c"enable_sort", c"off"), (c"enable_bitmapscan", c"off")],
        body,
    )
}

/// Reads rows as the running statement sees them: takes no transaction id, so that a view's function may ask on a standby.
/// Prepared anew each time, since what it reads is somebody else's.
///
/// # Errors
/// As [`rows`].
pub fn seen<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Vec<T>, DotError> {
    Spi::connect(|client| {
        let table = client.select(sql, None, args)?;
        table.map(|row| read(&row)).collect::<SpiResult<Vec<T>>>()
    })
    .map_err(error::internal)
}

/// Like [`rows`], for a statement that gives at most one row.
///
/// # Errors
/// As [`rows`].
pub fn row<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Result<Option<T>, DotError> {
    Ok(rows(sql, args, read)?.into_iter().next())
}

/// Runs a statement; the number of rows that it touched.
///
/// # Errors
/// As [`rows`].
pub fn run(sql: &str, args: &[DatumWithOid<'_>]) -> Result<usize, DotError> {
    run_as(Planned::AsItGoes, sql, args, |_| Ok(()))
}

/// Runs a command that takes no parameters and is not worth a plan that is kept: DDL.
///
/// # Errors
/// As [`rows`].
pub fn once(sql: &str) -> Result<(), DotError> {
    Spi::connect_mut(|client| client.update(sql, None, &[]).map(drop)).map_err(error::internal)
}

fn run_as(
    planned: Planned,
    sql: &str,
    args: &[DatumWithOid<'_>],
    row: impl FnMut(&SpiHeapTupleData<'_>) -> SpiResult<()>,
) -> Result<usize, DotError> {
    let defect = |why: String| {
        error::internal(format_args!("{why} in: {}", sql.split_whitespace().take(8).collect::<Vec<_>>().join(" ")))
    };
    let statement = statement(planned, sql, args).ok_or_else(|| defect("cannot be prepared".to_owned()))?;
    statement.run(args, row).map_err(|why| defect(why.to_string()))
}

fn statement(planned: Planned, sql: &str, args: &[DatumWithOid<'_>]) -> Option<Rc<Statement>> {
    if let Some(known) = PLANS.with_borrow(|plans| plans.get(sql).cloned()) {
        return Some(known);
    }
    let types: Vec<_> = args.iter().map(DatumWithOid::oid).collect();
    let made = Rc::new(Statement::prepare(&CString::new(sql).ok()?, &types, planned)?);
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), Rc::clone(&made)));
    Some(made)
}

/// Reads a column that is never NULL.
pub fn need<T: pgrx::FromDatum + pgrx::IntoDatum>(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<T> {
    row.get(column)?.ok_or(pgrx::spi::Error::InvalidPosition)
}

/// A UUID as PostgreSQL's.
pub fn uuid(id: uuid::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

/// Reads a UUID that is never NULL.
pub fn need_uuid(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<uuid::Uuid> {
    need::<pgrx::Uuid>(row, column).map(|id| uuid::Uuid::from_bytes(*id.as_bytes()))
}

/// Reads a jsonb that is never NULL.
pub fn need_json(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<serde_json::Value> {
    need::<pgrx::JsonB>(row, column).map(|json| json.0)
}

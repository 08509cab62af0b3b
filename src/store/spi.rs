//! Statements: prepared once per session, kept, and run with parameters. The only caller of pgrx's SPI.
#![allow(clippy::disallowed_methods)] // this is the place that the rule points to

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::PgOid;
use pgrx::spi::{OwnedPreparedStatement, Result as SpiResult, Spi, SpiHeapTupleData};

use crate::domain::error::DotError;
use crate::error;
use crate::pg::session;

thread_local! {
    /// Plans of this session. Statement texts are constants but for the API schema's name, so the map stays small.
    static PLANS: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::new(HashMap::new());
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
    Spi::connect_mut(|client| {
        let plan = plan(client, sql, args)?;
        let table = client.update(&*plan, None, args)?;
        table.map(|row| read(&row)).collect::<SpiResult<Vec<T>>>()
    })
    .map_err(|e| {
        error::internal(format_args!("{e} in: {}", sql.split_whitespace().take(8).collect::<Vec<_>>().join(" ")))
    })
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
    session::with_settings(BY_INDEX, || rows(sql, args, read))
}

/// What leaves the planner nothing but nested loops over indexes.
const BY_INDEX: &[(&CStr, &CStr)] = &[
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
];

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
    Spi::connect_mut(|client| {
        let plan = plan(client, sql, args)?;
        Ok::<_, pgrx::spi::Error>(client.update(&*plan, None, args)?.len())
    })
    .map_err(error::internal)
}

/// Runs a command that takes no parameters and is not worth a plan that is kept: DDL.
///
/// # Errors
/// As [`rows`].
pub fn once(sql: &str) -> Result<(), DotError> {
    Spi::connect_mut(|client| client.update(sql, None, &[]).map(drop)).map_err(error::internal)
}

fn plan(
    client: &pgrx::spi::SpiClient<'_>,
    sql: &str,
    args: &[DatumWithOid<'_>],
) -> SpiResult<Rc<OwnedPreparedStatement>> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).cloned()) {
        return Ok(plan);
    }
    let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
    let plan = Rc::new(client.prepare_mut(sql, &types)?.keep());
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), Rc::clone(&plan)));
    Ok(plan)
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

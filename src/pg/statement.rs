//! Prepared statements that are kept, and running them.
//!
//! Lives here: SPI's calls. Does not live here: any statement's text (`store`).
//!
//! Unlike pgrx's own, running one takes no transaction id by itself: a statement that only reads leaves none behind, and a
//! subtransaction that only reads costs none. And a plan can be asked for that is made once and never again.

use std::ffi::CStr;
use std::ptr::NonNull;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{Result as SpiResult, SpiHeapTupleData};

/// How a statement is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planned {
    /// As PostgreSQL sees fit: perhaps anew for each set of parameters.
    AsItGoes,
    /// Once, whatever the parameters: for statements whose best plan does not depend on them.
    Once,
}

/// A statement that was prepared, for the life of the process.
#[derive(Debug)]
pub struct Statement(NonNull<pg_sys::_SPI_plan>);

impl Statement {
    /// Prepares it; `None` where SPI says no.
    pub fn prepare(text: &CStr, types: &[pg_sys::Oid], planned: Planned) -> Option<Statement> {
        let options = match planned {
            Planned::AsItGoes => 0,
            Planned::Once => pg_sys::CURSOR_OPT_GENERIC_PLAN.cast_signed(),
        };
        let count = i32::try_from(types.len()).ok()?;
        // SAFETY: a C string and as many types as are told, which the callee reads; the plan that comes back is moved out of
        // SPI's memory before the connection ends, and never freed.
        unsafe {
            pg_sys::SPI_connect();
            let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), count, types.as_ptr().cast_mut(), options);
            let kept = NonNull::new(plan).filter(|plan| pg_sys::SPI_keepplan(plan.as_ptr()) == 0);
            pg_sys::SPI_finish();
            kept.map(Statement)
        }
    }

    /// Runs it and hands its rows over; how many rows it touched. Sees what earlier statements of the transaction did.
    ///
    /// # Errors
    /// What `row` returned, or that SPI refused.
    pub fn run(
        &self,
        args: &[DatumWithOid<'_>],
        mut row: impl FnMut(&SpiHeapTupleData<'_>) -> SpiResult<()>,
    ) -> SpiResult<usize> {
        let expected = {
            // SAFETY: the plan lives as long as the process.
            let count = unsafe { pg_sys::SPI_getargcount(self.0.as_ptr()) };
            usize::try_from(count).unwrap_or(0)
        };
        if expected != args.len() {
            return Err(pgrx::spi::Error::PreparedStatementArgumentMismatch { expected, got: args.len() });
        }
        let mut values = Vec::with_capacity(args.len());
        let mut nulls = Vec::with_capacity(args.len());
        for arg in args {
            let value = arg.datum().map(pgrx::datum::Datum::sans_lifetime);
            nulls.push(if value.is_some() { b' ' } else { b'n' }.cast_signed());
            values.push(value.unwrap_or_else(|| pg_sys::Datum::from(0)));
        }
        // SAFETY: the plan is valid, and both arrays have one element for each of its parameters. What SPI hands back is read
        // before the connection ends; an error inside ends it with the (sub)transaction. `SPI_tuptable` is this very
        // statement's: it is cleared before, and NULL after one that gives no rows.
        unsafe {
            pg_sys::SPI_connect();
            pg_sys::SPI_tuptable = std::ptr::null_mut();
            let status =
                pg_sys::SPI_execute_plan(self.0.as_ptr(), values.as_mut_ptr(), nulls.as_mut_ptr().cast(), false, 0);
            let read = pgrx::Spi::check_status(status).and_then(|_| {
                let touched = usize::try_from(pg_sys::SPI_processed).unwrap_or(usize::MAX);
                let Some(table) = pg_sys::SPI_tuptable.as_ref() else { return Ok(touched) };
                for i in 0..usize::try_from(table.numvals).unwrap_or(0) {
                    if let Some(tuple) = SpiHeapTupleData::new(table.tupdesc, *table.vals.add(i))? {
                        row(&tuple)?;
                    }
                }
                Ok(touched)
            });
            pg_sys::SPI_finish();
            read
        }
    }
}

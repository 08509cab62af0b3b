//! A whole row as one value, made by the executor and handed through to the caller as it is. Nothing here builds or
//! takes rows apart.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys};

/// A composite value that lives in the caller's memory context.
#[derive(Debug)]
pub struct Row(pg_sys::Datum);

impl FromDatum for Row {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: called while SPI is connected, on a non-null composite datum, which is passed by reference
        // (typbyval false, typlen -1); the copy is made in the context that was current when SPI was connected.
        Some(Row(unsafe { pg_sys::SPI_datumTransfer(datum, false, -1) }))
    }
}

impl IntoDatum for Row {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::RECORDOID
    }

    fn is_compatible_with(_other: pg_sys::Oid) -> bool {
        true
    }
}

// SAFETY: the datum is a valid composite of the type that the SQL declaration names; see FromDatum.
unsafe impl BoxRet for Row {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: the functions that return it are declared by hand (`sql = false`), so that the mapping is never used.
unsafe impl SqlTranslatable for Row {
    const TYPE_IDENT: &'static str = "dot_wrapper::pg::rows::Row";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Row"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
}

//! A jsonb argument as its text, so that what cannot be parsed is an error of ours and not one of pgrx's.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::UnboxDatum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys};

/// The text of a jsonb value.
#[derive(Debug)]
pub struct JsonText(pub String);

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the SQL declaration says jsonb, which is a varlena; the detoasted copy and the text live in the current
        // memory context, and the text is copied before this returns.
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::Jsonb>();
            let length = pgrx::varsize_any_exhdr(jsonb.cast());
            let estimate = i32::try_from(length).unwrap_or(i32::MAX);
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*jsonb).root, estimate);
            Some(JsonText(std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()))
        }
    }
}

// SAFETY: a non-null datum of the type that was checked; see FromDatum.
unsafe impl UnboxDatum for JsonText {
    type As<'src> = JsonText;
    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> JsonText
    where
        Self: 'src,
    {
        // SAFETY: the caller vouches for the datum.
        unsafe { JsonText::from_datum(datum.sans_lifetime(), false) }.unwrap_or_else(|| JsonText(String::new()))
    }
}

impl IntoDatum for JsonText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = std::ffi::CString::new(self.0).ok()?;
        // SAFETY: jsonb_in takes a C string, which outlives the call; text that is no JSON is its own error.
        unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()]) }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: a non-null datum of the declared type; see FromDatum.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonText {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller vouches for the type and for its not being NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| JsonText(String::new()))
    }
}

// SAFETY: the functions that take it are declared by hand (`sql = false`), so that the mapping is never used.
unsafe impl SqlTranslatable for JsonText {
    const TYPE_IDENT: &'static str = "dot_wrapper::pg::json::JsonText";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

//! The functions in the CHECK constraints of our tables: columns in, and an error that names the rule which they break.
//!
//! Lives here: the symbols, their protocol, and taking columns apart without unpacking more than is looked at. Does not live
//! here: the rules; they are handed in when the library is loaded.
//!
//! The error is raised as core raises it, and not through pgrx, which would lose the rule's name. So nothing in these functions
//! may leave anything to be dropped, or panic: the error jumps over them.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use pgrx::pg_sys;

// Without the bindings' error boundary: an error raised in these jumps to the executor's caller, past the functions below.
unsafe extern "C-unwind" {
    fn pg_detoast_datum_packed(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn pg_detoast_datum_slice(datum: *mut pg_sys::varlena, first: i32, count: i32) -> *mut pg_sys::varlena;
    fn pg_mbstrlen_with_len(text: *const c_char, length: c_int) -> c_int;
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// A row's columns, as the constraint lists them.
#[derive(Clone, Copy)]
pub struct Columns(pg_sys::FunctionCallInfo);

/// What says which rule a row breaks.
pub type Rule = fn(Columns) -> Option<&'static CStr>;

/// The rules of each table.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Of `dot_run`.
    pub run: Rule,
    /// Of `dot_run_event`.
    pub event: Rule,
    /// Of `dot_queue`.
    pub queue: Rule,
}

static RULES: OnceLock<Rules> = OnceLock::new();

/// Says what the rules are. Once, from `_PG_init`.
pub fn install(rules: Rules) {
    let _ = RULES.set(rules);
}

impl Columns {
    fn datum(self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: PostgreSQL passes its call information with as many arguments as it says.
        unsafe {
            let info = &*self.0;
            let count = usize::try_from(info.nargs).unwrap_or(0);
            let argument = info.args.as_slice(count).get(column)?;
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// Whether it is not NULL.
    pub fn has(self, column: usize) -> bool {
        self.datum(column).is_some()
    }

    /// A boolean; false for NULL.
    pub fn boolean(self, column: usize) -> bool {
        self.datum(column).is_some_and(|datum| datum.value() & 0xFF != 0)
    }

    /// An integer; 0 for NULL.
    pub fn integer(self, column: usize) -> i32 {
        self.datum(column).map_or(0, |datum| datum.value() as i32)
    }

    /// A short text; `None` for NULL, empty where it is not UTF-8.
    pub fn text<'a>(self, column: usize) -> Option<&'a str> {
        self.bytes(column).map(|bytes| std::str::from_utf8(bytes).unwrap_or_default())
    }

    /// A bytea's or text's length in bytes; `None` for NULL.
    pub fn length(self, column: usize) -> Option<usize> {
        self.bytes(column).map(<[u8]>::len)
    }

    /// A text's length in characters; 0 for NULL.
    pub fn characters(self, column: usize) -> usize {
        let Some(bytes) = self.bytes(column) else { return 0 };
        let length = c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
        // SAFETY: reads that many bytes.
        usize::try_from(unsafe { pg_mbstrlen_with_len(bytes.as_ptr().cast(), length) }).unwrap_or(usize::MAX)
    }

    fn bytes<'a>(self, column: usize) -> Option<&'a [u8]> {
        let datum = self.datum(column)?;
        // SAFETY: the SQL declaration says text or bytea, a varlena, which lasts until the statement is done, as its unpacked copy
        // in the executor's memory does.
        unsafe {
            let packed = pg_detoast_datum_packed(datum.cast_mut_ptr());
            let length = pgrx::varsize_any_exhdr(packed);
            Some(std::slice::from_raw_parts(pgrx::vardata_any(packed).cast::<u8>(), length))
        }
    }

    /// Whether a jsonb is an object.
    pub fn is_object(self, column: usize) -> bool {
        self.container(column).is_some_and(|header| header & pg_sys::JB_FOBJECT != 0)
    }

    /// Whether a jsonb is an array.
    pub fn is_array(self, column: usize) -> bool {
        let is_array = |header| header & pg_sys::JB_FARRAY != 0 && header & pg_sys::JB_FSCALAR == 0;
        self.container(column).is_some_and(is_array)
    }

    /// The first word of a jsonb, which says what it is.
    fn container(self, column: usize) -> Option<u32> {
        let datum = self.datum(column)?;
        // SAFETY: the SQL declaration says jsonb, whose first four bytes are its header; the slice has them.
        unsafe {
            let slice = pg_detoast_datum_slice(datum.cast_mut_ptr(), 0, 4);
            Some(pgrx::vardata_any(slice).cast::<u32>().read_unaligned())
        }
    }
}

/// `true`, or the error.
fn judge(info: pg_sys::FunctionCallInfo, table: &'static CStr, rule: fn(&Rules) -> Rule) -> pg_sys::Datum {
    let Some(rules) = RULES.get() else { return pg_sys::Datum::from(false) };
    let Some(broken) = rule(rules)(Columns(info)) else { return pg_sys::Datum::from(true) };
    let sqlstate = pgrx::pg_sys::errcodes::PgSqlErrorCode::ERRCODE_CHECK_VIOLATION as c_int;
    // SAFETY: the order in which core calls them; all strings are static, and nothing here waits to be dropped.
    unsafe {
        if errstart(pgrx::PgLogLevel::ERROR as c_int, std::ptr::null()) {
            errcode(sqlstate);
            let format = c"new row for relation \"%s\" violates check constraint \"%s\"";
            errmsg(format.as_ptr(), table.as_ptr(), broken.as_ptr());
            err_generic_string(c_int::from(b's'), c"dot_wrapper".as_ptr());
            err_generic_string(c_int::from(b't'), table.as_ptr());
            err_generic_string(c_int::from(b'n'), broken.as_ptr());
            errfinish(c"fits.rs".as_ptr(), 0, c"judge".as_ptr());
        }
    }
    pg_sys::Datum::from(false)
}

macro_rules! check {
    ($function:ident, $finfo:ident, $table:literal, $field:ident) => {
        #[doc = concat!("In the CHECK of the table of `", stringify!($field), "`.")]
        ///
        /// # Safety
        /// Called by PostgreSQL alone, with its call information.
        // SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $function(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            judge(info, $table, |rules| rules.$field)
        }

        /// What PostgreSQL looks for before it calls the function above.
        // SAFETY: as above.
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $finfo() -> *const pg_sys::Pg_finfo_record {
            static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &raw const VERSION_1
        }
    };
}

check!(dot_wrapper_run_fits, pg_finfo_dot_wrapper_run_fits, c"dot_run", run);
check!(dot_wrapper_event_fits, pg_finfo_dot_wrapper_event_fits, c"dot_run_event", event);
check!(dot_wrapper_queue_fits, pg_finfo_dot_wrapper_queue_fits, c"dot_queue", queue);

//! Lines in the server's log that say what they say and nothing else. Does not live here: errors, which carry their
//! statement for those who made them.

use std::ffi::{CString, c_char, c_int};

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// pgrx binds all of this family but its end.
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// Writes a line at level LOG, without the statement that is being run: a caller's statement carries his arguments.
pub fn line(text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    let level = i32::try_from(pg_sys::LOG).unwrap_or(15);
    // SAFETY: the calls between start and finish are those that ereport() expands to; below ERROR they return. The format
    // takes one string, which outlives the call; the domain may be null.
    unsafe {
        if pg_sys::errstart_cold(level, std::ptr::null()) {
            pg_sys::errmsg_internal(c"%s".as_ptr(), text.as_ptr());
            pg_sys::errhidestmt(true);
            pg_sys::errhidecontext(true);
            errfinish(c"".as_ptr(), 0, c"".as_ptr());
        }
    }
}

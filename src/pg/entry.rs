//! The two functions that the postmaster looks up by name and calls in a new process.
//!
//! Lives here: only the calls upward. Does not live here: anything that they do.

use std::ffi::CStr;

use pgrx::{pg_guard, pg_sys};

/// Symbol of the launcher.
pub const LAUNCHER: &CStr = c"dot_wrapper_launcher_main";
/// Symbol of a database's worker.
pub const DATABASE: &CStr = c"dot_wrapper_database_main";

/// The launcher's process.
// SAFETY: the symbol is unique to this library, and its type is what the postmaster calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn dot_wrapper_launcher_main(_arg: pg_sys::Datum) {
    crate::worker::launcher::main();
}

/// The process of one database's worker.
// SAFETY: the symbol is unique to this library, and its type is what the postmaster calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn dot_wrapper_database_main(arg: pg_sys::Datum) {
    let (database, role) = super::bgworker::arguments(arg);
    crate::worker::database::main(pg_sys::Oid::from(database), pg_sys::Oid::from(role));
}

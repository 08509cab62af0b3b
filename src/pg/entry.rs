//! The two functions that the postmaster looks up by name and calls in a new process.
//!
//! Lives here: the symbols. Does not live here: what they do; that is handed in while the library is preloaded, and every
//! process of the server inherits it.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

/// Symbol of the launcher.
pub const LAUNCHER: &CStr = c"dot_wrapper_launcher_main";
/// Symbol of a database's worker.
pub const DATABASE: &CStr = c"dot_wrapper_database_main";

/// What the launcher's process does.
pub type Launcher = fn() -> !;
/// What a worker's process does, for a database and as a role.
pub type Database = fn(pg_sys::Oid, pg_sys::Oid);

static MAINS: OnceLock<(Launcher, Database)> = OnceLock::new();

/// Says what the processes do. Once, from `_PG_init`.
pub fn install(launcher: Launcher, database: Database) {
    let _ = MAINS.set((launcher, database));
}

/// The launcher's process.
// SAFETY: the symbol is unique to this library, and its type is what the postmaster calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn dot_wrapper_launcher_main(_arg: pg_sys::Datum) {
    if let Some((launcher, _)) = MAINS.get() {
        launcher();
    }
}

/// The process of one database's worker.
// SAFETY: the symbol is unique to this library, and its type is what the postmaster calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn dot_wrapper_database_main(arg: pg_sys::Datum) {
    let (database, role) = super::bgworker::arguments(arg);
    if let Some((_, main)) = MAINS.get() {
        main(pg_sys::Oid::from(database), pg_sys::Oid::from(role));
    }
}

//! What pgrx has no wrapper for: reserving the prefix, and the isolation level in force.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Makes PostgreSQL refuse settings of this prefix that nobody defined, so that a misspelt one is noticed.
pub fn reserve_prefix(prefix: &CStr) {
    // SAFETY: called from _PG_init after all settings are defined; the string is copied.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

/// True in REPEATABLE READ and SERIALIZABLE: nothing that others commit becomes visible in this transaction.
pub fn has_one_snapshot() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactIsoLevel >= i32::try_from(pg_sys::XACT_REPEATABLE_READ).unwrap_or(2) }
}

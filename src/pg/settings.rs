//! Small things of the session that pgrx has no wrapper for: the prefix of our settings, the isolation level in force,
//! whose transaction an id is.

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

/// True when the id is that of the current transaction or of one of its savepoints.
pub fn is_own_transaction(xid: u32) -> bool {
    // SAFETY: looks at backend-local transaction state; any id is allowed.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(xid)) }
}

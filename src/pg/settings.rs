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

/// The value of any setting, whoever asks; `None` where nobody has defined it.
pub fn of_others(name: &CStr) -> Option<String> {
    // SAFETY: a C string; the result is NULL or a C string that lasts until the setting changes, and is copied here.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

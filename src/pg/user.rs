//! Running code as another role: the user id, the security context and the search path, switched together.
//! Which role that is, is decided by the callers.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// How much the code may do besides acting as the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Our own SQL, on our own tables.
    Own,
    /// Somebody's function, table or trigger: a security-restricted operation, which can neither change the role or
    /// settings for later, nor leave temporary objects, cursors or deferred triggers behind.
    Foreign,
}

/// The role whose privileges are in force.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a backend-local variable; callable at any time in a backend.
    unsafe { pg_sys::GetUserId() }
}

/// The role's name; empty when it is gone.
pub fn name_of(role: pg_sys::Oid) -> String {
    // SAFETY: GetUserNameFromId(_, true) returns NULL or a palloc'd, NUL-terminated string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// True when the role is a superuser.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup; false for a role that does not exist.
    unsafe { pg_sys::superuser_arg(role) }
}

/// True when `member` has the privileges of `role`.
pub fn has_privileges_of(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: looks in the catalogs; any OIDs are allowed.
    unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// True while somebody's code runs that must not reach further: see [`Trust::Foreign`].
pub fn is_restricted() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::InSecurityRestrictedOperation() }
}

/// Runs `body` as `role` with `search_path` pinned to `path` (a list of quoted identifiers; `pg_catalog` is first anyway).
///
/// On a PostgreSQL error or a panic nothing is restored here: the end of the (sub)transaction, to which such an error
/// always leads, restores the role and the settings.
pub fn run_as<T>(role: pg_sys::Oid, trust: Trust, path: &str, body: impl FnOnce() -> T) -> T {
    let path = CString::new(path).unwrap_or_default();
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    let added = pg_sys::SECURITY_LOCAL_USERID_CHANGE
        | match trust {
            Trust::Own => 0,
            Trust::Foreign => pg_sys::SECURITY_RESTRICTED_OPERATION,
        };
    // SAFETY: the way in which core itself calls functions with SECURITY DEFINER and SET clauses (fmgr.c): both
    // variables are out parameters, the nest level is closed below with the same number, and the strings outlive the call.
    let level = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | i32::try_from(added).unwrap_or(0));
        let level = pg_sys::NewGUCNestLevel();
        // Not again where it is so already, as in most of our own functions: each setting costs about a microsecond.
        let current = pg_sys::namespace_search_path;
        if current.is_null() || CStr::from_ptr(current) != path.as_c_str() {
            set_for_level(c"search_path", &path);
        }
        if trust == Trust::Own && pg_sys::quote_all_identifiers {
            // Names that our SQL spells and compares are spelled in one way, whatever the caller has set.
            set_for_level(c"quote_all_identifiers", c"off");
        }
        level
    };
    let result = body();
    // SAFETY: see above; restores exactly what was saved.
    unsafe {
        // As at an abort: what the code SET for itself is gone with it, and does not stay in the caller's session.
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// SET until the innermost level of settings is closed.
///
/// # Safety
/// A level must be open, and is to be closed by whoever opened it.
unsafe fn set_for_level(name: &CStr, value: &CStr) {
    // SAFETY: two C strings that the callee copies.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

//! What a role is: whether it may serve as the worker's, and whether a user may do what the utility hook prepares for.
//!
//! Lives here: attribute and privilege look-ups in the shared catalogues. Does not live here: switching roles
//! (`pg::user`), or any rule about tools.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Why a role cannot be the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleProblem {
    /// There is no such role, or the setting is empty.
    Missing,
    /// It is a superuser.
    Superuser,
    /// It has BYPASSRLS.
    BypassRls,
    /// It has CREATEROLE.
    CreateRole,
    /// It has REPLICATION.
    Replication,
    /// It has no LOGIN, which PostgreSQL 15 and 16 ask of a worker too.
    NoLogin,
    /// It may not connect to the database.
    NoConnect,
    /// It is a member of a role that is more than it may be.
    Membership,
}

/// The role's oid. Inside a transaction only.
pub fn lookup(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a C string; a read of a shared catalogue in the caller's transaction.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// As [`lookup`], past the caches. A commit wakes the launcher an instant before it announces what it changed, and the
/// launcher has often looked for the role before it was made.
pub fn lookup_afresh(name: &str) -> Option<pg_sys::Oid> {
    // SAFETY: allowed anywhere in a transaction; the next look reads the catalogues with a new snapshot.
    unsafe { pg_sys::InvalidateSystemCaches() };
    lookup(name)
}

/// Whether `role` may serve as a worker of `database`: enough to connect, and no more than an ordinary role.
/// Inside a transaction only.
pub fn check_worker(role: pg_sys::Oid, database: pg_sys::Oid) -> Result<(), RoleProblem> {
    let Some(form) = attributes(role) else { return Err(RoleProblem::Missing) };
    let problems = [
        (form.rolsuper, RoleProblem::Superuser),
        (form.rolbypassrls, RoleProblem::BypassRls),
        (form.rolcreaterole, RoleProblem::CreateRole),
        (form.rolreplication, RoleProblem::Replication),
        (!form.rolcanlogin && cfg!(not(feature = "pg18")), RoleProblem::NoLogin),
    ];
    if let Some((_, problem)) = problems.into_iter().find(|(holds, _)| *holds) {
        return Err(problem);
    }
    if is_member_of_more(role) {
        return Err(RoleProblem::Membership);
    }
    if may_connect(role, database) { Ok(()) } else { Err(RoleProblem::NoConnect) }
}

/// Predefined roles whose members reach files and programs of the server, or every table.
const REACHING: [u32; 5] = [
    pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM,
    pg_sys::ROLE_PG_WRITE_SERVER_FILES,
    pg_sys::ROLE_PG_READ_SERVER_FILES,
    pg_sys::ROLE_PG_WRITE_ALL_DATA,
    pg_sys::ROLE_PG_READ_ALL_DATA,
];

/// Whether the role is a member, directly or not, of one that is itself too much. NOINHERIT and WITH SET FALSE do not
/// help: what one look finds harmless, the next GRANT ... WITH SET TRUE makes a way up.
fn is_member_of_more(role: pg_sys::Oid) -> bool {
    let reaching = REACHING.into_iter().map(pg_sys::Oid::from);
    // SAFETY: catalogue reads in the caller's transaction; both are plain oids.
    reaching.chain(powerful()).any(|group| unsafe { pg_sys::is_member_of_role_nosuper(role, group) })
}

/// Lets this process hear of changed memberships: PostgreSQL keeps what it once found out about them, and forgets it at a
/// change only in processes that are connected to a database. Inside a transaction, once in the life of a process.
pub fn follow_memberships() {
    // SAFETY: registers callbacks, as InitPostgres does where there is a database; there are slots for some more.
    unsafe { pg_sys::initialize_acl() };
}

/// All roles with an attribute that the worker's must not have. The catalogue is shared: no database is needed.
fn powerful() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: the relation is open and locked during the scan, and both are closed before returning; an error in between
    // is cleaned up by the abort of the caller's transaction. Each tuple is valid until the next is fetched, and the
    // fixed part of a pg_authid tuple is `FormData_pg_authid`.
    unsafe {
        let lock = pg_sys::AccessShareLock.cast_signed();
        let relation = pg_sys::table_open(pg_sys::AuthIdRelationId, lock);
        let (no_snapshot, no_keys) = (std::ptr::null_mut(), std::ptr::null_mut());
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, no_snapshot, 0, no_keys);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
            if form.rolsuper || form.rolbypassrls || form.rolcreaterole || form.rolreplication {
                found.push(form.oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// The role that this session authenticated as, whatever SET ROLE says.
pub fn session_role() -> pg_sys::Oid {
    // SAFETY: reads process-local state.
    unsafe { pg_sys::GetSessionUserId() }
}

/// Whether the current user owns `database`, by membership too, or is a superuser.
pub fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: catalogue reads in the caller's transaction; both are plain oids.
    unsafe {
        #[cfg(feature = "pg15")]
        let owns = pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        let owns = pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId());
        owns
    }
}

/// Whether the current user may create databases.
pub fn may_create_databases() -> bool {
    // SAFETY: reads process-local state and a catalogue.
    let (user, superuser) = unsafe { (pg_sys::GetUserId(), pg_sys::superuser()) };
    superuser || attributes(user).is_some_and(|form| form.rolcreatedb)
}

/// The database's oid by name. Inside a transaction only.
pub fn database_by_name(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a C string; a read of a shared catalogue in the caller's transaction.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether `database` is marked as a template, which anybody who may create databases can copy.
pub fn is_template(database: pg_sys::Oid) -> bool {
    // SAFETY: as in `attributes`, with a tuple of pg_database.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::DATABASEOID.cast_signed(), database.into());
        if tuple.is_null() {
            return false;
        }
        let form = *pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        pg_sys::ReleaseSysCache(tuple);
        form.datistemplate
    }
}

fn may_connect(role: pg_sys::Oid, database: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_CONNECT);
    // SAFETY: catalogue reads in the caller's transaction; a missing object is reported as "not allowed" or raised as an
    // error that the caller's transaction wrapper catches.
    let result = unsafe {
        #[cfg(feature = "pg15")]
        let result = pg_sys::pg_database_aclcheck(database, role, mode);
        #[cfg(not(feature = "pg15"))]
        let result = pg_sys::object_aclcheck(pg_sys::DatabaseRelationId, database, role, mode);
        result
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

fn attributes(role: pg_sys::Oid) -> Option<pg_sys::FormData_pg_authid> {
    // SAFETY: the cache returns NULL or a pinned tuple of pg_authid, whose fixed part is `FormData_pg_authid`; it is
    // copied before the pin is let go.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID.cast_signed(), role.into());
        if tuple.is_null() {
            return None;
        }
        let form = *pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        pg_sys::ReleaseSysCache(tuple);
        Some(form)
    }
}

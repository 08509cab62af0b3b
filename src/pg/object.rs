//! Objects of the database as they are at this moment: found by name, locked, and only then looked at.
//!
//! A name that was checked and is used later may mean something else by then: whoever owns the schema can put another
//! table or function in its place. The lock keeps the object that was checked; statements that use its name compare the
//! OID once more. Does not live here: whom to trust (`store`).

use std::ffi::CStr;

use pgrx::pg_sys;

/// A table, view or the like, locked until the end of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its owner.
    pub owner: pg_sys::Oid,
    /// `r` for a table, `p` for a partitioned one, `v` for a view.
    pub kind: char,
}

/// How a relation is going to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// SELECT.
    Read,
    /// UPDATE.
    Write,
}

/// Finds and locks a relation of a schema; `None` when there is none of that name.
pub fn lock_relation(name: &CStr, schema: pg_sys::Oid, usage: Use) -> Option<Relation> {
    let mode = match usage {
        Use::Read => pg_sys::AccessShareLock,
        Use::Write => pg_sys::RowExclusiveLock,
    }
    .cast_signed();
    loop {
        // SAFETY: catalogue reads and an ordinary relation lock, inside a transaction; errors are PostgreSQL's own.
        let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
        if oid == pg_sys::InvalidOid {
            return None;
        }
        // SAFETY: as above; taking the lock also takes in what others have committed since.
        let still = unsafe {
            pg_sys::LockRelationOid(oid, mode);
            pg_sys::get_relname_relid(name.as_ptr(), schema)
        };
        if still == oid {
            let cache = pg_sys::SysCacheIdentifier::RELOID.cast_signed();
            return cached(cache, oid, |class: &pg_sys::FormData_pg_class| {
                let kind = char::from(class.relkind.to_ne_bytes()[0]);
                Relation { oid, owner: class.relowner, kind }
            });
        }
        // SAFETY: the lock taken just above.
        unsafe { pg_sys::UnlockRelationOid(oid, mode) };
    }
}

/// As [`lock_relation`] for a write, without waiting; `None` also when somebody's lock is in the way.
pub fn lock_relation_now(name: &CStr, schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: catalogue reads and an ordinary relation lock, inside a transaction, that is had at once or not at all; taking
    // it also takes in what others have committed since.
    unsafe {
        let oid = pg_sys::get_relname_relid(name.as_ptr(), schema);
        let locked = oid != pg_sys::InvalidOid
            && pg_sys::ConditionalLockRelationOid(oid, pg_sys::RowExclusiveLock.cast_signed());
        (locked && pg_sys::get_relname_relid(name.as_ptr(), schema) == oid).then_some(oid)
    }
}

/// A relation by its names, not locked.
pub fn find_relation(name: &CStr, schema: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: catalogue reads inside a transaction; two C strings.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == pg_sys::InvalidOid { schema } else { pg_sys::get_relname_relid(name.as_ptr(), schema) }
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Locks a function against being dropped, until the end of the transaction, and says who owns it now.
pub fn lock_function(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: an ordinary object lock inside a transaction; any OID is allowed.
    unsafe {
        pg_sys::LockDatabaseObject(pg_sys::ProcedureRelationId, oid, 0, pg_sys::AccessShareLock.cast_signed());
    }
    function_owner(oid)
}

/// Who owns a function now, not locked.
pub fn function_owner(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let cache = pg_sys::SysCacheIdentifier::PROCOID.cast_signed();
    cached(cache, oid, |function: &pg_sys::FormData_pg_proc| function.proowner)
}

/// The owner of this database.
pub fn database_owner() -> Option<pg_sys::Oid> {
    // SAFETY: a process-global that is set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId };
    let cache = pg_sys::SysCacheIdentifier::DATABASEOID.cast_signed();
    cached(cache, database, |form: &pg_sys::FormData_pg_database| form.datdba)
}

/// Reads the fixed part of a catalogue row. `F` must be the form of the cache's catalogue.
fn cached<F, T>(cache: i32, key: pg_sys::Oid, read: impl FnOnce(&F) -> T) -> Option<T> {
    // SAFETY: the cache returns NULL or a pinned, aligned tuple whose fixed part is `F`, as each caller above pairs them;
    // it is read before the pin is let go.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, key.into());
        if tuple.is_null() {
            return None;
        }
        let found = read(&*pg_sys::GETSTRUCT(tuple).cast::<F>());
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

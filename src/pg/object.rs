//! Objects of the database as they are at this moment: found by name, locked, and only then looked at.
//!
//! A name that was checked and is used later may mean something else by then: whoever owns the schema can put another
//! table or function in its place. The lock keeps the object that was checked; statements that use its name compare the
//! OID once more. Does not live here: whom to trust (`store`).

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, pg_sys};

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

/// The type of a relation's column; `None` when there is no such column.
pub fn column_type(relation: pg_sys::Oid, column: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: catalogue reads; a C string. A column that was dropped has no name.
    unsafe {
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        (number > 0).then(|| pg_sys::get_atttype(relation, number))
    }
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

/// An extension, as its catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledExtension {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its owner.
    pub owner: pg_sys::Oid,
    /// Its schema.
    pub schema: pg_sys::Oid,
    /// Its version.
    pub version: String,
}

/// An extension by its name, not locked; `None` when it is not installed.
pub fn find_extension(name: &CStr) -> Option<InstalledExtension> {
    const COLUMNS: usize = pg_sys::Anum_pg_extension_extcondition as usize;
    let mut found = None;
    // SAFETY: the way in which core looks an extension up: the relation is open and locked during the scan, and both are
    // closed before returning, or by the abort after an error. The key's function compares names; both arrays have room
    // for all columns, of which the ones that are read are never NULL, and what is read is copied.
    unsafe {
        let lock = pg_sys::AccessShareLock.cast_signed();
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let mut key = pg_sys::ScanKeyData::default();
        let column = pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber;
        let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        let wanted = pg_sys::Datum::from(name.as_ptr());
        pg_sys::ScanKeyInit(&raw mut key, column, equal, pg_sys::F_NAMEEQ.into(), wanted);
        let index = pg_sys::ExtensionNameIndexId.into();
        let scan = pg_sys::systable_beginscan(relation, index, true, std::ptr::null_mut(), 1, &raw mut key);
        let tuple = pg_sys::systable_getnext(scan);
        if !tuple.is_null() {
            let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [true; COLUMNS]);
            pg_sys::heap_deform_tuple(tuple, (*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            let value = |number: u32| values[number as usize - 1];
            let oid = |number| pg_sys::Oid::from(value(number).value() as u32);
            found = Some(InstalledExtension {
                oid: oid(pg_sys::Anum_pg_extension_oid),
                owner: oid(pg_sys::Anum_pg_extension_extowner),
                schema: oid(pg_sys::Anum_pg_extension_extnamespace),
                version: String::from_datum(value(pg_sys::Anum_pg_extension_extversion), false).unwrap_or_default(),
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// A schema's name, not quoted; `None` when it is gone.
pub fn schema_name(schema: pg_sys::Oid) -> Option<String> {
    // SAFETY: NULL or a palloc'd C string, which is copied.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The last value that a sequence gave to anybody, 0 before the first. For who may read it; costs next to nothing.
pub fn last_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: core's own function behind the view pg_sequences; it takes an OID and gives NULL or an int8.
    let last = unsafe { pgrx::direct_function_call::<i64>(pg_sys::pg_sequence_last_value, &[sequence.into_datum()]) };
    last.unwrap_or(0)
}

/// The next value of a sequence.
pub fn next_value(sequence: pg_sys::Oid) -> Option<i64> {
    // SAFETY: core's nextval(regclass), which checks that the role in force may use it.
    unsafe { pgrx::direct_function_call::<i64>(pg_sys::nextval_oid, &[sequence.into_datum()]) }
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

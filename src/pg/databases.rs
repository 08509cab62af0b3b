//! The list of databases, read without being in one.
//!
//! Lives here: one scan of pg_database. Does not live here: who gets a worker (`worker::launcher`).

use std::ffi::CStr;

use pgrx::pg_sys;

/// The databases that a worker could serve, with their names: connectable, no template, not half dropped. Inside a
/// transaction only; needs no database connection, so the launcher can call it.
pub fn connectable() -> Vec<(pg_sys::Oid, String)> {
    let mut found = Vec::new();
    // SAFETY: the relation is open and locked during the scan, and both are closed before returning; an error in between
    // is cleaned up by the abort of the caller's transaction. Each tuple is valid until the next is fetched, and the
    // fixed part of a pg_database tuple is `FormData_pg_database`.
    unsafe {
        let lock = pg_sys::AccessShareLock.cast_signed();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if form.datallowconn && !form.datistemplate && form.datconnlimit != HALF_DROPPED {
                let name = CStr::from_ptr(form.datname.data.as_ptr());
                found.push((form.oid, name.to_string_lossy().into_owned()));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// An interrupted DROP DATABASE leaves this as the connection limit.
const HALF_DROPPED: i32 = -2;

//! Counting a table's rows as they are at this moment, without a plan, an index or a privilege.
//!
//! Lives here: one scan. Does not live here: what is made of the numbers. SQL would look through the transaction's
//! snapshot, which may be older than rows that are about to be lost, and through catalogues of a table that is half dropped.

use std::collections::BTreeMap;
use std::ffi::CStr;

use pgrx::{FromDatum, pg_sys};

/// How many rows there are of each value of a text column; those that others have not committed are not counted. Reads
/// the whole table.
pub fn count_by_text(table: pg_sys::Oid, column: &CStr) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    // SAFETY: the relation is locked and open during the scan; snapshot, scan and relation are closed before returning,
    // and by the abort of the transaction after an error. A tuple is valid until the next is fetched; both arrays have
    // room for all its columns, and the column's number is checked to be one of them.
    unsafe {
        let lock = pg_sys::AccessShareLock.cast_signed();
        let number = pg_sys::get_attnum(table, column.as_ptr());
        let Some(index) = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)) else {
            return counts;
        };
        let relation = pg_sys::table_open(table, lock);
        let description = (*relation).rd_att;
        let width = usize::try_from((*description).natts).unwrap_or(0).max(index + 1);
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![true; width]);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, snapshot, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());
            let value = <&str>::from_datum(values[index], nulls[index]).unwrap_or_default();
            match counts.get_mut(value) {
                Some(count) => *count += 1,
                None => drop(counts.insert(value.to_owned(), 1)),
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, lock);
    }
    counts
}

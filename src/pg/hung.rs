//! What others have hung on a table: its triggers, as the executor is going to see them, whatever the transaction's snapshot
//! shows; and how deep in triggers this is.
//!
//! Does not live here: whom to trust (`store`).

use std::ffi::CStr;

use pgrx::{direct_function_call, pg_sys};

use super::object;

/// A trigger that is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    /// Its name.
    pub name: String,
    /// Whose its function is; `None` when that is gone.
    pub function_owner: Option<pg_sys::Oid>,
    /// It fires on UPDATE, and an expression is asked whether it should: whoever made the trigger wrote that.
    pub asks_on_update: bool,
}

/// `TRIGGER_TYPE_UPDATE` of catalog/pg_trigger.h.
const ON_UPDATE: i16 = 1 << 4;
/// `TRIGGER_DISABLED` of commands/trigger.h.
const DISABLED: u8 = b'D';

/// The enabled triggers of a table that the caller has locked, without those of foreign keys, in the order of their names.
pub fn triggers(table: pg_sys::Oid) -> Vec<Hung> {
    let mut found = Vec::new();
    // SAFETY: the relation is locked by the caller and open while its cache entry is read; the description is NULL or has
    // that many triggers, whose names are C strings. Looking owners up can rebuild the entry, which keeps what is in use
    // where it is when it has not changed; under the lock no trigger changes. So they are copied first.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock.cast_signed());
        let description = (*relation).trigdesc;
        if !description.is_null() {
            for number in 0..usize::try_from((*description).numtriggers).unwrap_or(0) {
                let trigger = &*(*description).triggers.add(number);
                if trigger.tgisinternal || trigger.tgenabled.to_ne_bytes()[0] == DISABLED {
                    continue;
                }
                let name = CStr::from_ptr(trigger.tgname).to_string_lossy().into_owned();
                let asks = !trigger.tgqual.is_null() && trigger.tgtype & ON_UPDATE != 0;
                found.push((name, trigger.tgfoid, asks));
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock.cast_signed());
    }
    let with_owner = |(name, function, asks_on_update)| Hung {
        name,
        function_owner: object::function_owner(function),
        asks_on_update,
    };
    found.into_iter().map(with_owner).collect()
}

/// How many triggers have called each other to get here; 0 outside of any.
pub fn depth() -> i32 {
    // SAFETY: a function of core without arguments, which reads process-local state.
    unsafe { direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) }.unwrap_or(0)
}

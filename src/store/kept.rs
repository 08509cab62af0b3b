//! What a session keeps of our configuration from call to call, exactly as long as a read would find the same.
//!
//! Lives here: keeping and forgetting. Does not live here: what is read (`config`, `port`, `extension`, `breaker`), and how a change
//! makes itself known (`pg::fresh`).

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::LocalKey;

use super::spi;
use crate::domain::error::DotError;
use crate::pg::fresh::{self, Class};
use crate::pg::object;

/// Something kept, and the number that it was read at.
pub type Slot<T> = RefCell<Option<(u64, Rc<T>)>>;

/// The tables of each class. Each has the triggers of sql/58_kept.sql.
fn tables(class: Class) -> &'static [&'static std::ffi::CStr] {
    match class {
        Class::Settings => &[c"port", c"instance", c"ancestry", c"policy", c"endpoint", c"egress_rule"],
        Class::Breakers => &[c"breaker", c"breaker_order", c"endpoint"],
    }
}

/// What was kept, or else what `load` reads; which is kept where `may_keep` says so and nothing has changed meanwhile.
///
/// # Errors
/// Those of `load`.
pub fn read<T>(
    slot: &'static LocalKey<Slot<T>>,
    class: Class,
    load: impl FnOnce() -> Result<T, DotError>,
    may_keep: impl FnOnce(&T) -> bool,
) -> Result<Rc<T>, DotError> {
    let Some(before) = fresh::number(class) else { return Ok(Rc::new(load()?)) };
    let known = slot.with_borrow(|slot| slot.as_ref().filter(|(at, _)| *at == before).map(|(_, kept)| Rc::clone(kept)));
    if let Some(kept) = known {
        return Ok(kept);
    }
    for table in tables(class) {
        if let Some(table) = object::find_relation(table, c"dot_wrapper") {
            fresh::watch(class, table);
        }
    }
    let before = fresh::number(class);
    let loaded = Rc::new(load()?);
    let keep = may_keep(&loaded) && is_told(class)?;
    if let Some(before) = before.filter(|before| keep && fresh::number(class) == Some(*before)) {
        slot.replace(Some((before, Rc::clone(&loaded))));
    }
    Ok(loaded)
}

/// Whether every change of these tables makes itself known, whoever makes it: each has its triggers, and nobody has disabled
/// one; and that none has children, whose rows are read with its own and tell nobody. Where not, nothing is kept.
fn is_told(class: Class) -> Result<bool, DotError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'dot_wrapper'
               WHERE c.relname = ANY ($1) AND t.tgname IN ('change_begun', 'change_told', 'truncation_told')
                 AND t.tgenabled = 'A' AND NOT c.relhassubclass";
    let names: Vec<String> = tables(class).iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let wanted = i64::try_from(3 * names.len()).unwrap_or(i64::MAX);
    Ok(spi::steady_row(sql, &[names.into()], |row| spi::need::<i64>(row, 1))? == Some(wanted))
}

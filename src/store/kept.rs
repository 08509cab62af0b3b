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

/// The tables, of all that something is kept of, whose changes do not make themselves known: while there is one, nothing of its
/// class is kept, and every call reads it anew. True with those that have children, which tell nobody.
///
/// # Errors
/// XX000 only.
pub fn untold() -> Result<Vec<(String, bool)>, DotError> {
    let mut all = [tables(Class::Settings), tables(Class::Breakers)].concat();
    all.sort_unstable();
    all.dedup();
    untold_of(&all)
}

fn is_told(class: Class) -> Result<bool, DotError> {
    Ok(untold_of(tables(class))?.is_empty())
}

/// Of every change each must tell, whoever makes it: it has its triggers, and nobody has disabled one; and it has no children,
/// whose rows are read with its own and tell nobody.
fn untold_of(tables: &[&std::ffi::CStr]) -> Result<Vec<(String, bool)>, DotError> {
    let sql = "SELECT x.name, coalesce(c.relhassubclass, false)
               FROM unnest($1::text[]) AS x (name)
               LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'dot_wrapper'
               LEFT JOIN pg_catalog.pg_class c ON c.relname = x.name::name AND c.relnamespace = n.oid
               WHERE c.relhassubclass
                  OR (SELECT count(*) FROM pg_catalog.pg_trigger t
                      WHERE t.tgrelid = c.oid AND t.tgname IN ('change_begun', 'change_told', 'truncation_told')
                        AND t.tgenabled = 'A') < 3";
    let names: Vec<String> = tables.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    spi::steady_rows(sql, &[names.into()], |row| Ok((spi::need(row, 1)?, spi::need(row, 2)?)))
}

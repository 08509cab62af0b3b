//! Whether what was read of some tables still holds: a number that changes with every change of them that this transaction can see.
//!
//! Lives here: the trigger function that tells of a change, PostgreSQL's own invalidation messages which carry it, and the numbers.
//! Does not live here: what is kept (`store::kept`).
//!
//! A change of a watched table sends the same message as DDL on it: to others when it commits, before the commit is acknowledged;
//! to its own transaction when the statement is over, and again when it is rolled back. Messages are taken in here, at each look,
//! so that what was committed before the look is never missed. Who reads must look before and after: a message that came in
//! between says that the read may be of an older snapshot.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use pgrx::{pg_guard, pg_sys};

/// What is watched. Each has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Configuration; and functions, schemas, roles and databases, which it names.
    Settings = 0,
    /// Circuit breakers, which change as agents come and go.
    Breakers = 1,
}

const CLASSES: usize = 2;
/// More tables than are ever watched, over two installations in one session; what is beyond counts as changed by anything.
const TABLES: usize = 32;

static NUMBERS: [AtomicU64; CLASSES] = [const { AtomicU64::new(0) }; CLASSES];
static WATCHED: [[AtomicU32; TABLES]; CLASSES] = [const { [const { AtomicU32::new(0) }; TABLES] }; CLASSES];
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// The number of a class now. Equal numbers: nothing that was watched in between has changed.
///
/// `None` in REPEATABLE READ and SERIALIZABLE, whose snapshot is older than what this could tell.
pub fn number(class: Class) -> Option<u64> {
    if super::settings::has_one_snapshot() {
        return None;
    }
    if !REGISTERED.swap(true, Relaxed) {
        register();
    }
    // SAFETY: inside a transaction. What this transaction has changed itself counts as soon as a new statement would see it.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::AcceptInvalidationMessages();
    }
    Some(NUMBERS[class as usize].load(Relaxed))
}

/// Watches a table from now on. Call it before what is kept of it is read.
pub fn watch(class: Class, table: pg_sys::Oid) {
    let table = table.to_u32();
    for slot in &WATCHED[class as usize] {
        match slot.load(Relaxed) {
            0 => return slot.store(table, Relaxed),
            known if known == table => return,
            _ => {}
        }
    }
    // No room: forget which ones, and with it what was kept of them.
    WATCHED[class as usize][1..].iter().for_each(|slot| slot.store(0, Relaxed));
    WATCHED[class as usize][0].store(table, Relaxed);
    NUMBERS[class as usize].fetch_add(1, Relaxed);
}

fn register() {
    const OBJECTS: [pg_sys::SysCacheIdentifier::Type; 4] = [
        pg_sys::SysCacheIdentifier::PROCOID,
        pg_sys::SysCacheIdentifier::NAMESPACEOID,
        pg_sys::SysCacheIdentifier::AUTHOID,
        pg_sys::SysCacheIdentifier::DATABASEOID,
    ];
    // SAFETY: once in the life of the process, with functions that last as long; there are slots for some more.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_table), pg_sys::Datum::from(0));
        for cache in OBJECTS {
            pg_sys::CacheRegisterSyscacheCallback(cache.cast_signed(), Some(on_object), pg_sys::Datum::from(0));
        }
    }
}

/// Called where messages are taken in: no error, no catalogue, no panic.
unsafe extern "C-unwind" fn on_table(_arg: pg_sys::Datum, table: pg_sys::Oid) {
    let table = table.to_u32();
    for (number, watched) in NUMBERS.iter().zip(&WATCHED) {
        if table == 0 || watched.iter().any(|slot| slot.load(Relaxed) == table) {
            number.fetch_add(1, Relaxed);
        }
    }
}

unsafe extern "C-unwind" fn on_object(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    NUMBERS[Class::Settings as usize].fetch_add(1, Relaxed);
}

/// For AFTER triggers on the watched tables: tells of the change, and does nothing else.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn dot_wrapper_tell_of_change(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes its call information; the context is NULL or a node, and a TriggerData node where the function is
    // called by a trigger, whose relation is open. Messages are kept and sent by PostgreSQL, as those of DDL are.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            pgrx::error!("dot_wrapper: this function is for a trigger");
        }
        let data = &*context.cast::<pg_sys::TriggerData>();
        let is_after = data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        // A row's BEFORE trigger would have to hand the row on.
        if !is_after && data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 {
            pgrx::error!("dot_wrapper: tell_of_change is not for a row's BEFORE trigger");
        }
        pg_sys::CacheInvalidateRelcache(data.tg_relation);
    }
    pg_sys::Datum::from(0)
}

/// What PostgreSQL looks for before it calls the function above.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_finfo_dot_wrapper_tell_of_change() -> *const pg_sys::Pg_finfo_record {
    static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION_1
}

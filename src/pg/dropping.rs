//! Being asked before the extension's tables go: a hook on every drop, and an event trigger that makes sure of the hook.
//!
//! Lives here: seeing a drop, in whatever command and whatever it is reached by. Does not live here: whether it may happen
//! (`run::uninstall`).
//!
//! The hook sees each object that is about to be dropped, whoever CASCADEs to it. It is in place where this library is
//! loaded: everywhere with the preload, otherwise in the sessions that have called one of our functions. In all others the
//! event trigger of the install script calls one before the command begins.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

use super::session;

/// What is about to be taken apart; all it takes to find out what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doomed {
    /// This table is dropped, with all that is in it. It is locked against everybody else.
    Table(pg_sys::Oid),
    /// The extension gets a member or loses one.
    Member,
}

/// Which table is watched, and what to do about it; may raise, which ends the command.
#[derive(Clone, Copy)]
pub struct Watch {
    /// The extension, and the schema of its tables.
    pub extension: &'static CStr,
    /// The table.
    pub table: &'static CStr,
    /// Called before anything has happened to it.
    pub before: fn(Doomed),
}

static WATCH: OnceLock<Watch> = OnceLock::new();
static NEXT: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// Installs the hook, once per process. From `_PG_init`, preloaded or not.
pub fn install(watch: Watch) {
    // pg_upgrade takes extensions apart and puts them together again, with all their rows.
    if session::in_binary_upgrade() || WATCH.set(watch).is_err() {
        return;
    }
    // SAFETY: the hook is a variable of this process, read and written on its only thread of PostgreSQL.
    unsafe {
        let _ = NEXT.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
    }
}

/// Not `#[pg_guard]`, see `utility`: errors of the next hook have to pass untouched; nothing here has a destructor.
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    arg: *mut c_void,
) {
    if let Some(Some(next)) = NEXT.get() {
        // SAFETY: the arguments are passed on as they came.
        unsafe { next(access, class, object, part, arg) };
    }
    let table = access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId && part == 0;
    if table {
        // SAFETY: a guarded function.
        unsafe { dropping(object) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn dropping(table: pg_sys::Oid) {
    // SAFETY: reads a flag of this process. A script of the extension itself may rebuild its tables.
    if unsafe { pg_sys::creating_extension } {
        return;
    }
    if let Some(watch) = WATCH.get()
        && is_watched(table, watch)
    {
        (watch.before)(Doomed::Table(table));
    }
}

fn is_watched(table: pg_sys::Oid, watch: &Watch) -> bool {
    // SAFETY: catalogue look-ups in the command's transaction; the name is NULL or a palloc'd C string, freed here, since
    // a command may drop very many tables.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return false;
        }
        let same = CStr::from_ptr(name) == watch.table;
        pg_sys::pfree(name.cast());
        same && pg_sys::get_rel_namespace(table) == pg_sys::get_namespace_oid(watch.extension.as_ptr(), true)
    }
}

/// The function of the event trigger. That it can be called at all means that the hook is in place.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn dot_wrapper_before_drop(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes its call information; the context is NULL or a node, and an EventTriggerData node where
    // the function is called by an event trigger, with the command's parse tree in it.
    let member = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            pgrx::error!("dot_wrapper: this function is for an event trigger");
        }
        is_about_members((*context.cast::<pg_sys::EventTriggerData>()).parsetree)
    };
    if let (true, Some(watch)) = (member, WATCH.get()) {
        (watch.before)(Doomed::Member);
    }
    pg_sys::Datum::from(0)
}

/// Whether it is ALTER EXTENSION … ADD or DROP, for the extension that is watched.
///
/// # Safety
/// A valid parse node.
unsafe fn is_about_members(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the cast is to the type that the tag names; the name is a C string.
    unsafe {
        if (*statement).type_ != pg_sys::NodeTag::T_AlterExtensionContentsStmt {
            return false;
        }
        let name = (*statement.cast::<pg_sys::AlterExtensionContentsStmt>()).extname;
        WATCH.get().is_some_and(|watch| CStr::from_ptr(name) == watch.extension)
    }
}

/// What PostgreSQL looks for before it calls the function above.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_finfo_dot_wrapper_before_drop() -> *const pg_sys::Pg_finfo_record {
    static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION_1
}

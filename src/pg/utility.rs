//! The ProcessUtility hook: seeing the few commands that a worker is in the way of, or has to hear of.
//!
//! Lives here: the hook and the reading of parse trees. Does not live here: what to do about a command
//! (`worker::aside`).
//!
//! Every DDL statement of the server passes through here, so it is built to leave no trace in them: the next hook is
//! called directly, not through pgrx's error boundary, which would strip CONTEXT, constraint names and private
//! SQLSTATEs from everybody's errors. That is sound because no frame of ours below that call owns anything.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

use super::role;

/// What a command means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// It needs this database empty, and the user may do it.
    NeedsEmpty {
        /// The database.
        database: pg_sys::Oid,
        /// Whether it is to be dropped: then nothing in it is worth finishing.
        drop: bool,
    },
    /// CREATE EXTENSION of anything: ours may have come with it.
    ExtensionCreated,
    /// Something that may have changed or dropped our extension.
    ExtensionTouched,
}

/// The two things to do about a command; either may raise.
#[derive(Clone, Copy)]
pub struct Handlers {
    /// Before it runs.
    pub before: fn(Command),
    /// After it has run without an error; its transaction is still open.
    pub after: fn(Command),
}

static NEXT: OnceLock<pg_sys::ProcessUtility_hook_type> = OnceLock::new();
static HANDLERS: OnceLock<Handlers> = OnceLock::new();

// Called without the binding's error boundary, see above.
unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        pstmt: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        qc: *mut pg_sys::QueryCompletion,
    );
}

/// Installs the hook. Only from `_PG_init`, while `shared_preload_libraries` are being loaded.
pub fn install(handlers: Handlers) {
    let _ = HANDLERS.set(handlers);
    // SAFETY: hooks are chained in the postmaster before any other process exists.
    unsafe {
        let _ = NEXT.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// Not `#[pg_guard]`: an error of the command itself has to pass over this frame untouched, and may, since nothing here
/// has a destructor. Our own part is guarded in `before` and `after`.
unsafe extern "C-unwind" fn process_utility(
    pstmt: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    env: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    qc: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL passes a valid statement, whose utility part is set for every utility command.
    let statement = unsafe { (*pstmt).utilityStmt };
    // SAFETY: as above; a node starts with its tag.
    let ours = concerns_us(unsafe { (*statement).type_ });
    let mut command: Option<Command> = None;
    if ours {
        // SAFETY: a guarded function; `statement` is valid for the call.
        unsafe { before(statement, &raw mut command) };
    }
    // SAFETY: the arguments are passed on as they came, to the function that would have been called without us.
    unsafe {
        match NEXT.get() {
            Some(Some(next)) => next(pstmt, query, read_only_tree, context, params, env, dest, qc),
            _ => standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc),
        }
    }
    if let Some(command) = command {
        // SAFETY: a guarded function.
        unsafe { after(&raw const command) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before(statement: *mut pg_sys::Node, command: *mut Option<Command>) {
    // SAFETY: a valid node for the length of this call, see `process_utility`.
    let read = unsafe { read(statement) };
    if let (Some(found), Some(handlers)) = (read, HANDLERS.get()) {
        (handlers.before)(found);
    }
    // SAFETY: points to a local of the caller.
    unsafe { *command = read };
}

#[pg_guard]
unsafe extern "C-unwind" fn after(command: *const Command) {
    if let Some(handlers) = HANDLERS.get() {
        // SAFETY: points to a local of the caller.
        (handlers.after)(unsafe { *command });
    }
}

fn concerns_us(tag: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::{
        T_AlterDatabaseStmt, T_AlterExtensionStmt, T_CreateExtensionStmt, T_CreatedbStmt, T_DropOwnedStmt, T_DropStmt,
        T_DropdbStmt, T_RenameStmt,
    };
    matches!(
        tag,
        T_AlterDatabaseStmt
            | T_AlterExtensionStmt
            | T_CreateExtensionStmt
            | T_CreatedbStmt
            | T_DropOwnedStmt
            | T_DropStmt
            | T_DropdbStmt
            | T_RenameStmt
    )
}

/// # Safety
/// `statement` is a valid parse node.
unsafe fn read(statement: *mut pg_sys::Node) -> Option<Command> {
    use pg_sys::NodeTag;
    // SAFETY: each cast is to the type that the tag names, which is what node tags are for; strings in it are C strings
    // or NULL.
    unsafe {
        match (*statement).type_ {
            NodeTag::T_DropdbStmt => {
                let statement = &*statement.cast::<pg_sys::DropdbStmt>();
                owned(statement.dbname, true)
            }
            NodeTag::T_RenameStmt => {
                let statement = &*statement.cast::<pg_sys::RenameStmt>();
                let database = statement.renameType == pg_sys::ObjectType::OBJECT_DATABASE;
                if database { owned(statement.subname, false) } else { None }
            }
            NodeTag::T_AlterDatabaseStmt => {
                let statement = &*statement.cast::<pg_sys::AlterDatabaseStmt>();
                option(statement.options, c"tablespace").and_then(|_| owned(statement.dbname, false))
            }
            NodeTag::T_CreatedbStmt => source(&*statement.cast::<pg_sys::CreatedbStmt>()),
            NodeTag::T_CreateExtensionStmt => Some(Command::ExtensionCreated),
            NodeTag::T_AlterExtensionStmt | NodeTag::T_DropOwnedStmt => Some(Command::ExtensionTouched),
            NodeTag::T_DropStmt => {
                let kind = (*statement.cast::<pg_sys::DropStmt>()).removeType;
                matches!(kind, pg_sys::ObjectType::OBJECT_EXTENSION | pg_sys::ObjectType::OBJECT_SCHEMA)
                    .then_some(Command::ExtensionTouched)
            }
            _ => None,
        }
    }
}

/// A database that the current user owns and is not connected to; anybody else's command fails without our help, and
/// must not be able to make a worker leave.
///
/// # Safety
/// `name` is a C string or NULL.
unsafe fn owned(name: *const c_char, drop: bool) -> Option<Command> {
    // SAFETY: the caller's promise.
    let database = unsafe { by_name(name) }?;
    let allowed = database != super::session::database() && role::owns_database(database);
    allowed.then_some(Command::NeedsEmpty { database, drop })
}

/// The database that CREATE DATABASE copies.
///
/// # Safety
/// A valid parse node.
unsafe fn source(statement: &pg_sys::CreatedbStmt) -> Option<Command> {
    // SAFETY: a valid list of options; the value's string is valid as long as the node.
    let database = unsafe {
        match option(statement.options, c"template") {
            Some(template) => by_name(pg_sys::defGetString(template)),
            None => by_name(c"template1".as_ptr()),
        }
    }?;
    let allowed = role::may_create_databases() && (role::is_template(database) || role::owns_database(database));
    allowed.then_some(Command::NeedsEmpty { database, drop: false })
}

/// # Safety
/// `name` is a C string or NULL.
unsafe fn by_name(name: *const c_char) -> Option<pg_sys::Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    role::database_by_name(unsafe { CStr::from_ptr(name) })
}

/// # Safety
/// `options` is a list of DefElem nodes or NULL.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: the caller's promise: a list has `length` cells at `elements`, each a pointer here. A DefElem without an
    // argument would make defGetString raise, so it is left out.
    unsafe {
        let list = options.as_ref()?;
        let cells = std::slice::from_raw_parts(list.elements, usize::try_from(list.length).ok()?);
        cells
            .iter()
            .map(|cell| cell.ptr_value.cast::<pg_sys::DefElem>())
            .find(|element| CStr::from_ptr((**element).defname) == name && !(**element).arg.is_null())
    }
}

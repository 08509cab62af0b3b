//! What a worker's session is: settings that nobody could have planted, a role that is not too much, a visible state.
//!
//! Lives here: forced settings, SET LOCAL, the role's attributes, activity and statistics, who and where we are. Does not
//! live here: connecting (`pg::bgworker`), settings of this extension (`guc`), running as another role (`pg::user`).

use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgrx::pg_sys;

/// Settings that a database or role owner can plant, or that an administrator's file can change under us, and what a
/// worker needs instead. Applied with override priority, so that neither ALTER ROLE nor a reload brings them back.
const FORCED: &[(&CStr, &CStr)] = &[
    // What a name means.
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"role", c"none"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    // What a literal means.
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"quote_all_identifiers", c"off"),
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"UTC"),
    (c"bytea_output", c"hex"),
    (c"extra_float_digits", c"1"),
    (c"xmloption", c"content"),
    // How a transaction behaves.
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"synchronous_commit", c"on"),
    // How long anything may take is decided by the worker alone.
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"0"),
    // Shorter than anybody's: where the worker and a command hold each other up, it is the worker that gives way.
    (c"deadlock_timeout", c"200ms"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    #[cfg(feature = "pg18")]
    (c"transaction_timeout", c"0"),
    // Where its few small statements run: here, now, without a compiler.
    (c"default_tablespace", c""),
    (c"temp_tablespaces", c""),
    (c"default_table_access_method", c"heap"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"jit", c"off"),
    (c"zero_damaged_pages", c"off"),
    (c"exit_on_error", c"off"),
];

/// Forces the settings above. Call it right after connecting, before the first statement.
pub fn force_settings() {
    for (name, value) in FORCED {
        // SAFETY: two C strings that the callee copies; SUSET is the context of code that PostgreSQL trusts, OVERRIDE the
        // source that outranks database, role and file.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// As SET LOCAL: until the end of the current (sub)transaction. Raises an error for a bad name or value.
pub fn set_local(name: &CStr, value: &CStr) {
    // SAFETY: two C strings that the callee copies; called inside a transaction, else the change has no extent and
    // PostgreSQL drops it. SUSET, since the caller is trusted code and not the user.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Runs `body` under other settings. As in `pg::user::run_as`, an error leaves their end to the (sub)transaction's.
pub fn with_settings<T>(settings: &[(&CStr, &CStr)], body: impl FnOnce() -> T) -> T {
    // SAFETY: the way in which core runs a function with SET clauses: the level is closed below with the same number.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in settings {
        // SAFETY: two C strings that the callee copies; inside of a transaction, at the level opened above.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
    let result = body();
    // SAFETY: see above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}

/// SET LOCAL lock_timeout. Zero would mean "for ever", so it becomes the least that there is.
pub fn set_local_lock_timeout(limit: Duration) {
    let millis = limit.as_millis().clamp(1, 86_400_000);
    if let Ok(value) = std::ffi::CString::new(format!("{millis}ms")) {
        set_local(c"lock_timeout", &value);
    }
}

unsafe extern "C-unwind" {
    fn enable_timeout_after(id: u32, delay_ms: i32);
    fn disable_timeout(id: u32, keep_indicator: bool);
}

/// `STATEMENT_TIMEOUT` of utils/timeout.h, the same in 15 to 18.
const STATEMENT_TIMEOUT: u32 = 3;

/// A statement timeout that is running; it ends when this is dropped.
pub struct Armed(());

thread_local! {
    /// When it goes off.
    static DUE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How much of a statement timeout that [`arm_timeout`] has started is left; `None` where there is none.
pub fn time_left() -> Option<Duration> {
    DUE.get().map(|due| due.saturating_duration_since(Instant::now()))
}

/// Starts a statement timeout for what follows: a worker has none by itself, whatever statement_timeout says. When it
/// goes off, the statement that runs is cancelled with 57014.
pub fn arm_timeout(limit: Duration) -> Armed {
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the handler of this timeout is registered in every process that is connected to a database.
    unsafe { enable_timeout_after(STATEMENT_TIMEOUT, millis) };
    DUE.set(Instant::now().checked_add(limit));
    Armed(())
}

impl Drop for Armed {
    fn drop(&mut self) {
        // SAFETY: as above; disabling one that has gone off, or that an abort has disabled, is allowed.
        unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
        DUE.set(None);
    }
}

/// Sets the application name that pg_stat_activity and the log show.
pub fn set_application_name(name: &CStr) {
    // SAFETY: a C string that the callees copy; this process has a slot in the activity array.
    unsafe {
        pg_sys::SetConfigOption(
            c"application_name".as_ptr(),
            name.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
        pg_sys::pgstat_report_appname(name.as_ptr());
    }
}

/// Shows this process as active in pg_stat_activity, with `what` as its query. Never put data into it.
pub fn report_running(what: &CStr) {
    // SAFETY: a C string that the callee copies.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr()) };
}

/// Shows this process as idle.
pub fn report_idle() {
    // SAFETY: a NULL command is what the backend main loop passes at idle.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()) };
}

/// Sends the table statistics gathered so far, without which autovacuum never learns of our writes. Between
/// transactions only; PostgreSQL limits the rate by itself unless `force`.
pub fn report_statistics(force: bool) {
    // SAFETY: called outside of a transaction, as the function asks.
    unsafe { pg_sys::pgstat_report_stat(force) };
}

/// The number that initdb gave this cluster. A physical copy keeps it.
pub fn system_identifier() -> u64 {
    // SAFETY: reads the control data that is mapped for the life of the server.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// When this postmaster started. With a pid it names a process for good.
pub fn postmaster_start() -> SystemTime {
    // SAFETY: set before any child process starts, never changed.
    let micros = unsafe { pg_sys::PgStartTime };
    from_timestamptz(micros)
}

/// The pid of this process.
pub fn pid() -> i32 {
    // SAFETY: set at process start.
    unsafe { pg_sys::MyProcPid }
}

/// The database that this process is connected to; invalid in the launcher.
pub fn database() -> pg_sys::Oid {
    // SAFETY: set once, when the process connects.
    unsafe { pg_sys::MyDatabaseId }
}

/// Whether the server is replaying WAL: a standby, or crash recovery.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the transaction may not write.
pub fn is_read_only() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether pg_upgrade has started this server.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: set at start, never changed.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// The extension's oid in this database, if it is installed. Inside a transaction only.
pub fn extension_oid(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a C string; a catalogue read in the caller's transaction.
    let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

fn from_timestamptz(micros: i64) -> SystemTime {
    const UNIX_TO_POSTGRES: Duration = Duration::from_secs(946_684_800);
    let epoch = UNIX_EPOCH + UNIX_TO_POSTGRES;
    match u64::try_from(micros) {
        Ok(after) => epoch + Duration::from_micros(after),
        Err(_) => epoch,
    }
}

//! Settings: their definitions, the reasons for their defaults, and typed accessors. Read on the server's thread only.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::domain::script::Roots;

/// On by default: without a worker nothing is ever sent, and the master toggle is the switch for that.
static WORKER_ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
/// The role made at install. Another one needs `GRANT dot_wrapper_worker TO it`.
static WORKER_ROLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"dot_wrapper_worker"));
/// 64 calls: far below a worker's file descriptors, and enough that one slow agent does not stop the rest.
static MAX_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(64);
/// The poll backs up the wake at commit, which prepared transactions bypass; a minute keeps an idle server quiet.
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
/// Where container engines put secrets.
static SECRETS_DIR: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"/run/secrets"));
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// Empty: no program is started because a library was installed.
static SCRIPT_ROOTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// Programs share the machine with the database: a few at a time.
static MAX_SCRIPTS: GucSetting<i32> = GucSetting::<i32>::new(4);
static SHIP_SUBSTRATE: GucSetting<bool> = GucSetting::<bool>::new(true);
/// 100,000 runs: some hours of work for most agents, and a queue that can still be counted in some ten milliseconds.
static MAX_QUEUED: GucSetting<i32> = GucSetting::<i32>::new(100_000);
/// 256 kB: arguments name things; data belongs in tables.
static MAX_ARGS_SIZE: GucSetting<i32> = GucSetting::<i32>::new(256);
/// Off, and for everybody to set: it is a second thought asked for, not a privilege.
static ALLOW_DROP: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines all settings and reserves the prefix. Called from `_PG_init`, preloaded or not.
pub fn init() {
    worker_settings();
    engine_settings();
    script_settings();
    GucRegistry::define_bool_guc(
        c"dot_wrapper.ship_substrate",
        c"Whether CREATE EXTENSION ships the substrate tables and functions that the database lacks.",
        c"Turn it off while restoring a dump of a database whose own tables were adopted.",
        &SHIP_SUBSTRATE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"dot_wrapper.max_args_size",
        c"Largest args of a run.",
        c"Longer arguments are refused with an error.",
        &MAX_ARGS_SIZE,
        1,
        16 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    #[cfg(feature = "fail_points")]
    crate::pg::fail_point::define();
    ledger_settings();
    crate::pg::settings::reserve_prefix(c"dot_wrapper");
}

fn ledger_settings() {
    GucRegistry::define_bool_guc(
        c"dot_wrapper.allow_drop",
        c"Whether the extension may be dropped although its ledger has runs.",
        c"Set it in the session that drops, after pg_dump.",
        &ALLOW_DROP,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"dot_wrapper.max_queued",
        c"Runs of one database that may wait in the queue.",
        c"More are refused; 0 means no limit.",
        &MAX_QUEUED,
        0,
        1_000_000,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn worker_settings() {
    GucRegistry::define_bool_guc(
        c"dot_wrapper.worker_enabled",
        c"Whether background workers run.",
        c"When off, runs are admitted and wait.",
        &WORKER_ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"dot_wrapper.worker_role",
        c"The role that the workers authenticate as.",
        c"A member of dot_wrapper_worker with LOGIN and without SUPERUSER, BYPASSRLS, CREATEROLE or REPLICATION.",
        &WORKER_ROLE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"dot_wrapper.max_in_flight",
        c"Calls that one database's worker has out at the same time.",
        c"",
        &MAX_IN_FLIGHT,
        1,
        4096,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"dot_wrapper.poll_interval",
        c"Longest time between two looks at the queue.",
        c"Workers are woken at commit; the poll finds what was committed without a wake.",
        &POLL_INTERVAL,
        1,
        3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

fn engine_settings() {
    GucRegistry::define_string_guc(
        c"dot_wrapper.secrets_dir",
        c"Directory with one file per secret.",
        c"A secret that has no file there is looked for in the server's environment as DOT_SECRET_<NAME>.",
        &SECRETS_DIR,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"dot_wrapper.ca_file",
        c"PEM file with certificate authorities to trust besides the system's.",
        c"",
        &CA_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
}

fn script_settings() {
    GucRegistry::define_string_guc(
        c"dot_wrapper.script_roots",
        c"Directories below which scripts may be started, comma-separated.",
        c"Absolute paths. Empty: the script engine is off.",
        &SCRIPT_ROOTS,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"dot_wrapper.max_scripts",
        c"Scripts that one database's worker has running at the same time.",
        c"",
        &MAX_SCRIPTS,
        1,
        256,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// `dot_wrapper.worker_enabled`.
pub fn worker_enabled() -> bool {
    WORKER_ENABLED.get()
}

/// `dot_wrapper.worker_role`.
pub fn worker_role() -> String {
    text(&WORKER_ROLE).unwrap_or_default()
}

/// `dot_wrapper.max_in_flight`, 1 to 4096.
pub fn max_in_flight() -> usize {
    usize::try_from(MAX_IN_FLIGHT.get()).unwrap_or(1)
}

/// `dot_wrapper.poll_interval`, 1 s to 1 h.
pub fn poll_interval() -> Duration {
    Duration::from_secs(u64::try_from(POLL_INTERVAL.get()).unwrap_or(60))
}

/// `dot_wrapper.secrets_dir`; `None` when empty.
pub fn secrets_dir() -> Option<PathBuf> {
    text(&SECRETS_DIR).map(PathBuf::from)
}

/// `dot_wrapper.ca_file`; `None` when empty.
pub fn ca_file() -> Option<PathBuf> {
    text(&CA_FILE).map(PathBuf::from)
}

/// `dot_wrapper.script_roots`, read.
pub fn script_roots() -> Roots {
    Roots::parse(&text(&SCRIPT_ROOTS).unwrap_or_default())
}

/// `dot_wrapper.max_scripts`, 1 to 256.
pub fn max_scripts() -> i64 {
    i64::from(MAX_SCRIPTS.get())
}

/// `dot_wrapper.max_queued`; 0: no limit.
pub fn max_queued() -> i64 {
    i64::from(MAX_QUEUED.get())
}

/// `dot_wrapper.max_args_size` in bytes.
pub fn max_args_bytes() -> usize {
    usize::try_from(MAX_ARGS_SIZE.get()).unwrap_or(256) * 1024
}

/// `dot_wrapper.allow_drop`.
pub fn allow_drop() -> bool {
    ALLOW_DROP.get()
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

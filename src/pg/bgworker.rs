//! Background workers: registering them, following them, connecting as one.
//!
//! Lives here: the postmaster's interface. Does not live here: when to start which (`worker::launcher`), or what a worker
//! does. The functions that the postmaster calls are in `pg::entry`.

use std::ffi::{CStr, c_char};
use std::time::Duration;

use pgrx::pg_sys;

/// The library's name, as `shared_preload_libraries` and `$libdir` have it.
const LIBRARY: &CStr = c"dot_wrapper";

/// Registers a worker that the postmaster starts after recovery, on a primary only, and starts again `restart` after it
/// ends with anything but 0. Only while `shared_preload_libraries` are being loaded.
pub fn register_static(name: &CStr, function: &CStr, restart: Duration) {
    let mut worker = describe(name, function);
    worker.bgw_restart_time = i32::try_from(restart.as_secs()).unwrap_or(1).max(1);
    // SAFETY: a fully initialised description that the callee copies; called from _PG_init in the postmaster.
    unsafe { pg_sys::RegisterBackgroundWorker(&raw mut worker) };
}

/// Asks the postmaster for a worker that is never restarted by it, and whose start and end set our latch.
///
/// `argument` and `extra` reach it through [`arguments`]. `None` when max_worker_processes is used up.
pub fn start_dynamic(name: &CStr, function: &CStr, argument: u32, extra: u32) -> Option<Handle> {
    let mut worker = describe(name, function);
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    worker.bgw_main_arg = pg_sys::Datum::from(argument);
    for (to, from) in worker.bgw_extra.iter_mut().zip(extra.to_ne_bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let mut handle: *mut pg_sys::BackgroundWorkerHandle = std::ptr::null_mut();
    // SAFETY: the description is copied; the handle is allocated in TopMemoryContext, since it has to outlive the
    // caller's transaction and turn, and is freed when the `Handle` is dropped.
    let registered = unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle);
        pg_sys::MemoryContextSwitchTo(before);
        registered
    };
    // Not `then_some`: that would make, and drop, a Handle of nothing.
    (registered && !handle.is_null()).then(|| Handle(handle))
}

/// What the worker was started with: `argument` and `extra` of [`start_dynamic`]. In a worker process only.
pub fn arguments(main_arg: pg_sys::Datum) -> (u32, u32) {
    // SAFETY: the entry exists in every background worker process, for its whole life.
    let extra = unsafe { (*pg_sys::MyBgworkerEntry).bgw_extra };
    let bytes = [extra[0], extra[1], extra[2], extra[3]].map(|byte| byte.to_ne_bytes()[0]);
    (main_arg.value() as u32, u32::from_ne_bytes(bytes))
}

/// Connects this worker to a database as a role. Ends the process with FATAL when either does not allow it.
pub fn connect(database: pg_sys::Oid, role: pg_sys::Oid) {
    // From 17 on, a role without LOGIN will do, which keeps it out of reach of pg_hba.conf mistakes.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let flags = 0;
    #[cfg(feature = "pg18")]
    let flags = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;
    // SAFETY: called once, in a worker registered with the database connection flag; InitPostgres copies what it needs.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, flags) };
}

/// Connects this worker to the shared catalogues only.
pub fn connect_shared() {
    // SAFETY: as in `connect`; without a database and a role, this gives shared catalogues as the bootstrap superuser.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
}

/// A worker that this process has asked for.
pub struct Handle(*mut pg_sys::BackgroundWorkerHandle);

impl Handle {
    /// Whether it has ended, or will never start.
    pub fn is_over(&self) -> bool {
        let mut pid: pg_sys::pid_t = 0;
        // SAFETY: the handle is valid until dropped; the pid is only written.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &raw mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: allocated by the registration, owned by this value alone.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

fn describe(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION).cast_signed(),
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        ..Default::default()
    };
    copy(&mut worker.bgw_name, name);
    copy(&mut worker.bgw_type, name);
    copy(&mut worker.bgw_library_name, LIBRARY);
    copy(&mut worker.bgw_function_name, function);
    worker
}

/// Copies as much as fits; the last byte stays zero.
fn copy(to: &mut [c_char], from: &CStr) {
    let room = to.len().saturating_sub(1);
    for (to, from) in to.iter_mut().take(room).zip(from.to_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
}

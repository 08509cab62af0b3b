//! Other processes of this server: whether one is there, asking it to end, and ending ourselves.
//!
//! Lives here: look-ups by pid, SIGTERM, exit callbacks, exit. Does not live here: which process is whose.

use pgrx::pg_sys;

// The bindings wrap every C function in an error boundary, and ask which thread calls: wrong after a fork from a thread.
unsafe extern "C-unwind" {
    fn PGSharedMemoryDetach();
}

/// Whether a connected process of this server has this pid. A background worker is not connected before its
/// initialisation has come that far.
pub fn is_connected(pid: i32) -> bool {
    // SAFETY: looks the pid up in the shared process array under its own lock; the pointer is only compared.
    pid > 0 && unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

/// The user that the server runs as.
pub fn user_id() -> u32 {
    // SAFETY: no memory is involved; it cannot fail.
    unsafe { libc::geteuid() }
}

/// Lets go of the server's shared memory, in a process that was forked from one of the server's and is none: one that held it
/// would keep a postmaster from starting after its predecessor was killed.
///
/// Two system calls and no allocation, unless one fails, and then a line for the log.
pub fn let_go_of_shared_memory() {
    // SAFETY: core's own function for children that are not to have it; nothing of ours touches shared memory afterwards.
    unsafe { PGSharedMemoryDetach() };
}

/// Sends SIGTERM. The caller has read `pid` from shared memory an instant ago, where it stands only while that process
/// lives.
pub fn terminate(pid: i32) {
    if pid > 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends this process. 0 for a deliberate end, 1 for one that the log should show.
pub fn exit(code: i32) -> ! {
    // SAFETY: runs the exit callbacks and does not return; allowed at any point where an error could be raised.
    unsafe { pg_sys::proc_exit(code) };
    // The bindings of 18 do not know that it does not return.
    #[cfg(feature = "pg18")]
    unreachable!("proc_exit returned");
}

/// Calls `clean` when this process ends, by whichever way but a crash, while shared memory is still there.
///
/// Register it right before the first thing it has to undo: it must only touch what this process has put there.
pub fn before_exit(clean: fn()) {
    // SAFETY: the callback is a static function; the argument carries a function pointer through a Datum of the same
    // size and back.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(clean as usize)) };
}

/// Not `#[pg_guard]`: an ERROR while exiting would start the exit over. A panic is swallowed.
#[allow(clippy::disallowed_methods, reason = "the process is exiting; there is no transaction to commit by mistake")]
unsafe extern "C-unwind" fn on_exit(_code: std::ffi::c_int, arg: pg_sys::Datum) {
    // SAFETY: the Datum was made from a `fn()` by `before_exit`, the only place that registers this callback.
    let clean: fn() = unsafe { std::mem::transmute::<usize, fn()>(arg.value()) };
    if let Err(payload) = std::panic::catch_unwind(clean) {
        std::mem::forget(payload);
    }
}

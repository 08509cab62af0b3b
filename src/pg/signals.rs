//! Signals of a background worker, configuration reload, and threads that signals stay away from.
//!
//! Lives here: installing core's handlers and blocking signals around a thread's start. Does not live here: any handler
//! that does a thing of its own: core's `die` interrupts SQL, lock waits and latch waits alike, a flag would not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use pgrx::pg_sys;

// The bindings wrap every C function in an error boundary, which is wrong inside a signal handler: declare the two
// that the kernel is to call.
unsafe extern "C-unwind" {
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// Installs the handlers of a worker and lets signals in. Call it first thing, before connecting.
///
/// SIGTERM: core's `die`. SIGHUP: see [`reload_config_if_asked`]. SIGINT keeps the handler that PostgreSQL installed,
/// which cancels the running statement.
pub fn install() {
    handle(libc::SIGTERM, terminate);
    handle(libc::SIGHUP, SignalHandlerForConfigReload);
    // SAFETY: handlers are in place; a worker starts with signals blocked and is expected to do this.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
}

static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Core's `die`, and a note that it came: nothing that core keeps tells it later.
unsafe extern "C-unwind" fn terminate(signal: std::ffi::c_int) {
    TOLD_TO_END.store(true, Ordering::Relaxed);
    // SAFETY: a signal handler of core, called as the kernel would.
    unsafe { die(signal) };
}

/// Whether SIGTERM has come to this worker: then its end is somebody's wish, not a failure.
pub fn told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Relaxed)
}

fn handle(signal: std::ffi::c_int, handler: unsafe extern "C-unwind" fn(std::ffi::c_int)) {
    // SAFETY: `handler` is a signal handler of PostgreSQL itself, for a process that has a latch and a PGPROC.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Reads the configuration again if SIGHUP asked for it; says whether it did. Only outside of a transaction.
pub fn reload_config_if_asked() -> bool {
    // SAFETY: a process-local flag set by the SIGHUP handler; volatile, since the handler runs at any instant. It is
    // cleared before reading the files, so that a second SIGHUP during the reading is not lost.
    unsafe {
        let pending = &raw mut pg_sys::ConfigReloadPending;
        if pending.read_volatile() == 0 {
            return false;
        }
        pending.write_volatile(0);
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

/// Starts a thread that no signal is ever delivered to.
///
/// A handler of PostgreSQL must not run on another thread, and a latch wake-up (SIGURG) that lands there is lost.
/// The thread must not call anything of PostgreSQL.
pub fn spawn_signal_free(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    let _blocked = Blocked::all()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Keeps SIGINT from this thread until the value is dropped; one that comes meanwhile is delivered then.
pub fn hold_cancels() -> Option<Blocked> {
    // SAFETY: the set is plain data that the calls fill before anything reads it.
    let cancels = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        set
    };
    // It fails only for arguments that are wrong.
    Blocked::new(libc::SIG_BLOCK, cancels).ok()
}

/// Signals blocked in this thread, until dropped. A thread started meanwhile inherits the mask.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> io::Result<Self> {
        // SAFETY: as in `hold_cancels`.
        let all = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            set
        };
        Blocked::new(libc::SIG_SETMASK, all)
    }

    fn new(how: std::ffi::c_int, set: libc::sigset_t) -> io::Result<Self> {
        // SAFETY: both sets are plain data; the call fills the second before anything reads it.
        unsafe {
            let mut before: libc::sigset_t = std::mem::zeroed();
            match libc::pthread_sigmask(how, &raw const set, &raw mut before) {
                0 => Ok(Blocked(before)),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the call that blocked the signals, in this same thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

//! A time limit for one call of somebody's function, in a caller's session as well as in a worker.
//!
//! Lives here: the timer and the telling of its cancel from others. Does not live here: how long is long enough, or what a
//! late answer means (`store::port`).
//!
//! The timer cancels the running statement as a user's cancel does, and notes that it was the one. statement_timeout,
//! lock_timeout and the user's own cancel go on as if there were no limit.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use pgrx::pg_sys;

// Without the bindings' error boundary, which is wrong in a signal handler.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: u32, handler: unsafe extern "C-unwind" fn()) -> u32;
    fn enable_timeout_after(id: u32, delay_ms: i32);
    fn disable_timeout(id: u32, keep_indicator: bool);
    fn StatementCancelHandler(signal: std::ffi::c_int);
}

/// `USER_TIMEOUT` of utils/timeout.h: asks for any number from here on.
#[cfg(not(feature = "pg18"))]
const USER_TIMEOUT: u32 = 12;
#[cfg(feature = "pg18")]
const USER_TIMEOUT: u32 = 13;

/// The number that this process was given; 0 before.
static TIMER: AtomicU32 = AtomicU32::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);
static OVER: AtomicBool = AtomicBool::new(false);

/// A limit that is running; it ends when this is dropped.
pub struct Limit {
    /// False within another one, which is then the one that counts.
    outermost: bool,
}

/// Starts the limit for what follows. When it is over, the statement that runs is cancelled with 57014.
pub fn start(limit: Duration) -> Limit {
    let outermost = !RUNNING.swap(true, Relaxed);
    if outermost {
        OVER.store(false, Relaxed);
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the number was given to this process for this handler; timers are set up in every backend and worker
        // before anything of ours runs in it.
        unsafe { enable_timeout_after(timer(), millis) };
    }
    Limit { outermost }
}

impl Limit {
    /// Whether the time is up, and this limit the one that says so.
    pub fn is_over(&self) -> bool {
        self.outermost && OVER.load(Relaxed)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        // SAFETY: as in `start`; disabling one that has gone off is allowed. A cancel of ours that came too late to hit
        // anything must not hit what follows: the flag is cleared as the backend main loop does at idle.
        unsafe {
            disable_timeout(timer(), false);
            if OVER.load(Relaxed) {
                (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
            }
        }
        RUNNING.store(false, Relaxed);
    }
}

fn timer() -> u32 {
    let known = TIMER.load(Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: the handler is fit for a signal handler, see there; at most ten of such numbers are given per process, and
    // this asks for one.
    let timer = unsafe { RegisterTimeout(USER_TIMEOUT, on_time) };
    TIMER.store(timer, Relaxed);
    timer
}

/// Runs in a signal handler: sets flags, no more. Core's function does, too.
unsafe extern "C-unwind" fn on_time() {
    OVER.store(true, Relaxed);
    // SAFETY: core's own handler of SIGINT; it sets flags and the latch.
    unsafe { StatementCancelHandler(libc::SIGINT) };
}

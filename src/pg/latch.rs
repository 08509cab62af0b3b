//! Waiting: for a latch, a descriptor and a clock at once, never longer than asked, never deaf to interrupts.
//!
//! Lives here: the wait of workers, the pause of ordinary backends, setting our own latch. Does not live here: whose
//! latch to set (`worker::slots` knows), or what to do after waking.

use std::os::fd::RawFd;
use std::time::Duration;

use pgrx::{check_for_interrupts, pg_sys};

/// Why a wait ended. More than one can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// The latch was set: by a commit, a signal, the postmaster, another of our processes.
    pub latch: bool,
    /// The descriptor is readable, or at its end.
    pub readable: bool,
    /// The time was up.
    pub timeout: bool,
}

/// Waits, in a background worker, until the latch is set, `fd` is readable or the time is up; then serves interrupts.
///
/// SIGTERM ends the process in here. A cancel request finds nothing to cancel and is dropped. The latch is reset: look
/// at your flags and queues after this, not before.
pub fn wait(fd: Option<RawFd>, timeout: Duration) -> Woken {
    let woken = wait_raw(fd, timeout);
    // An idle worker would otherwise die of pg_cancel_backend, which is meant for a running statement.
    // SAFETY: a process-local flag that the SIGINT handler sets; clearing it is what the backend main loop does at idle.
    unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) };
    check_for_interrupts!();
    woken
}

/// Waits, in any backend, until the latch is set or the time is up; a cancel or terminate raises its error in here.
pub fn pause(timeout: Duration) -> Woken {
    check_for_interrupts!();
    let woken = wait_raw(None, timeout);
    check_for_interrupts!();
    woken
}

/// Sets the latch of this process, so that the next wait returns at once.
pub fn set_own() {
    // SAFETY: MyLatch is valid from process start to its end; setting it is allowed anywhere, signal handlers included.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

fn wait_raw(fd: Option<RawFd>, timeout: Duration) -> Woken {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if fd.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    let socket = fd.unwrap_or(pg_sys::PGINVALID_SOCKET);
    // Up, or whoever waits for a moment would look just before it.
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    let millis = i64::try_from(millis).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
    // SAFETY: MyLatch is ours; the socket is used only if its event is asked for, and is the caller's to keep open for
    // the length of this call.
    let got = unsafe {
        let got =
            pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events.cast_signed(), socket, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        got
    }
    .cast_unsigned();
    Woken {
        latch: got & pg_sys::WL_LATCH_SET != 0,
        readable: got & pg_sys::WL_SOCKET_READABLE != 0,
        timeout: got & pg_sys::WL_TIMEOUT != 0,
    }
}

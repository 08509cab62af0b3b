//! Transactions and subtransactions that hand an error back as a value, and what has to happen at their end.
//!
//! Lives here: starting, committing, aborting, and the clean-up between. Does not live here: what runs inside
//! (`store`, `run`), and what an error is turned into.
//!
//! Why not pgrx's own: its worker transaction commits when the closure returns `Err`, and leaves the transaction open
//! when an error is caught outside of it.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use pgrx::{check_for_interrupts, pg_sys};

use super::caught::{Caught, catching};
use super::fail_point::{self, Point};
use super::{memory, signals};

/// Runs `body` in a transaction of its own, with a snapshot, and commits it. For the top level of a worker only.
///
/// A PostgreSQL error or a Rust panic, in the body or in the commit, aborts the transaction and comes back.
pub fn transaction<T>(body: impl FnOnce() -> T) -> Result<T, Caught> {
    let kept = transaction_or_abort(|| Ok::<T, std::convert::Infallible>(body()))?;
    match kept {
        Ok(value) => Ok(value),
        Err(never) => match never {},
    }
}

/// As [`transaction`], but aborts when the body returns `Err`: what the body wrote is gone, its error comes back.
pub fn transaction_or_abort<T, E>(body: impl FnOnce() -> Result<T, E>) -> Result<Result<T, E>, Caught> {
    if is_open() {
        return Err(Caught::internal("a worker transaction was started inside another"));
    }
    memory::enter_turn();
    let outcome = catching(|| {
        begin();
        let result = body();
        if result.is_ok() {
            commit();
        }
        result
    });
    if !matches!(outcome, Ok(Ok(_))) {
        abort();
    }
    memory::enter_turn();
    outcome
}

/// Runs `body` in a subtransaction: released when it returns, rolled back when it fails. Usable inside SPI and in
/// ordinary backends. Those that end the transaction are caught too: see [`Caught::is_retryable_or_cancel`].
pub fn subtransaction<T>(body: impl FnOnce() -> T) -> Result<T, Caught> {
    let kept = subtransaction_or_rollback(|| Ok::<T, std::convert::Infallible>(body()))?;
    match kept {
        Ok(value) => Ok(value),
        Err(never) => match never {},
    }
}

/// As [`subtransaction`], but also rolled back when the body returns `Err`.
pub fn subtransaction_or_rollback<T, E>(body: impl FnOnce() -> Result<T, E>) -> Result<Result<T, E>, Caught> {
    // SAFETY: reading two process-global pointers on the main thread.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let restore = || {
        // SAFETY: both were current when the subtransaction began and outlive it: they belong to an outer level,
        // which cannot have ended while this function is on the stack.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    // SAFETY: called inside a transaction (PostgreSQL raises an error if not); a NULL name is what internal
    // subtransactions use.
    unsafe { pg_sys::BeginInternalSubTransaction(std::ptr::null()) };
    // As PL/pgSQL does: what the body allocates has to survive the subtransaction.
    // SAFETY: `context` is live, see `restore`.
    unsafe { pg_sys::MemoryContextSwitchTo(context) };

    let outcome = catching(|| {
        let result = body();
        if result.is_ok() {
            // SAFETY: the subtransaction begun above is the current one: nested ones were ended by their own guard.
            unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        }
        result
    });
    if !matches!(outcome, Ok(Ok(_))) {
        // SAFETY: leave the error's context first; then the subtransaction begun above is current and in progress,
        // which is what the rollback requires. The error itself has been copied out and flushed by `catching`.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
    }
    restore();
    outcome
}

/// Whether a transaction is open in this process.
pub fn is_open() -> bool {
    // SAFETY: reads process-local transaction state.
    unsafe { pg_sys::IsTransactionOrTransactionBlock() || pg_sys::IsTransactionState() }
}

fn begin() {
    // SAFETY: no transaction is open (checked by the caller), which is the precondition of starting one; the snapshot
    // is taken inside of it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

/// Where a standby has to confirm the commit, a cancel would end the wait, and the transaction would count as committed
/// without being safe (the server says so in a WARNING). So cancels come before the commit or after it; and who is told to
/// terminate in that wait ends right after it, before anything is done that relies on the commit.
fn commit() {
    // SAFETY: the snapshot pushed by `begin` is on top: the body's own pushes are paired. The transaction is open.
    unsafe { pg_sys::PopActiveSnapshot() };
    let _held = signals::hold_cancels();
    check_for_interrupts!();
    // SAFETY: as above.
    unsafe {
        pg_sys::CommitTransactionCommand();
        if (&raw const pg_sys::ProcDiePending).read_volatile() != 0 {
            check_for_interrupts!();
        }
    }
}

/// Leaves no trace of the transaction, whatever state the error left it in.
fn abort() {
    // SAFETY: valid in every transaction state, "none" included; snapshots, locks, buffers, LWLocks and SPI
    // connections are released by it. The error state was flushed when the error was caught; flushing again is a no-op.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        pg_sys::FlushErrorState();
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Committed, and visible to others.
    Committed = 1,
    /// Rolled back.
    Aborted,
    /// Prepared for two-phase commit: it may still go either way, in any session, and no callback will tell.
    Prepared,
}

/// Something to do once when the current transaction has ended. Declare it as a `static`.
///
/// `run` is called after the fact: what was committed can be seen, other sessions have been told of it (invalidation messages come
/// after the commit, and before the locks are let go), and no lock is held. An error would take the server down there: it may set
/// flags and latches, no more. A panic in it is swallowed. Arming it in a savepoint that is rolled back still fires it: treat it
/// as a hint.
pub struct AtEnd {
    run: fn(End),
    armed: AtomicBool,
    registered: AtomicBool,
    /// How the transaction has ended that is not through with its locks yet.
    ended: AtomicU8,
}

impl AtEnd {
    /// Declares it; nothing happens until [`AtEnd::once`].
    pub const fn new(run: fn(End)) -> Self {
        let (armed, registered) = (AtomicBool::new(false), AtomicBool::new(false));
        AtEnd { run, armed, registered, ended: AtomicU8::new(0) }
    }

    /// Asks for one call of `run` after the end of the current transaction, however often this is called in it.
    pub fn once(&'static self) {
        self.armed.store(true, Ordering::Relaxed);
        if !self.registered.swap(true, Ordering::Relaxed) {
            let this = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
            // SAFETY: `this` is `'static`, as the registrations are for the life of the process; the callbacks only
            // take a shared reference from it.
            unsafe {
                pg_sys::RegisterXactCallback(Some(at_end), this);
                pg_sys::RegisterResourceReleaseCallback(Some(at_release), this);
            }
        }
    }
}

/// Here it is known how it ended. Not `#[pg_guard]`: nothing in it can panic, and an ERROR would be too late.
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, arg: *mut c_void) {
    let end = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => End::Committed,
        pg_sys::XactEvent::XACT_EVENT_ABORT => End::Aborted,
        pg_sys::XactEvent::XACT_EVENT_PREPARE => End::Prepared,
        _ => return,
    };
    // SAFETY: the argument is the `&'static AtEnd` that was registered with this function.
    let this = unsafe { &*arg.cast::<AtEnd>() };
    if this.armed.swap(false, Ordering::Relaxed) {
        this.ended.store(end as u8, Ordering::Relaxed);
        if end == End::Committed {
            fail_point::at(Point::CommittedNotTold, "");
        }
    }
}

/// Here the locks are gone. Not `#[pg_guard]`: turning a panic into an ERROR here would be worse than swallowing it.
#[allow(clippy::disallowed_methods, reason = "the transaction is over; there is nothing left to commit by mistake")]
unsafe extern "C-unwind" fn at_release(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top: bool,
    arg: *mut c_void,
) {
    if phase != pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS || !is_top {
        return;
    }
    // SAFETY: as in `at_end`.
    let this = unsafe { &*arg.cast::<AtEnd>() };
    let ended = this.ended.swap(0, Ordering::Relaxed);
    let Some(end) = [End::Committed, End::Aborted, End::Prepared].into_iter().find(|end| *end as u8 == ended) else {
        return;
    };
    // The payload is forgotten: dropping it could panic again.
    if let Err(payload) = std::panic::catch_unwind(|| (this.run)(end)) {
        std::mem::forget(payload);
    }
}

//! The memory context that a worker lives in between its transactions.
//!
//! Lives here: that one context. Does not live here: transactions (`pg::xact`), which keep their own.
//!
//! After a commit PostgreSQL leaves a worker in TopMemoryContext, where every stray allocation stays for good. A worker
//! that turns a million times needs a place that is emptied at each turn.

use std::cell::Cell;

use pgrx::pg_sys;

thread_local! {
    // Main thread only, as everything under `pg`; a thread-local spares a `static mut`.
    static TURN: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Empties the between-transactions context and makes it current. Only outside of a transaction.
pub(super) fn enter_turn() {
    let context = TURN.with(|turn| {
        if turn.get().is_null() {
            turn.set(create());
        }
        turn.get()
    });
    // SAFETY: the context is a child of TopMemoryContext that only this module creates and nobody deletes. Nothing in
    // it is in use: Rust values do not live there, and no transaction is open that could have pointers into it.
    unsafe {
        pg_sys::MemoryContextReset(context);
        pg_sys::MemoryContextSwitchTo(context);
    }
}

fn create() -> pg_sys::MemoryContext {
    // SAFETY: TopMemoryContext exists from process start; the name is a static string, as PostgreSQL requires.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"dot_wrapper between transactions".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        )
    }
}

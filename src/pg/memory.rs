//! The memory context that a worker lives in between its transactions, and what it gives back to the operating system.
//!
//! Lives here: that one context, and the C library's. Does not live here: transactions (`pg::xact`), which keep their own.
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

/// Freed memory at the end of a heap that the C library keeps. By itself it keeps up to twice the largest block that was ever
/// freed, and so 64 MB for each thread that has read a large answer.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 * 1024 * 1024;
/// Blocks from this size on are the operating system's as soon as they are freed.
#[cfg(target_env = "gnu")]
const OWN_MAP: libc::c_int = 4 * 1024 * 1024;
/// Less than this is not looked for at rest: it will be wanted again.
#[cfg(target_env = "gnu")]
const MUCH: u32 = 16 * 1024 * 1024;

/// Sets what this process keeps of freed memory. For a worker, before it has other threads.
pub fn keep_little() {
    // SAFETY: it sets two numbers of the C library; no other thread allocates yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives memory that was freed, by whichever thread, back to the operating system, where it is much. Takes some milliseconds at
/// most.
pub fn give_back() {
    // SAFETY: both may be called at any time and from any thread; nothing that is in use is moved.
    #[cfg(target_env = "gnu")]
    unsafe {
        // Of 32 bits, as glibc of before 2.33 has it: what is more than 4 GB is given back at some other time.
        if libc::mallinfo().fordblks.cast_unsigned() >= MUCH {
            libc::malloc_trim(0);
        }
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

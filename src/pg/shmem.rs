//! The one piece of shared memory: who works for which database.
//!
//! Lives here: its layout, its allocation, its lock. Does not live here: what the fields mean together
//! (`worker::slots`).
//!
//! Every field is an atomic, so that a reference to the table is sound in any number of processes; the lock is for
//! changes that span fields. All zero means empty. Nothing in it points into a process's own memory: the latches are
//! those of PGPROCs, which stay where they are for the server's life. A crash restart starts over from zero.

use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, Ordering};

use pgrx::{pg_guard, pg_sys};

/// How many databases can be served. A slot is small; a server with more is told so in its log.
pub const SLOTS: usize = 128;
/// How many sessions can hold one database at the same time. They exclude one another by locks anyway.
pub const HOLDERS: usize = 4;

/// One database.
pub struct Slot {
    /// Its oid; 0 in a free slot. Changed under the lock.
    pub database: AtomicU32,
    /// A `worker::slots::State`.
    pub state: AtomicU8,
    /// A `worker::slots::Reason`.
    pub reason: AtomicU8,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// Its worker's pid, from before that connects until it exits. Set under the lock.
    pub pid: AtomicI32,
    /// Its worker's latch.
    pub latch: SharedLatch,
    /// Sessions that need the database empty: their pids. Set under the lock.
    pub holders: [AtomicI32; HOLDERS],
    /// A commit has left work for the worker.
    pub wake: AtomicBool,
    /// A commit has left nothing but events to seal.
    pub unsealed: AtomicBool,
    /// The worker is to finish what it has in hand and exit.
    pub leave: AtomicBool,
    /// The launcher is to look at this database now, whatever it knows of it.
    pub probe: AtomicBool,
}

/// All of it.
pub struct Table {
    /// The launcher's pid; 0 while there is none.
    pub launcher: AtomicI32,
    /// The launcher's latch.
    pub launcher_latch: SharedLatch,
    /// The launcher is to read the list of databases now.
    pub rescan: AtomicBool,
    /// The databases, in no order.
    pub slots: [Slot; SLOTS],
}

/// A latch of another process, by its place in shared memory.
pub struct SharedLatch(AtomicPtr<pg_sys::Latch>);

impl SharedLatch {
    /// Makes it this process's latch.
    pub fn publish(&self) {
        // SAFETY: reads a process-global. In a process with a PGPROC, which is when this is called, it points to that
        // PGPROC's latch in shared memory.
        self.0.store(unsafe { pg_sys::MyLatch }, Ordering::Release);
    }

    /// Makes it nobody's.
    pub fn clear(&self) {
        self.0.store(std::ptr::null_mut(), Ordering::Release);
    }

    /// Sets it, if it is anybody's. Never fails; if its process is gone, another wakes up once for nothing.
    pub fn set(&self) {
        let latch = self.0.load(Ordering::Acquire);
        if !latch.is_null() {
            // SAFETY: only `publish` stores a pointer here, to a latch in shared memory that exists as long as the server;
            // setting a latch that has changed its owner is harmless by its contract.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}

type Hook = unsafe extern "C-unwind" fn();

const NAME: &CStr = c"dot_wrapper";

// Process-local, and equal in all processes: set in the postmaster, inherited by fork.
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(std::ptr::null_mut());
static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());
static NEXT_REQUEST: OnceLock<Option<Hook>> = OnceLock::new();
static NEXT_STARTUP: OnceLock<Option<Hook>> = OnceLock::new();

/// Whether `shared_preload_libraries` are being loaded at this moment, which is the only time for [`init`].
pub fn is_preloading() -> bool {
    // SAFETY: a flag of the postmaster, read in the process that sets it.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Asks for the memory. Only from `_PG_init`, while `shared_preload_libraries` are being loaded.
pub fn init() {
    // SAFETY: hooks are chained in the postmaster before any other process exists.
    unsafe {
        let _ = NEXT_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(on_request);
        let _ = NEXT_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

/// The table; `None` when the library was not preloaded.
pub fn table() -> Option<&'static Table> {
    // SAFETY: the pointer is null or was set by `on_startup` to an initialised table that is never freed. All fields are
    // atomics, so that shared references in many processes are sound.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

/// Runs `change` with the table locked. It must be short and must not raise. `None` when there is no table.
pub fn locked<T>(change: impl FnOnce(&'static Table) -> T) -> Option<T> {
    let table = table()?;
    let _guard = Guard::new(LOCK.load(Ordering::Acquire));
    Some(change(table))
}

struct Guard(*mut pg_sys::LWLock);

impl Guard {
    fn new(lock: *mut pg_sys::LWLock) -> Self {
        // SAFETY: `on_startup` sets the lock before the table, and `locked` has seen the table; this process has a PGPROC.
        unsafe { pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) };
        Guard(lock)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: taken by `new`. After a PostgreSQL error the holdoff count is zero, and the lock is left to the abort,
        // which releases all of them; releasing it here too would be an error.
        unsafe {
            if pg_sys::InterruptHoldoffCount > 0 {
                pg_sys::LWLockRelease(self.0);
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    if let Some(Some(next)) = NEXT_REQUEST.get() {
        // SAFETY: the hook that was there before ours, called the same way; the boundary turns its error into an unwind.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| next()) };
    }
    // SAFETY: inside the request hook, the only place where these two are allowed.
    unsafe {
        pg_sys::RequestAddinShmemSpace(size_of::<Table>());
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    if let Some(Some(next)) = NEXT_STARTUP.get() {
        // SAFETY: as in `on_request`.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| next()) };
    }
    let mut found = false;
    // SAFETY: only the postmaster runs this, alone, after the segment was made, at start and after a crash. The space is
    // aligned to a cache line and as large as asked; all zero is a valid empty table. The tranche was requested above.
    unsafe {
        let table = pg_sys::ShmemInitStruct(NAME.as_ptr(), size_of::<Table>(), &raw mut found).cast::<Table>();
        if !found {
            table.write_bytes(0, 1);
        }
        LOCK.store(&raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock, Ordering::Release);
        TABLE.store(table, Ordering::Release);
    }
}

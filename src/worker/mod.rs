//! The background side: a launcher, and one worker per database that has the extension.
//!
//! ```text
//!     launcher   keeps the workers        start    one worker, or why not     pace   when to try again
//!     slots      the shared table         hold     seats and holds in it      aside  stepping aside for DDL
//!     wake       at commit                database one worker's process       cycle  its work
//!     calls      what is out              turn     its transactions          context what it knows of itself
//!     recovery   what a dead one left     jobs     of the job queue          tending leases, doubts, orphans
//!     sealing    tamper evidence          retry    when a step is tried again
//! ```
//!
//! Lives here: processes and their lives. Does not live here: decisions about runs (`domain`, `run`), SQL (`store`), the
//! C interface (`pg`).

pub mod aside;
pub mod calls;
pub mod context;
pub mod cycle;
pub mod database;
pub mod hold;
pub mod jobs;
pub mod launcher;
pub mod pace;
pub mod recovery;
mod rest;
mod retry;
pub mod scripts;
mod sealing;
pub mod slots;
pub mod start;
mod tending;
pub mod turn;
pub mod wake;

use crate::guc;
use crate::pg::{entry, session, shmem, utility};

/// The extension's name in pg_extension.
pub const EXTENSION: &std::ffi::CStr = c"dot_wrapper";

/// Shared memory, hook and launcher. Call it from `_PG_init`; it does nothing unless the library is being preloaded.
pub fn preload() {
    if shmem::is_preloading() {
        shmem::init();
        utility::install(aside::HANDLERS);
        entry::install(launcher::main, database::main);
        // pg_upgrade starts the old and the new server with our library; nothing may be sent then.
        if !session::in_binary_upgrade() {
            launcher::register();
        }
    }
}

//! Everything unsafe: thin wrappers over PostgreSQL's C interface, one file per concern.
//!
//! Lives here: calls into `pg_sys`, callbacks that PostgreSQL makes into us, shared memory. Does not live here: any
//! decision about tools, runs or databases; those are made above, on the plain values that come out of here.

pub mod bgworker;
pub mod caught;
pub mod child;
pub mod clock;
pub mod databases;
pub mod dropping;
pub mod entry;
pub mod fail_point;
pub mod fits;
pub mod fresh;
pub mod hung;
pub mod json;
pub mod latch;
pub mod limit;
pub mod lock;
pub mod log;
pub mod memory;
pub mod object;
pub mod on_change;
pub mod open_files;
pub mod process;
pub mod role;
pub mod scan;
pub mod session;
pub mod shmem;
pub mod signals;
pub mod statement;
pub mod utility;
pub mod xact;

pub mod rows;
pub mod settings;
pub mod trigger;
pub mod user;

//! Tests inside the server, each in a transaction that is rolled back.
//!
//! Lives here: what SQL cannot see, or cannot make happen: the wrappers around errors, roles and plans, the second gates,
//! what a value goes through on its way. Does not live here: what an SQL client sees (`regress`), what takes two sessions
//! (`isolation`), a commit, a crash or the worker (`cluster`).
#![allow(clippy::disallowed_methods)] // tests prepare and look with plain SQL
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // that is how a test fails

mod claims;
mod errors;
mod fixture;
mod numbers;
mod permits;
mod ports;
mod spi;
mod users;
mod xacts;

//! The use cases. Each works inside the one transaction that it is given: the caller's for requests, one of the worker's
//! for everything after.
//!
//! Lives here: the order of steps, and which facts each gate is given. Does not live here: rules (`domain`), statements
//! (`store`), or the question when to begin and end transactions (`api` and `worker`).

mod second_gate;

mod batch;
pub mod bind;
pub mod bindings;
pub mod breaker;
pub mod careful;
pub mod claim;
mod crowd;
pub mod depth;
pub mod doctor;
pub mod dry_run;
pub mod fire;
pub mod gates;
pub mod inquire;
pub mod jobs;
mod keys;
pub mod leases;
pub mod observe;
pub mod pick;
mod plans;
mod record;
pub mod recover;
pub mod request;
pub mod request_all;
pub mod request_row;
pub mod resume;
pub mod schedule;
pub mod seal;
pub mod session;
pub mod settle;
pub mod tick;
pub mod uninstall;
pub mod usage;
pub mod verify;
pub mod wait;
pub mod wait_all;
pub mod watch;
pub mod withdraw;

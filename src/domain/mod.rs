//! The decisions, as pure Rust: what may run, what it would send, what an answer means.
//!
//! Lives here: types, rules, tables. Does not live here: SQL, sockets, clocks, settings, or any name of pgrx.
//! Everything in this module is tested without a server.

pub mod address;
pub mod answer;
pub mod binding;
pub mod breaker;
pub mod bucket;
pub mod busy;
pub mod call;
pub mod canonical;
pub mod command;
pub mod cron;
pub mod decide;
pub mod decided;
pub mod depth;
pub mod doubt;
pub mod dry_run;
pub mod egress;
pub mod error;
pub mod fits;
pub mod gate;
pub mod job;
pub mod keyed;
pub mod lane;
pub mod lanes;
pub mod lease;
pub mod limits;
pub mod mode;
pub mod moment;
pub mod order;
pub mod parking;
pub mod permit;
pub mod policy;
pub mod render;
pub mod request_row;
pub mod retry;
pub mod schedule;
pub mod script;
pub mod seal;
pub mod secret;
pub mod state;
pub mod tick;
pub mod tool;
pub mod via;

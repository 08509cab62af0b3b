//! The only SQL: one file per table or substrate object. Every statement is schema-qualified and parameterised.
//!
//! Lives here: statements, and the translation of rows to plain values. Does not live here: decisions. Functions run
//! as whoever is in force when they are called; `extension::as_owner` is how callers get to our own tables.

pub mod kept;
mod spi;

pub mod attempt;
pub mod binding;
pub mod breaker;
pub mod candidate;
pub mod catalogue;
pub mod chain;
pub mod command;
pub mod config;
pub mod crowd;
pub mod depth;
pub mod doctor;
pub mod event;
pub mod extension;
pub mod foreign;
pub mod grant;
pub mod idle;
pub mod job;
pub mod job_link;
pub mod ledger;
pub mod look;
pub mod mirror;
pub mod pg_cron;
pub mod port;
mod port_all;
pub mod process_run;
pub mod queue;
pub mod request;
pub mod role;
pub mod schedule;
pub mod seal;
pub mod transition;
pub mod usage;
pub mod verify;
pub mod worker_life;

//! The promises of docs/guarantees.md, each with a test that measures it and says its figure.

mod databases;
mod durability;
mod gating;
mod lease;
mod limits;
mod one_to_one;
mod quarantine;
mod retry;
mod standby;
mod stopping;
mod tamper;
mod tenancy;
mod withdraw;

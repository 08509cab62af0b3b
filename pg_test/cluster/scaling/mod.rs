//! What docs/scaling.md says of more than one server: standbys, streams of events, partitions, several databases; and of a
//! large ledger.

mod databases;
mod partitioned;
mod reading;
mod standby;
mod stream;
mod subscriber;

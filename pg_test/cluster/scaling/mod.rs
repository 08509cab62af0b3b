//! What docs/scaling.md says of more than one server: standbys, streams of events, partitions, several databases.

mod databases;
mod partitioned;
mod standby;
mod stream;
mod subscriber;

//! Tests that own real PostgreSQL clusters and kill real processes; started by .ci/cluster-tests.
//!
//! Lives here: what needs more than one session, a restart, a crash, or a peer on the network: the invariants of the
//! whole, the life of launcher and worker, agents that misbehave. Does not live here: single functions (`in_db`),
//! messages word by word (`regress`), interleavings of a few statements (`isolation`).
//!
//!     harness     clusters, databases, agents, waiting      life     launcher and worker from start to end
//!     invariants  one file per invariant of the design      agents   agents that misbehave
//!     observation  runs and commands side by side       dry_run  all KG tools planned and verified
//!     promises    the promises of docs/guarantees.md, with their figures
//!     requests    the request table
//!     schedules   docs/schedules.md, with the real pg_cron    triggers   docs/triggers.md
//!     scripts     the script engine, with real processes
//!     scaling     docs/scaling.md: standbys, streams, partitions, several databases
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod agents;
mod dry_run;
mod harness;
mod invariants;
mod jobs;
mod life;
mod observation;
mod promises;
mod requests;
mod scaling;
mod schedules;
mod scripts;
mod triggers;

//! What the tests stand on: clusters, databases with the extension in them, agents, and waiting.
//!
//! Lives here: nothing that asserts anything about dot_wrapper. Does not live here: the tests.
//!
//!     home   where clusters live, and who removes them      agent      an agent that records and misbehaves
//!     os     programs and signals                           wire       its bytes
//!     cluster  one server                                   reference  the reference agent's process
//!     bench  one database in it, ready to run tools         wait       conditions with a deadline
//!     figure  what a promise's test measured                fail       fail points
//!     owned  a database whose owner brought the substrate   between    what changes between the two gates
//!     clock  a server whose clock the test sets             canary     secrets, and where they could show
//!     cron   a server with pg_cron in it

pub mod agent;
pub mod bench;
mod between;
pub mod canary;
mod clock;
pub mod cluster;
mod cron;
mod fail;
mod figure;
pub mod home;
pub mod os;
mod owned;
pub mod reference;
pub mod run;
pub mod wait;
mod wire;

#[allow(unused_imports)]
pub use agent::Agent;
pub use bench::Bench;
pub use clock::Clock;
pub use cluster::Cluster;
pub use cron::Cron;
#[allow(unused_imports)]
pub use figure::{figure, rounds};
pub use owned::Owned;
pub use run::Run;
pub use wait::until;
pub use wire::{Reply, Request};

//! The engines: how a tool is invoked. Plain values in, plain values out, on threads of their own.
//!
//! Lives here: tokio, hyper, the network, and programs once they are started. Does not live here: PostgreSQL in any form, or decisions about a run.
//!
//! `thread` is the handle that the worker holds, and `ticket` what both sides hold of a call; `agent_api` makes one
//! delivery, `script` runs one program, with `program` and `tail`; `departure` says whether it may begin to send, and whether it has; `poll` follows a 202, and `inquiry` asks
//! by key; `exchange` is one HTTP request; `reply` and `body` read the answer; `failure` names what went wrong; `client`,
//! `tls` and `resolve` make connections, `connection` is one, and `pool` keeps those that may be used again; `secrets` and `mask` keep secrets where they belong.

mod agent_api;
mod body;
mod client;
mod connection;
mod departure;
mod exchange;
mod failure;
mod inquiry;
mod mask;
mod poll;
mod pool;
mod program;
pub mod reason;
mod reply;
mod reports;
mod resolve;
mod script;
mod secrets;
mod tail;
mod thread;
mod ticket;
mod tls;
mod waker;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::answer::Answer;
use crate::domain::doubt::Finding;
use crate::domain::egress::Rules;
use crate::domain::order::Order;

pub use program::{Ends, Program, Scripts, Start, Started};
pub use thread::{Engine, ThreadBody};
pub use waker::{Waker, Wakeup};

/// The longest message of an outcome, in characters.
const MESSAGE: usize = 300;

/// What an engine needs to know beside its calls.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The directory that holds one file per secret; without it, secrets come from the environment alone.
    pub secrets_dir: Option<PathBuf>,
    /// A PEM file of root certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How scripts are run.
    pub scripts: Scripts,
}

/// Bounds of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// DNS, TCP and TLS together. Cut to half of `total`, so that a hanging connect is told from a hanging agent.
    pub connect: Duration,
    /// The longest silence while an answer's body is being received, and while a status URL is being asked.
    /// How long the agent may think before it answers the first request is `total`'s business alone.
    pub idle: Duration,
    /// The whole delivery, polling included, from its start.
    pub total: Duration,
    /// The largest answer, in bytes.
    pub max_response_bytes: u64,
}

/// What a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Send the request, while there is a permission to (`Engine::allow_until`), and see it through.
    Deliver,
    /// The request was answered 202 before a restart: do not send again, ask here until it ends.
    Follow(url::Url),
    /// Ask once what the agent knows of the run's key. The URL is the endpoint's `status_path` with the key in it; it
    /// must be at the request's origin, and allowed.
    Inquire(url::Url),
}

/// One call to make. At most one is out at a time for a run and an attempt.
#[derive(Clone, Debug)]
pub struct Call {
    /// The run.
    pub run_id: Uuid,
    /// The attempt, from 1.
    pub attempt: i32,
    /// What it is for.
    pub errand: Errand,
    /// What to send, or what was sent; questions take origin, headers and secret from it.
    pub request: Order,
    /// Its bounds.
    pub limits: Limits,
    /// The egress rules, as they were when the intent was recorded.
    pub egress: Arc<Rules>,
}

/// What an engine tells the worker.
#[derive(Clone, Debug)]
pub enum Report {
    /// 202: the agent took it and will be asked at this URL.
    Accepted {
        /// The run.
        run_id: Uuid,
        /// The attempt.
        attempt: i32,
        /// Where to ask.
        status_url: url::Url,
    },
    /// The delivery is over, or following it is.
    Ended {
        /// The run.
        run_id: Uuid,
        /// The attempt.
        attempt: i32,
        /// What came of it.
        answer: Answer,
        /// How long the agent asked to be left alone (`Retry-After`), at most a day; what to make of it is the worker's.
        retry_after: Option<Duration>,
    },
    /// The end of an `Inquire`.
    Learned {
        /// The run.
        run_id: Uuid,
        /// The attempt that was asked about.
        attempt: i32,
        /// What came of it.
        finding: Finding,
    },
}

/// How one delivery ended, before it becomes a report.
#[derive(Clone, Debug)]
struct Outcome {
    answer: Answer,
    retry_after: Option<Duration>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Outcome { answer, retry_after: None }
    }
}

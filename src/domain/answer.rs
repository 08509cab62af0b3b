//! What came back from an engine. What it means for the run is decided in `retry`. How it was fetched is the engine's business.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

/// How far an attempt got. Decides whether silence means "nothing happened" or "nobody knows".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is certain that no byte of the request left: refused address, no secret, DNS, connect or TLS failure.
    NotSent,
    /// Bytes may have left and no complete answer came.
    Sent,
    /// An answer came, whatever it says.
    Answered,
}

/// What the engine itself said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `{"status":"succeeded"}`.
    Succeeded,
    /// `{"status":"failed"}`.
    Failed,
    /// `{"status":"refused"}`, whatever the HTTP status.
    Refused,
    /// A script's word that it changed nothing and is to be tried again later.
    NotTaken,
    /// No answer, or one that is not of the contract.
    None,
}

/// The end of one attempt. Everything in it is already masked and capped.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How far the attempt got.
    pub reach: Reach,
    /// What the engine said.
    pub verdict: Verdict,
    /// Why, for machines: `ok`, `agent_failed`, `http_503`, `timeout`, `bad_content_type`, ...
    pub reason: String,
    /// Why, for people: one line, at most 300 characters, secrets masked.
    pub message: String,
    /// The HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// The agent's `result`.
    pub result: Option<Value>,
    /// The agent's `observations`.
    pub observations: Option<Value>,
    /// The address that was connected to.
    pub remote: Option<SocketAddr>,
    /// Body bytes received, up to the cap.
    pub bytes: u64,
    /// From the start of the attempt to its end.
    pub elapsed: Duration,
}

impl Answer {
    /// An attempt that ended without an answer of the contract.
    pub fn failure(reach: Reach, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Answer {
            reach,
            verdict: Verdict::None,
            reason: reason.into(),
            message: message.into(),
            http_status: None,
            result: None,
            observations: None,
            remote: None,
            bytes: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// What the ledger keeps of it beside the run's own columns: the detail of the event that ends the attempt.
    pub fn to_detail(&self) -> Value {
        json!({
            "reach": match self.reach { Reach::NotSent => "not_sent", Reach::Sent => "sent", Reach::Answered => "answered" },
            "reason": self.reason,
            "message": self.message,
            "http_status": self.http_status,
            "remote": self.remote.map(|a| a.to_string()),
            "bytes": self.bytes,
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

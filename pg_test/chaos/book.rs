//! The agent's own record: what it received, what it did, what it said. The ledger is held against it at the end.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use uuid::Uuid;

use super::deeds::Deed;
use super::tools;

/// A delivery as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: SystemTime,
    pub run: Uuid,
    pub attempt: i64,
    pub mode: String,
    /// The header.
    pub key: String,
    /// The body without what describes the delivery.
    pub body: String,
    pub token: Option<i64>,
    pub lease_key: Option<String>,
    pub deed: Deed,
    /// What became of it here.
    pub course: Course,
}

/// What the agent made of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// As its deed says.
    Done,
    /// The key was known, and the work done before; the answer is the same.
    Repeated,
    /// The key was known, and the work is still going on: 202.
    Working,
    /// Its token is older than one that came before: 409, and nothing done.
    Fenced,
}

/// What the agent keeps of a run.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// How often the work was done.
    pub effects: u32,
    /// What it says to whoever asks.
    pub verdict: Option<&'static str>,
    /// When the work is over.
    pub until: Option<Instant>,
    /// It has said `succeeded`, to a delivery or a question.
    pub said_success: bool,
    /// It has said `failed` or refused.
    pub said_failure: bool,
    /// When it said that it does not know the run.
    pub said_unknown: Vec<SystemTime>,
}

impl Kept {
    fn is_working(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// All of it.
#[derive(Default)]
pub struct Book {
    pub received: Vec<Received>,
    pub runs: HashMap<Uuid, Kept>,
    /// The newest token of each lease.
    tokens: HashMap<String, i64>,
    /// Connections that ended before a request was read.
    pub cut_off: u64,
    /// Answers only successes from now on.
    pub healed: bool,
    /// Until then every connection is closed at once.
    pub down_until: Option<Instant>,
}

impl Book {
    /// Writes a delivery down and decides on it, in one step.
    pub fn receive(&mut self, body: &Value, key: &str) -> Option<Received> {
        let run: Uuid = body["run_id"].as_str()?.parse().ok()?;
        let (code, attempt) = (body["dot_code"].as_str()?.to_owned(), body["attempt"].as_i64()?);
        let tool = tools::find(&code)?;
        let mode = body["mode"].as_str()?.to_owned();
        let deed = if self.healed { Deed::Succeed } else { super::deeds::read(&body["args"], attempt) };
        let mut constant = body.clone();
        for field in ["attempt", "deadline", "fencing_token"] {
            constant.as_object_mut()?.remove(field);
        }
        let token = body["fencing_token"].as_i64();
        let lease_key = tool.lease_key(body["args"]["k"].as_i64().unwrap_or_default());
        let kept = self.runs.entry(run).or_default();
        let course = if tool.idempotent && kept.verdict.is_some() {
            if kept.is_working() { Course::Working } else { Course::Repeated }
        } else if mode == "apply" && self.is_late(lease_key.as_deref(), token) {
            Course::Fenced
        } else {
            Course::Done
        };
        let received = Received {
            at: SystemTime::now(),
            run,
            attempt,
            mode,
            key: key.to_owned(),
            body: constant.to_string(),
            token,
            lease_key,
            deed,
            course,
        };
        if course == Course::Done {
            self.take(&received);
        }
        self.received.push(received.clone());
        Some(received)
    }

    /// Whether a newer token has been seen; remembers this one if not.
    fn is_late(&mut self, lease_key: Option<&str>, token: Option<i64>) -> bool {
        let (Some(key), Some(token)) = (lease_key, token) else { return false };
        let newest = self.tokens.entry(key.to_owned()).or_insert(token);
        let late = token < *newest;
        *newest = token.max(*newest);
        late
    }

    fn take(&mut self, received: &Received) {
        let kept = self.runs.entry(received.run).or_default();
        match received.deed {
            deed if deed.takes() => {
                kept.effects += u32::from(received.mode == "apply");
                kept.verdict = Some("succeeded");
                let time = match deed {
                    Deed::Slow => 250,
                    Deed::Accept => 150,
                    _ => 0,
                };
                kept.until = Some(Instant::now() + Duration::from_millis(time));
            }
            Deed::Fail => kept.verdict = Some("failed"),
            Deed::Refuse => kept.verdict = Some("refused"),
            _ => {}
        }
    }

    /// What a question about a run is answered: `None` for one that is not known or was left undone.
    pub fn asked(&mut self, run: Uuid) -> Option<&'static str> {
        let kept = self.runs.entry(run).or_default();
        if kept.is_working() {
            return Some("running");
        }
        match kept.verdict {
            Some(verdict) => self.said(run, verdict),
            None => kept.said_unknown.push(SystemTime::now()),
        }
        self.runs.get(&run)?.verdict
    }

    /// Something was said about a run.
    pub fn said(&mut self, run: Uuid, verdict: &str) {
        let kept = self.runs.entry(run).or_default();
        kept.said_success |= verdict == "succeeded";
        kept.said_failure |= matches!(verdict, "failed" | "refused");
    }

    /// Whether connections are to be closed at once.
    pub fn is_down(&self) -> bool {
        self.down_until.is_some_and(|until| Instant::now() < until)
    }
}

//! What a run's arguments tell this agent to pretend. A real agent has a table of tools here.
//!
//! `{"agent": "slow", "ms": 500, "times": 1, "retry_after": 1, "result": {…}}`; all of it is optional.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::contract::{Mode, Run};

/// The longest wait.
const HOUR: Duration = Duration::from_secs(3600);

/// How the agent behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Works at once.
    Succeed,
    /// Works and fails.
    Fail,
    /// Does not want to.
    Refuse,
    /// Works, and answers after `ms`.
    Slow,
    /// Answers 202, and has worked after `ms`.
    Accepted,
    /// Works, and answers when a test calls `/control/release`.
    Hold,
    /// Works, and answers with something that calls itself JSON.
    Garbage,
    /// Works, and answers with a page, as a proxy in between would.
    Html,
    /// Works, and answers with 16 MiB.
    Huge,
    /// Works, and never answers.
    Nothing,
    /// Does not work; sends the caller elsewhere.
    Redirect,
    /// Does not work; answers with this HTTP status, and names a time in seconds (`retry_after`) where it was given.
    Status(u16, Option<u64>),
}

impl Kind {
    /// True when there is an answer to remember, whatever becomes of it on the way.
    pub fn answers(self) -> bool {
        !matches!(self, Kind::Redirect | Kind::Status(..))
    }

    /// True when what is sent is not the contract's answer.
    pub fn is_fault(self) -> bool {
        use Kind::{Garbage, Html, Huge, Nothing, Redirect, Status};
        matches!(self, Garbage | Html | Huge | Nothing | Redirect | Status(..))
    }
}

/// One run's orders.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How the agent behaves on the first `times` deliveries; after them it succeeds.
    pub kind: Kind,
    /// For `slow` and `accepted`.
    pub wait: Duration,
    /// Without it, always.
    pub times: Option<u64>,
}

impl Behaviour {
    /// Reads the orders.
    ///
    /// # Errors
    /// A line for people when the agent does not know the word.
    pub fn of(args: &Map<String, Value>) -> Result<Behaviour, String> {
        let word = match args.get("agent") {
            None => "succeed",
            Some(Value::String(word)) => word,
            Some(_) => return Err("args.agent is not a text".into()),
        };
        let number = |key| args.get(key).and_then(Value::as_u64);
        let kind = match word {
            "succeed" => Kind::Succeed,
            "fail" => Kind::Fail,
            "refuse" => Kind::Refuse,
            "slow" => Kind::Slow,
            "accepted" => Kind::Accepted,
            "hold" => Kind::Hold,
            "garbage" => Kind::Garbage,
            "html" => Kind::Html,
            "huge" => Kind::Huge,
            "nothing" => Kind::Nothing,
            "redirect" => Kind::Redirect,
            other => match other.strip_prefix("status:").and_then(|code| code.parse().ok()) {
                Some(code @ 200..=599) => Kind::Status(code, number("retry_after")),
                _ => return Err(format!("args.agent \"{other}\" is nothing that this agent knows")),
            },
        };
        let wait = Duration::from_millis(number("ms").unwrap_or(1000)).min(HOUR);
        Ok(Behaviour { kind, wait, times: number("times") })
    }

    /// How to behave on a delivery, counted from 1.
    pub fn on(&self, delivery: u64) -> Kind {
        if self.times.is_some_and(|times| delivery > times) { Kind::Succeed } else { self.kind }
    }
}

/// Does the work, and says what came of it: the body of a 200. A verify looks and changes nothing.
pub fn work(run: &Run, kind: Kind) -> Value {
    let status = match kind {
        Kind::Fail => "failed",
        Kind::Refuse => "refused",
        _ => "succeeded",
    };
    let names: Vec<&String> = run.args.keys().collect();
    let result = match (run.args.get("result"), run.mode) {
        (Some(told), _) => told.clone(),
        _ if status != "succeeded" => Value::Null,
        (None, Mode::Verify) => json!({"would": format!("apply {} with {} arguments", run.dot_code, names.len())}),
        (None, Mode::Apply) => json!({"applied": run.dot_code, "args": run.args}),
    };
    let mut body = json!({
        "status": status,
        "result": result,
        "observations": [{"check": "arguments", "names": names}, {"check": "fencing_token", "seen": run.fencing_token}],
    });
    if status != "succeeded" {
        body["message"] = format!("the arguments told the agent to be {status}").into();
    }
    body
}

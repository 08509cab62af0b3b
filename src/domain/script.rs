//! The program that a run would start: path, arguments, environment, limits. The same code renders a plan and the real
//! start. Which file may be started is `host`'s business.

use serde_json::{Value, json};
use uuid::Uuid;

use super::canonical;
use super::render::traceparent;

/// What the kernel is told not to let it exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// MiB of data segment and private memory, of each of its processes.
    pub memory_mb: i64,
    /// Seconds of processor time, of each of its processes.
    pub cpu_s: i64,
    /// MiB of the largest file that it writes.
    pub file_mb: i64,
}

/// A program, ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its path, absolute.
    pub program: String,
    /// Its arguments, without the zeroth.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(&'static str, String)>,
    /// Its limits.
    pub limits: Limits,
}

impl Command {
    /// The same for one delivery: attempt from 1, the token in force, the deadline in RFC 3339.
    #[must_use]
    pub fn delivered(mut self, run: (Uuid, Uuid), attempt: i32, fencing_token: Option<i64>, deadline: &str) -> Command {
        let (run_id, process_run_id) = run;
        self.set("DOT_ATTEMPT", Some(attempt.to_string()));
        self.set("DOT_DEADLINE", Some(deadline.to_owned()));
        self.set("TRACEPARENT", Some(traceparent(process_run_id, run_id, attempt)));
        self.with_token(fencing_token)
    }

    /// The same under this token.
    #[must_use]
    pub fn with_token(mut self, fencing_token: Option<i64>) -> Command {
        self.set("DOT_FENCING_TOKEN", fencing_token.map(|token| token.to_string()));
        self
    }

    /// As the ledger keeps it.
    pub fn shown(&self) -> Value {
        let env: serde_json::Map<String, Value> =
            self.env.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        let Limits { memory_mb, cpu_s, file_mb } = self.limits;
        json!({
            "program": self.program,
            "args": self.args,
            "env": env,
            "limits": {"memory_mb": memory_mb, "cpu_s": cpu_s, "file_mb": file_mb},
        })
    }

    fn set(&mut self, name: &'static str, value: Option<String>) {
        self.env.retain(|(known, _)| *known != name);
        self.env.extend(value.map(|value| (name, value)));
    }
}

/// Equal for a plan and for the apply that it announces; see `render::fingerprint`.
pub fn fingerprint(tool_version: &str, args: &Value, command: &Command) -> String {
    canonical::digest(&json!({
        "v": 1,
        "tool": tool_version,
        "args": args,
        "program": command.program,
    }))
}

//! The program that a run would start: path, arguments, environment, limits. The same code renders a plan and the real
//! start. What files there are, and whether one may be started, is `host`'s business.

use serde_json::{Value, json};
use uuid::Uuid;

use super::canonical;
use super::mode::Mode;
use super::policy::Policy;
use super::render::{Endpoint, Facts, Unformed, traceparent};
use super::tool::Tool;

mod args;
pub mod limits;
mod place;

pub use limits::{Limits, SCRIPTS};
pub use place::{Candidate, Refusal, Roots};

/// The longest argument or `NAME=value`, with its end: Linux takes 128 KiB (MAX_ARG_STRLEN).
const MAX_STRING: usize = 128 * 1024;
/// All of them together; Linux takes 2 MiB with the usual stack.
const MAX_ALL: usize = 1024 * 1024;

/// A program, ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its path, absolute.
    pub program: String,
    /// Its arguments, without the zeroth.
    pub args: Vec<String>,
    /// Which of them tells it to change nothing.
    pub dry_run: Option<usize>,
    /// Its whole environment.
    pub env: Vec<(&'static str, String)>,
    /// Its limits.
    pub limits: Limits,
}

/// What the catalogue names as the tool's program: `file_path`, else `script_path`.
pub fn named(tool: &Tool) -> Option<&str> {
    ["file_path", "script_path"].into_iter().find_map(|column| tool.row.get(column)?.as_str().filter(|s| !s.is_empty()))
}

/// The command of one delivery.
///
/// # Errors
/// `Unformed` when arguments and templates do not make a command line that can be handed over as it is meant.
pub fn command(program: &str, policy: &Policy, facts: &Facts<'_>) -> Result<Command, Unformed> {
    let dry_run = match (facts.mode, &policy.dry_run_arg) {
        (Mode::Verify, None) => return Err(Unformed("the policy names no dry_run_arg".into())),
        (Mode::Verify, Some(argument)) => Some(argument.as_str()),
        _ => None,
    };
    let (args, dry_run) = args::render(&policy.script_args, dry_run, facts.code, facts.args)?;
    let mut env = vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LANG", "C.UTF-8".into()),
        ("HOME", "/nonexistent".into()),
        ("DOT_CODE", facts.code.to_owned()),
        ("DOT_MODE", facts.mode.to_string()),
        ("DOT_RUN_ID", facts.run_id.to_string()),
        ("DOT_PROCESS_RUN_ID", facts.process_run_id.to_string()),
        ("DOT_ATTEMPT", facts.attempt.to_string()),
        ("DOT_ARGS", facts.args.to_string()),
        ("TRACEPARENT", traceparent(facts.process_run_id, facts.run_id, facts.attempt)),
    ];
    env.extend(facts.deadline.map(|deadline| ("DOT_DEADLINE", deadline.to_owned())));
    let command = Command { program: program.to_owned(), args, dry_run, env, limits: policy.limits };
    let command = command.with_token(facts.fencing_token);
    fits(&command)?;
    Ok(command)
}

fn fits(command: &Command) -> Result<(), Unformed> {
    let args = std::iter::once(&command.program).chain(&command.args).map(String::len);
    let env = command.env.iter().map(|(name, value)| name.len() + 1 + value.len());
    if args.clone().any(|length| length >= MAX_STRING) {
        return Err(Unformed("an argument is longer than 128 KiB, which no program takes".into()));
    }
    if env.clone().any(|length| length >= MAX_STRING) {
        return Err(Unformed("args are longer than 128 KiB, which no environment variable holds".into()));
    }
    // A pointer and an end for each. What a delivery adds later is short.
    if args.chain(env).map(|length| length + 9).sum::<usize>() > MAX_ALL {
        return Err(Unformed("the command line is longer than 1 MiB".into()));
    }
    let has_nul = command.args.iter().chain(command.env.iter().map(|(_, value)| value)).any(|text| text.contains('\0'));
    if has_nul || command.program.contains('\0') {
        return Err(Unformed("a NUL byte cannot be handed to a program".into()));
    }
    Ok(())
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

/// Equal for a plan and for the apply or verify that it announces; see `render::fingerprint`.
pub fn fingerprint(tool_version: &str, args: &Value, command: &Command) -> String {
    let args_but_dry_run: Vec<&String> =
        command.args.iter().enumerate().filter(|(n, _)| Some(*n) != command.dry_run).map(|(_, arg)| arg).collect();
    canonical::digest(&json!({
        "v": 1,
        "tool": tool_version,
        "args": args,
        "program": command.program,
        "argv": args_but_dry_run,
    }))
}

/// How the limits of calls see all scripts of a database: so many at the same time, no rate, and a breaker that never opens.
pub fn as_endpoint(max: i64) -> Endpoint {
    Endpoint {
        name: SCRIPTS.into(),
        base_url: String::new(),
        path: String::new(),
        auth_header: String::new(),
        auth_scheme: String::new(),
        auth_secret: None,
        status_path: None,
        max_in_flight: Some(max),
        rate_per_s: None,
        rate_burst: 1,
        breaker_failures: 0,
        breaker_pause_s: 1,
    }
}

#[cfg(test)]
mod tests;

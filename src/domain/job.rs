//! A job of another's queue as a run: what its payload asks for, which run it is, and what becomes of it in the words of
//! its table. Does not live here: finding, locking and writing jobs (`store::job`).

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::call::{Raw, shorten};
use super::error::{DotError, SqlState};
use super::state::RunStatus;

/// What a payload may hold besides its arguments, in bytes: its other keys, and spaces.
pub const MARGIN: usize = 8_192;

const KEYS: [&str; 4] = ["code", "mode", "process_run_id", "args"];
const HINT: &str =
    "a payload is like {\"code\": \"DOT-KG-017\", \"mode\": \"apply\", \"args\": {}}; all but code may be left out";

/// A job, as its table has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Its key, as text.
    pub id: String,
    /// The payload's text; `None` for NULL.
    pub payload: Option<String>,
    /// How long the payload is, in bytes. A longer one than asked for is not read.
    pub payload_bytes: i64,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// On whose behalf, as it says.
    pub actor: Option<String>,
}

/// What a job asks for. `relation` is where it comes from; it and the job make the run, so that however often the job is
/// taken up, it is one run.
///
/// # Errors
/// 22004 and 22023 for a payload that is none; 54000 for one that is too large. The rest is `Raw::check`'s.
pub fn request(relation: &str, job: &Job) -> Result<Raw, DotError> {
    let mut payload = read(job)?;
    let process_run_id = match payload.remove("process_run_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(Uuid::parse_str(&id).map_err(|_| invalid("process_run_id is no UUID"))?),
        Some(_) => return Err(invalid("process_run_id must be a string")),
    };
    // A key that was left empty is none.
    let own_key = job.idempotency_key.clone().filter(|key| !key.is_empty());
    if own_key.as_ref().is_some_and(|key| key.starts_with("job:")) {
        // It would be that of another job, by its id.
        return Err(invalid("the idempotency key must not begin with \"job:\""));
    }
    let scope = own_key.as_ref().map_or(("id", &job.id), |key| ("key", key));
    Ok(Raw {
        code: text(&mut payload, "code")?,
        mode: Some(text(&mut payload, "mode")?.unwrap_or_else(|| "apply".to_owned())),
        process_run_id: Some(process_run_id.unwrap_or_else(|| process_of(relation, scope.0, scope.1))),
        args: Some(payload.remove("args").filter(|args| !args.is_null()).unwrap_or_else(|| json!({}))),
        idempotency_key: Some(own_key.unwrap_or_else(|| key_of(&job.id))),
    })
}

fn read(job: &Job) -> Result<Map<String, Value>, DotError> {
    let Some(text) = &job.payload else {
        if job.payload_bytes > 0 {
            return Err(DotError::new(SqlState::ProgramLimitExceeded, "the payload is too large")
                .detail(format!("{} bytes", job.payload_bytes))
                .hint("pass a reference to the data, or raise dot_wrapper.max_args_size"));
        }
        return Err(DotError::new(SqlState::NullValueNotAllowed, "the payload must not be null").hint(HINT));
    };
    // With it, serde_json reads an object as a number.
    if text.contains("$serde_json::private::") {
        return Err(invalid("the payload has a reserved key"));
    }
    let value = serde_json::from_str(text)
        .map_err(|why| invalid("the payload is not JSON").detail(shorten(&why.to_string())))?;
    let Value::Object(payload) = value else { return Err(invalid("the payload must be a JSON object")) };
    // A slip such as "arg" would apply a tool without its arguments.
    match payload.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(invalid(format!("the payload has an unknown key \"{}\"", shorten(key)))),
        None => Ok(payload),
    }
}

fn text(payload: &mut Map<String, Value>, key: &str) -> Result<Option<String>, DotError> {
    match payload.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{key} must be a string"))),
    }
}

fn invalid(message: impl Into<String>) -> DotError {
    DotError::new(SqlState::InvalidParameterValue, message).hint(HINT)
}

/// A job's own key. One that is too long for a key is told by its digest.
fn key_of(id: &str) -> String {
    if id.chars().count() <= 200 && !id.chars().any(char::is_control) {
        return format!("job:{id}");
    }
    format!("job:sha256:{}", super::canonical::hex(&Sha256::digest(id.as_bytes())))
}

/// The process run of a job that names none: the same whenever it is asked for. A UUID of version 8.
fn process_of(relation: &str, kind: &str, of: &str) -> Uuid {
    let text = super::canonical::text(&json!(["dot_wrapper job", relation, kind, of]));
    let digest = Sha256::digest(text.as_bytes());
    uuid::Builder::from_custom_bytes(std::array::from_fn(|i| digest[i])).into_uuid()
}

/// Whether an error says that this job can never become a run, rather than that it cannot now.
pub fn is_final(state: SqlState) -> bool {
    matches!(
        state,
        SqlState::InvalidParameterValue
            | SqlState::NullValueNotAllowed
            | SqlState::UniqueViolation
            | SqlState::InsufficientPrivilege
            | SqlState::ProgramLimitExceeded
    )
}

/// As [`is_final`], for an error that PostgreSQL raised over the values (class 22, as for a number out of range).
pub fn is_final_code(sqlstate: &str) -> bool {
    sqlstate.starts_with("22")
}

/// Whether a refusal says nothing about the job, only that nothing of its kind is let in at the moment: the job waits.
pub fn is_put_off(reason: &str) -> bool {
    matches!(reason, "queue_full" | "toggle_off")
}

/// The words of a table for where a job stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Words {
    /// Waiting; only such jobs are taken.
    pub queued: String,
    /// It has become a run that is not over.
    pub taken: String,
    /// The run succeeded, or the plan was made.
    pub succeeded: String,
    /// The run failed.
    pub failed: String,
    /// A gate said no, or the job asks for nothing that can be run.
    pub refused: String,
    /// The run was withdrawn before anything was sent.
    pub cancelled: String,
    /// The run was not started in time.
    pub expired: String,
    /// Sent, and nobody knows.
    pub in_doubt: String,
}

impl Default for Words {
    fn default() -> Self {
        let own = |status: RunStatus| status.as_str().to_owned();
        Words {
            queued: own(RunStatus::Queued),
            taken: own(RunStatus::Running),
            succeeded: own(RunStatus::Succeeded),
            failed: own(RunStatus::Failed),
            refused: own(RunStatus::Refused),
            cancelled: own(RunStatus::Cancelled),
            expired: own(RunStatus::Expired),
            in_doubt: own(RunStatus::InDoubt),
        }
    }
}

impl Words {
    /// Reads `dot_wrapper.job_source.status_words`.
    ///
    /// # Errors
    /// A line for people. A word for queued that is also another's would take the same jobs again and again.
    pub fn parse(value: Value) -> Result<Words, String> {
        if !value.is_object() {
            return Err("status_words: it must be a JSON object".to_owned());
        }
        let words: Words = serde_json::from_value(value).map_err(|why| format!("status_words: {why}"))?;
        if words.all()[1..].contains(&words.all()[0]) {
            return Err(format!("status_words: \"{}\" means queued and something else", shorten(&words.queued)));
        }
        Ok(words)
    }

    /// All of them, `queued` first.
    pub fn all(&self) -> [&str; 8] {
        [
            &self.queued,
            &self.taken,
            &self.succeeded,
            &self.failed,
            &self.refused,
            &self.cancelled,
            &self.expired,
            &self.in_doubt,
        ]
    }

    /// What a job says whose run stands there.
    pub fn of(&self, status: RunStatus) -> &str {
        match status {
            RunStatus::Queued | RunStatus::Running => &self.taken,
            RunStatus::Succeeded | RunStatus::Planned => &self.succeeded,
            RunStatus::Failed => &self.failed,
            RunStatus::Refused => &self.refused,
            RunStatus::Cancelled => &self.cancelled,
            RunStatus::Expired => &self.expired,
            RunStatus::InDoubt => &self.in_doubt,
        }
    }
}

/// Where a run stands, as far as its job shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The run; `None` for a job that never became one.
    pub run_id: Option<Uuid>,
    /// Its state.
    pub status: RunStatus,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// What the agent said.
    pub result: Option<Value>,
}

impl Standing {
    /// Of a job that asks for nothing that can be run.
    pub fn misuse(error: &DotError) -> Standing {
        let message = match (&error.detail, &error.hint) {
            (Some(detail), _) => format!("{} ({detail})", error.message),
            (None, Some(hint)) => format!("{} ({hint})", error.message),
            (None, None) => error.message.clone(),
        };
        Standing {
            run_id: None,
            status: RunStatus::Refused,
            reason: Some("bad_job".to_owned()),
            message: Some(message),
            result: None,
        }
    }

    /// True when nothing follows.
    pub fn is_over(&self) -> bool {
        self.status.is_terminal()
    }

    /// What the job's result column gets; `None` while the run goes on.
    pub fn report(&self) -> Option<Value> {
        let shown = self.is_over() || self.status == RunStatus::InDoubt;
        shown.then(|| {
            json!({"run_id": self.run_id, "run_status": self.status.as_str(), "reason": self.reason,
                   "message": self.message, "result": self.result})
        })
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;

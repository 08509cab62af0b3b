//! The arguments of `fn_dot_run`, checked. Whatever passes here is safe to store, to compare and to send.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::canonical;
use super::error::{DotError, SqlState};
use super::mode::Mode;

/// Longest tool code, in characters. Catalogue codes are short; the bound keeps index rows small.
pub const MAX_CODE: usize = 200;
/// Longest idempotency key, in characters. Stripe's limit, which callers know, is 255.
pub const MAX_KEY: usize = 255;

/// What the caller handed in, as SQL types with their NULLs.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// Tool code.
    pub code: Option<String>,
    /// Mode.
    pub mode: Option<String>,
    /// Process run; NULL: a new one.
    pub process_run_id: Option<Uuid>,
    /// Arguments; must be an object.
    pub args: Option<Value>,
    /// Idempotency key; NULL: the empty key.
    pub idempotency_key: Option<String>,
}

/// A well-formed call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Tool code, as given.
    pub code: String,
    /// Mode.
    pub mode: Mode,
    /// Process run, when the caller named one.
    pub process_run_id: Option<Uuid>,
    /// Arguments, an object.
    pub args: Value,
    /// Idempotency key; empty when none was given.
    pub idempotency_key: String,
}

impl Call {
    /// A digest of what makes two calls of a role ask for the same, process run and key aside.
    pub fn alike(&self, role: u32) -> i64 {
        let text = canonical::text(&serde_json::json!([role, self.code, self.mode, self.args]));
        let digest = Sha256::digest(text.as_bytes());
        i64::from_be_bytes(std::array::from_fn(|i| digest[i]))
    }
}

impl Raw {
    /// Checks the arguments. `max_args_bytes` bounds the text of `args`.
    ///
    /// # Errors
    /// 22004 for a NULL code, mode or args; 22023 for an unknown mode, an unusable code or key, or args that are no
    /// object; 54000 for args that are too large.
    pub fn check(self, max_args_bytes: usize) -> Result<Call, DotError> {
        let code = self.code.ok_or_else(|| null("code", "name a tool, for example 'DOT-KG-017'"))?;
        check_text("code", &code, 1, MAX_CODE)?;
        let mode = check_mode(self.mode)?;
        let args = self.args.ok_or_else(|| null("args", "pass '{}' for no arguments"))?;
        check_args(&args, max_args_bytes)?;
        let idempotency_key = self.idempotency_key.unwrap_or_default();
        check_text("idempotency_key", &idempotency_key, 0, MAX_KEY)?;
        Ok(Call { code, mode, process_run_id: self.process_run_id, args, idempotency_key })
    }
}

/// Why no run of a tool with this code, and no run with these arguments, could be asked for; for declarations of runs.
///
/// # Errors
/// As [`Raw::check`].
pub fn check_declared(code: &str, args: &Value, max_args_bytes: usize) -> Result<(), DotError> {
    check_text("code", code, 1, MAX_CODE)?;
    check_args(args, max_args_bytes)
}

/// Reads a mode that a caller gave.
///
/// # Errors
/// 22004 for NULL, 22023 for anything but plan, verify and apply.
pub fn check_mode(mode: Option<String>) -> Result<Mode, DotError> {
    const HINT: &str = "the modes are plan, verify and apply";
    let mode = mode.ok_or_else(|| null("mode", HINT))?;
    Mode::parse(&mode).ok_or_else(|| {
        DotError::new(SqlState::InvalidParameterValue, format!("unknown mode \"{}\"", shorten(&mode))).hint(HINT)
    })
}

/// Checks that `args` is an object of a bearable size.
///
/// # Errors
/// 22023 when it is no object, 54000 when its text is longer than `max_bytes`.
pub fn check_args(args: &Value, max_bytes: usize) -> Result<(), DotError> {
    if !args.is_object() {
        let kind = match args {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        return Err(DotError::new(SqlState::InvalidParameterValue, "args must be a JSON object")
            .detail(format!("args is {kind}"))
            .hint("pass something like '{\"scope\": \"all\"}'"));
    }
    let size = args.to_string().len();
    if size > max_bytes {
        return Err(DotError::new(SqlState::ProgramLimitExceeded, "args are too large")
            .detail(format!("{size} bytes; the limit is {max_bytes}"))
            .hint("pass a reference to the data, or raise dot_wrapper.max_args_size"));
    }
    Ok(())
}

fn check_text(name: &str, text: &str, min: usize, max: usize) -> Result<(), DotError> {
    let invalid = |message: String| DotError::new(SqlState::InvalidParameterValue, message);
    let length = text.chars().count();
    if length < min {
        return Err(invalid(format!("{name} must not be empty")));
    }
    if length > max {
        return Err(invalid(format!("{name} is too long")).detail(format!("{length} characters; the limit is {max}")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{name} must not contain control characters")));
    }
    Ok(())
}

fn null(name: &str, hint: &str) -> DotError {
    DotError::new(SqlState::NullValueNotAllowed, format!("{name} must not be null")).hint(hint)
}

/// A piece of user text that is safe to quote in a message.
pub fn shorten(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if clean.len() < text.len() { format!("{clean}…") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn raw() -> Raw {
        Raw {
            code: Some("DOT-KG-017".into()),
            mode: Some("apply".into()),
            process_run_id: None,
            args: Some(json!({})),
            idempotency_key: None,
        }
    }

    fn state(raw: Raw) -> SqlState {
        raw.check(100).unwrap_err().state
    }

    #[test]
    fn a_plain_call_passes() {
        let call = raw().check(100).unwrap();
        assert_eq!((call.mode, call.idempotency_key.as_str()), (Mode::Apply, ""));
    }

    #[test]
    fn misuse_has_a_sqlstate_and_says_what_to_do() {
        assert_eq!(state(Raw { code: None, ..raw() }), SqlState::NullValueNotAllowed);
        assert_eq!(state(Raw { mode: None, ..raw() }), SqlState::NullValueNotAllowed);
        assert_eq!(state(Raw { args: None, ..raw() }), SqlState::NullValueNotAllowed);
        assert_eq!(state(Raw { mode: Some("run".into()), ..raw() }), SqlState::InvalidParameterValue);
        assert_eq!(state(Raw { code: Some(String::new()), ..raw() }), SqlState::InvalidParameterValue);
        assert_eq!(state(Raw { code: Some("a\r\nb".into()), ..raw() }), SqlState::InvalidParameterValue);
        assert_eq!(state(Raw { args: Some(json!([1])), ..raw() }), SqlState::InvalidParameterValue);
        assert_eq!(state(Raw { args: Some(json!({"x": "y".repeat(100)})), ..raw() }), SqlState::ProgramLimitExceeded);
        assert_eq!(state(Raw { idempotency_key: Some("k".repeat(256)), ..raw() }), SqlState::InvalidParameterValue);
        assert!(check_declared("DOT-1", &json!({}), 100).is_ok());
        assert!(check_declared("DOT\n1", &json!({}), 100).is_err() && check_declared("DOT-1", &json!({}), 1).is_err());
        let error = Raw { mode: Some("run\u{1b}[2J".into()), ..raw() }.check(100).unwrap_err();
        assert!(!error.message.contains('\u{1b}'));
        assert!(error.hint.is_some());
    }

    #[test]
    fn calls_are_alike_when_role_tool_mode_and_arguments_are_the_same() {
        let call = Raw { args: Some(json!({"a": 1, "b": 2})), ..raw() }.check(100).unwrap();
        let same = Call { process_run_id: Some(Uuid::nil()), idempotency_key: "k".into(), ..call.clone() };
        assert_eq!(call.alike(10), same.alike(10));
        let other = Call { args: json!({"a": 1}), ..call.clone() };
        assert!(call.alike(10) != call.alike(11) && call.alike(10) != other.alike(10));
    }

    proptest! {
        #[test]
        fn no_input_panics(code in ".*", mode in ".*", key in ".*") {
            let _ = Raw { code: Some(code), mode: Some(mode), idempotency_key: Some(key), ..raw() }.check(100);
        }
    }
}

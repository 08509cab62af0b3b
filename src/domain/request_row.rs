//! A row of the request table: what of a client's words is kept, and what a request says that cannot be one. Such a request
//! is a row like any other, since a REST client reads rows well and errors of PostgreSQL badly.

use super::call::{MAX_CODE, MAX_KEY};
use super::error::{DotError, SqlState};
use super::via::MAX_NOTE;

/// The reason of a row that asks for nothing that could be a run.
pub const INVALID: &str = "invalid_request";
/// The longest mode that is kept, in characters. Those that mean something are shorter.
const MAX_MODE: usize = 60;

/// The client's words as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Tool code.
    pub code: String,
    /// Mode; `plan` when none was given.
    pub mode: String,
    /// Idempotency key.
    pub idempotency_key: Option<String>,
    /// On whose behalf.
    pub actor: Option<String>,
}

impl Words {
    /// The same, cut to what a request can be. A longer one is refused, or in `actor` means nothing.
    #[must_use]
    pub fn cut(&self) -> Words {
        let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
        Words {
            code: cut(&self.code, MAX_CODE),
            mode: cut(&self.mode, MAX_MODE),
            idempotency_key: self.idempotency_key.as_ref().map(|key| cut(key, MAX_KEY)),
            actor: self.actor.as_ref().map(|actor| cut(actor, MAX_NOTE)),
        }
    }
}

/// What the row says when the request is misuse: the error in one line. `None` for errors that are to be raised.
pub fn refusal(error: &DotError) -> Option<String> {
    let sqlstate = match error.state {
        SqlState::InvalidParameterValue => "22023",
        SqlState::NullValueNotAllowed => "22004",
        SqlState::UniqueViolation => "23505",
        SqlState::ProgramLimitExceeded => "54000",
        _ => return None,
    };
    let more =
        [&error.detail, &error.hint].into_iter().flatten().map(|text| format!("; {}", text.trim_end_matches('.')));
    Some(format!("{} ({sqlstate}){}", error.message, more.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misuse_is_told_in_one_line_and_defects_are_raised() {
        let misuse = DotError::new(SqlState::InvalidParameterValue, "unknown mode \"run\"").hint("the modes are …");
        assert_eq!(refusal(&misuse).as_deref(), Some("unknown mode \"run\" (22023); the modes are …"));
        let key = DotError::new(SqlState::UniqueViolation, "in use").detail("run 1.").hint("another");
        assert_eq!(refusal(&key).as_deref(), Some("in use (23505); run 1; another"));
        for state in [SqlState::Internal, SqlState::ObjectNotInPrerequisiteState, SqlState::InsufficientPrivilege] {
            assert_eq!(refusal(&DotError::new(state, "x")), None);
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let long = "ä".repeat(5000);
        let words =
            Words { code: long.clone(), mode: long.clone(), idempotency_key: Some(long.clone()), actor: Some(long) };
        let cut = words.cut();
        let lengths = [&cut.code, &cut.mode, cut.idempotency_key.as_ref().unwrap(), cut.actor.as_ref().unwrap()];
        assert_eq!(lengths.map(|text| text.chars().count()), [MAX_CODE, MAX_MODE, MAX_KEY, MAX_NOTE]);
        assert_eq!(cut.cut(), cut);
    }
}

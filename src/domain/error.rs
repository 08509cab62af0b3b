//! What can go wrong by a user's doing, before any of it meets PostgreSQL.
//! The translation to an error report lives in `crate::error`.

/// The standard SQLSTATEs that this extension raises. pgrx passes no others through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlState {
    /// 22023: an argument has a value that makes no sense.
    InvalidParameterValue,
    /// 22004: NULL where a value is needed.
    NullValueNotAllowed,
    /// 23505: the idempotency key is already used for another call.
    UniqueViolation,
    /// 42501: the role lacks a privilege.
    InsufficientPrivilege,
    /// 42704: no such run, port or role.
    UndefinedObject,
    /// 55000: something else has to happen first.
    ObjectNotInPrerequisiteState,
    /// 54000: a size limit.
    ProgramLimitExceeded,
    /// 0A000: not supported here.
    FeatureNotSupported,
    /// 25001: not inside this transaction.
    ActiveSqlTransaction,
    /// 40001: another transaction was in the way; try again.
    SerializationFailure,
    /// 55P03: somebody's lock is in the way for the moment.
    LockNotAvailable,
    /// 25006: on a standby nothing can be recorded.
    ReadOnlySqlTransaction,
    /// XX000: a defect of ours.
    Internal,
}

/// An error for people: one line, the facts, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotError {
    /// The SQLSTATE it is raised with.
    pub state: SqlState,
    /// One line, no final stop, as PostgreSQL's style guide asks.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl DotError {
    /// An error with a message only.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        DotError { state, message: message.into(), detail: None, hint: None }
    }

    /// Adds the facts.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for DotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DotError {}

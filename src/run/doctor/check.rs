//! One finding of the doctor. Does not live here: what is looked at.

/// One line of the doctor's findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// `OK`, `WARN` or `BLOCK`.
    pub verdict: &'static str,
    /// What was found.
    pub detail: String,
    /// What to do; `None` when nothing is wrong.
    pub advice: Option<String>,
}

/// Nothing is wrong.
pub fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, verdict: "OK", detail: detail.into(), advice: None }
}

/// Something may be.
pub fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, verdict: "WARN", detail: detail.into(), advice: Some(advice.into()) }
}

/// Something is, and keeps runs from being sent.
pub fn block(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, verdict: "BLOCK", detail: detail.into(), advice: Some(advice.into()) }
}

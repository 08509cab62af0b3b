//! The three modes of a run and what each may do. Which modes a tool offers is in `policy`.

use serde::{Deserialize, Serialize};

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Evaluate every gate and render the request; nothing leaves the database.
    Plan,
    /// Ask the engine, which may not change anything.
    Verify,
    /// Execute.
    Apply,
}

impl Mode {
    /// All modes, in the order in which an operator uses them.
    pub const ALL: [Mode; 3] = [Mode::Plan, Mode::Verify, Mode::Apply];

    /// The mode's name in SQL and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Plan => "plan",
            Mode::Verify => "verify",
            Mode::Apply => "apply",
        }
    }

    /// Reads a mode's name; exact, lower case.
    pub fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// True when a run of this mode is queued and sent.
    pub fn calls_engine(self) -> bool {
        self != Mode::Plan
    }

    /// True when the engine may change the world, so that an unknown outcome matters.
    pub fn mutates(self) -> bool {
        self == Mode::Apply
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for mode in Mode::ALL {
            assert_eq!(Mode::parse(mode.as_str()), Some(mode));
        }
        assert_eq!(Mode::parse("APPLY"), None);
        assert_eq!(Mode::parse("dry-run"), None);
    }

    #[test]
    fn only_apply_mutates() {
        assert_eq!(Mode::ALL.map(Mode::mutates), [false, false, true]);
        assert_eq!(Mode::ALL.map(Mode::calls_engine), [false, true, true]);
    }
}

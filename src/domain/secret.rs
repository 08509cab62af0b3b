//! Secrets: their names, which may be stored, and their values, which may not be shown.
//! Where a value comes from is the engine's business (`engine::secrets`).

/// What stands wherever a secret's value would stand.
pub const MASK: &str = "********";

/// A secret's value. It cannot be formatted or serialized; `reveal` is the only way out.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value, for the one place that puts it on the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Replaces every occurrence of the value in a text, so that an echo does not reach the ledger.
    pub fn mask_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, MASK) }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

/// True for a name that can stand for a file in the secrets directory and for an environment variable:
/// 1 to 64 letters, digits, `_`, `-` or `.`, starting with a letter or digit, and no `..`.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && !name.contains("..")
}

/// The environment variable that holds a secret: `DOT_SECRET_` and the name in capitals, `-` and `.` as `_`.
pub fn env_var(name: &str) -> String {
    let tail: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("DOT_SECRET_{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_formatted() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(secret.mask_in("got hunter2, hunter2"), format!("got {MASK}, {MASK}"));
        assert_eq!(Secret::new("").mask_in("as it is"), "as it is");
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for good in ["agent_token", "a", "kg.agent-1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "../etc/passwd", "a..b", "näme", "a b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert_eq!(env_var("kg.agent-1"), "DOT_SECRET_KG_AGENT_1");
    }
}

//! Makes what an agent sent fit to be stored: no secret, nothing that jsonb cannot hold, one line where a line is due.
//! Lives here: text and JSON, in and out. Does not live here: what the text means.

use serde_json::Value;

use crate::domain::secret::{MASK, Secret};

/// Digits of a number that is kept as one.
const MOST_DIGITS: usize = 1000;

/// What stands for U+0000, which jsonb cannot hold.
const NO_NUL: &str = "\u{fffd}";

/// A JSON value with the secret masked and U+0000 replaced, in keys and in values. A number that shows the secret
/// becomes the mask. The parser has bounded the depth, so the recursion is bounded as well.
pub(super) fn json(value: Value, secret: Option<&Secret>) -> Value {
    match value {
        Value::String(text) => Value::String(string(&text, secret)),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| json(item, secret)).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, item)| (string(&key, secret), json(item, secret))).collect())
        }
        Value::Number(number) if shows(number.as_str(), secret) => Value::String(MASK.into()),
        Value::Number(number) if is_vast(number.as_str()) => Value::String(number.as_str().to_owned()),
        other => other,
    }
}

/// True for a number that is more than a thousand digits when it is written out, as jsonb does: a few bytes of an answer would
/// become a hundred thousand.
fn is_vast(spelled: &str) -> bool {
    let (mantissa, exponent) = spelled.split_once(['e', 'E']).unwrap_or((spelled, "0"));
    mantissa.len() > MOST_DIGITS || !exponent.parse::<i32>().is_ok_and(|e| e.unsigned_abs() as usize <= MOST_DIGITS)
}

/// One line of at most `max` characters: control characters become spaces, then the secret is masked, then it is cut.
/// In this order, since each step could otherwise undo the one before.
pub(super) fn line(text: &str, secret: Option<&Secret>, max: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let masked = secret.map_or_else(|| plain.clone(), |secret| secret.mask_in(&plain));
    match masked.char_indices().nth(max) {
        Some((end, _)) => masked[..end].to_owned(),
        None => masked,
    }
}

/// True when the text holds the secret, as it is or percent-encoded.
pub(super) fn shows(text: &str, secret: Option<&Secret>) -> bool {
    let Some(value) = secret.map(Secret::reveal).filter(|value| !value.is_empty()) else { return false };
    text.contains(value) || decoded(text).windows(value.len()).any(|part| part == value.as_bytes())
}

fn string(text: &str, secret: Option<&Secret>) -> String {
    let plain = text.replace('\0', NO_NUL);
    secret.map_or_else(|| plain.clone(), |secret| secret.mask_in(&plain))
}

/// The bytes that a percent-encoded text stands for; what is not well encoded stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json as value;

    #[test]
    fn a_secret_is_masked_wherever_json_can_hold_it() {
        let secret = Secret::new("12345");
        let seen = json(value!({"a": "x12345y", "k12345": [12345, 9123459, {"b": "12345"}], "n": 7}), Some(&secret));
        assert_eq!(seen, value!({"a": format!("x{MASK}y"), format!("k{MASK}"): [MASK, MASK, {"b": MASK}], "n": 7}));
    }

    #[test]
    fn a_nul_does_not_reach_jsonb() {
        assert_eq!(json(value!({"a\0": "b\0c"}), None), value!({"a\u{fffd}": "b\u{fffd}c"}));
    }

    #[test]
    fn a_number_that_would_fill_pages_is_kept_as_text() {
        let seen = |text: &str| json(serde_json::from_str(text).unwrap(), None);
        for kept in ["1e1000", "-1.5E-1000", "12345678901234567890.5", "0"] {
            assert!(seen(kept).is_number(), "{kept}");
        }
        let long = "9".repeat(1001);
        for text in ["1e1001", "-1e131071", "1e-99999999999999999999", long.as_str()] {
            assert!(seen(text).is_string(), "{text}");
        }
    }

    #[test]
    fn cutting_and_cleaning_do_not_bring_a_secret_back() {
        let secret = Secret::new("hunter2");
        assert_eq!(line("ab hunter2", Some(&secret), 8), format!("ab {}", &MASK[..5]));
        assert!(!line("hun\u{1}ter2 \u{7}", Some(&secret), 80).contains("hunter2"));
        assert_eq!(line("a\nb", None, 80), "a b");
    }

    #[test]
    fn an_encoded_secret_is_seen_in_a_url() {
        let secret = Secret::new("a/b");
        assert!(shows("https://x/?t=a%2Fb", Some(&secret)));
        assert!(shows("https://x/?t=%61/b", Some(&secret)));
        assert!(!shows("https://x/?t=a%2", Some(&secret)));
        assert!(!shows("anything", Some(&Secret::new(""))));
    }

    proptest! {
        #[test]
        fn no_line_shows_the_secret_or_is_too_long(before in "\\PC{0,40}", after in ".{0,40}", max in 0_usize..90) {
            let secret = Secret::new("s3cr3t-value");
            let line = line(&format!("{before}s3cr3t-value{after}"), Some(&secret), max);
            prop_assert!(!line.contains("s3cr3t-value"));
            prop_assert!(line.chars().count() <= max);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}

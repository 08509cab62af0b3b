//! Marks: the proof that an event came through this code in this database.
//!
//! What a mark does not cover, its number and its time, a seal does.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

/// What is known of an event before it is written. Its number and its time come from the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventFacts<'a> {
    /// The run.
    pub run_id: Uuid,
    /// What happened: the new state's name, or that of a remark.
    pub event: &'a str,
    /// The attempt it is about.
    pub attempt: Option<i32>,
    /// The state that it left.
    pub from_status: Option<&'a str>,
    /// The state that it led to; `None` for a remark.
    pub to_status: Option<&'a str>,
    /// The whole detail, as it is written to the row; an empty object where none is given.
    pub detail: &'a Value,
}

/// Bytes of a mark.
pub const MARK: usize = NONCE + 16;
/// Of which these are random, so that a copy of an event is told from its repetition.
const NONCE: usize = 8;

/// A mark for an event under the permits' key: eight random bytes, and the first 16 of an HMAC-SHA256 over them and all
/// the facts.
pub fn mark(key: &[u8], facts: &EventFacts<'_>) -> [u8; MARK] {
    let random = Uuid::new_v4().into_bytes();
    with_nonce(key, facts, &random[..NONCE])
}

fn with_nonce(key: &[u8], facts: &EventFacts<'_>, nonce: &[u8]) -> [u8; MARK] {
    // HMAC takes keys of any length; the error type exists for other algorithms.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes any key length"));
    // A permit's text begins with a brace, so neither can pass for the other.
    let head =
        serde_json::json!(["event 1", facts.run_id, facts.event, facts.attempt, facts.from_status, facts.to_status]);
    mac.update(by_value(&head).as_bytes());
    mac.update(nonce);
    mac.update(by_value(facts.detail).as_bytes());
    let whole = mac.finalize().into_bytes();
    std::array::from_fn(|i| if i < NONCE { nonce[i] } else { whole[i - NONCE] })
}

/// True when this is a mark of these facts under this key. An empty key has none.
pub fn is_marked(key: &[u8], facts: &EventFacts<'_>, found: Option<&[u8]>) -> bool {
    let found = found.filter(|found| !key.is_empty() && found.len() == MARK);
    found.is_some_and(|found| with_nonce(key, facts, &found[..NONCE]) == found)
}

/// One text per JSON value as jsonb compares values: keys sorted, numbers by what they are worth. A number's spelling
/// does not survive jsonb (1e2 becomes 100), so that of `canonical` would not be found again.
fn by_value(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&worth(&number.to_string())),
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// A decimal number as `[-]digits e exponent`, without zeros at either end of the digits; every zero is `0`.
fn worth(spelled: &str) -> String {
    let (sign, rest) = spelled.strip_prefix('-').map_or(("", spelled), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let zeros = i128::try_from(digits.len() - kept.len()).unwrap_or(0);
    let fraction = i128::try_from(fraction.len()).unwrap_or(0);
    // What cannot be read as an exponent is out of the range of jsonb's numbers as well.
    let exponent = exponent.parse::<i128>().unwrap_or(0).saturating_sub(fraction).saturating_add(zeros);
    match kept.trim_start_matches('0') {
        "" => "0".to_owned(),
        kept => format!("{sign}{kept}e{exponent}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn facts(detail: &Value) -> EventFacts<'_> {
        EventFacts {
            run_id: Uuid::from_u128(1),
            event: "running",
            attempt: Some(1),
            from_status: Some("queued"),
            to_status: Some("running"),
            detail,
        }
    }

    #[test]
    fn any_change_breaks_a_mark() {
        let (detail, other) = (json!({"gates": []}), json!({"gates": [1]}));
        let facts = facts(&detail);
        let found = mark(b"key", &facts);
        assert!(is_marked(b"key", &facts, Some(&found)));
        assert!(!is_marked(b"kez", &facts, Some(&found)));
        assert!(!is_marked(b"key", &facts, None));
        assert!(!is_marked(b"key", &facts, Some(&found[..MARK - 1])));
        assert!(!is_marked(b"key", &facts, Some(&[])));
        assert_ne!(mark(b"key", &facts), found, "one of its own for each event");
        for byte in 0..MARK {
            let mut other = found;
            other[byte] ^= 1;
            assert!(!is_marked(b"key", &facts, Some(&other)), "{byte}");
        }
        assert!(!is_marked(b"", &facts, Some(&mark(b"", &facts))));
        for changed in [
            EventFacts { run_id: Uuid::from_u128(2), ..facts },
            EventFacts { event: "accepted", ..facts },
            EventFacts { attempt: Some(2), ..facts },
            EventFacts { attempt: None, ..facts },
            EventFacts { from_status: None, ..facts },
            EventFacts { to_status: None, ..facts },
            EventFacts { to_status: Some("queued"), ..facts },
            EventFacts { detail: &other, ..facts },
        ] {
            assert!(!is_marked(b"key", &changed, Some(&found)), "{changed:?}");
        }
    }

    #[test]
    fn a_mark_outlives_the_way_through_jsonb() {
        for (sent, kept) in [
            (r#"{"b":1e2,"a":[1.50,-0.0]}"#, r#"{"a": [1.50, 0.0], "b": 100}"#),
            (r#"{"a":1E-3,"b":12e-1}"#, r#"{"a": 0.001, "b": 1.2}"#),
            (r#"{"a":"A\n\/","a":2}"#, r#"{"a": 2}"#),
            (r#"["A\n\/é"]"#, "[\"A\\n/é\"]"),
        ] {
            let (sent, kept): (Value, Value) =
                (serde_json::from_str(sent).unwrap(), serde_json::from_str(kept).unwrap());
            assert!(is_marked(b"key", &facts(&kept), Some(&mark(b"key", &facts(&sent)))), "{sent} {kept}");
        }
        for (one, other) in [("1", "10"), ("1", "-1"), ("1.05", "1.5"), ("1e3", "1e2"), ("0.1", "1")] {
            assert_ne!(worth(one), worth(other));
        }
    }

    proptest! {
        /// The same number, with its point elsewhere and zeros around it.
        #[test]
        fn a_number_is_worth_the_same_however_it_is_spelled(digits in 1_u64.., shift in 0_usize..30, zeros in 0_usize..5,
                                                            minus: bool) {
            let sign = if minus { "-" } else { "" };
            let padded = format!("{digits:0>width$}", width = shift + 1);
            let (whole, fraction) = padded.split_at(padded.len() - shift);
            let point = if shift + zeros > 0 { "." } else { "" };
            let spelled = format!("{sign}{whole}{point}{fraction}{}", "0".repeat(zeros));
            prop_assert_eq!(worth(&spelled), worth(&format!("{sign}{digits}e-{shift}")));
            prop_assert_eq!(worth(&spelled), worth(&format!("{sign}{digits}.0E-{shift}")));
            prop_assert_ne!(worth(&spelled), worth(&format!("{sign}{digits}e{}", shift + 1)));
        }
    }
}

//! Marks: the proof that an event came through this code in this database.
//!
//! What a mark does not cover, its number and its time, a seal does.

use serde_json::Value;
use uuid::Uuid;

use super::super::{canonical, keyed};

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
    // A permit's text begins with a brace, so neither can pass for the other.
    let head =
        serde_json::json!(["event 1", facts.run_id, facts.event, facts.attempt, facts.from_status, facts.to_status]);
    // As jsonb will have it: the spelling of its numbers does not survive.
    let (head, detail) = (canonical::by_value(&head), canonical::by_value(facts.detail));
    let whole = keyed::digest(key, &[head.as_bytes(), nonce, detail.as_bytes()]);
    std::array::from_fn(|i| if i < NONCE { nonce[i] } else { whole[i - NONCE] })
}

/// True when this is a mark of these facts under this key. An empty key has none.
pub fn is_marked(key: &[u8], facts: &EventFacts<'_>, found: Option<&[u8]>) -> bool {
    let found = found.filter(|found| !key.is_empty() && found.len() == MARK);
    found.is_some_and(|found| with_nonce(key, facts, &found[..NONCE]) == found)
}

#[cfg(test)]
mod tests {
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
    }
}

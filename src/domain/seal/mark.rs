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

/// As [`mark`], where the detail's canonical text is at hand: `detail` counts, and not that of `facts`.
pub fn mark_text(key: &[u8], facts: &EventFacts<'_>, detail: &str) -> [u8; MARK] {
    let random = Uuid::new_v4().into_bytes();
    let mut head = String::with_capacity(160);
    write_head(facts, &mut head);
    over(key, &random[..NONCE], &head, detail)
}

fn with_nonce(key: &[u8], facts: &EventFacts<'_>, nonce: &[u8]) -> [u8; MARK] {
    let mut text = String::with_capacity(1024);
    write_head(facts, &mut text);
    let head = text.len();
    // As jsonb will have it: the spelling of its numbers does not survive.
    canonical::write_by_value(facts.detail, &mut text);
    let (head, detail) = text.split_at(head);
    over(key, nonce, head, detail)
}

/// All but the detail, as the canonical text of an array of it. A permit's text begins with a brace, so neither can pass
/// for the other.
fn write_head(facts: &EventFacts<'_>, out: &mut String) {
    let mut id = Uuid::encode_buffer();
    out.push_str("[\"event 1\",\"");
    out.push_str(facts.run_id.hyphenated().encode_lower(&mut id));
    out.push_str("\",");
    canonical::write_string(facts.event, out);
    out.push(',');
    match facts.attempt {
        Some(attempt) => canonical::write_worth(out, &attempt.to_string()),
        None => out.push_str("null"),
    }
    for status in [facts.from_status, facts.to_status] {
        out.push(',');
        match status {
            Some(status) => canonical::write_string(status, out),
            None => out.push_str("null"),
        }
    }
    out.push(']');
}

/// A mark over the canonical texts of head and detail.
fn over(key: &[u8], nonce: &[u8], head: &str, detail: &str) -> [u8; MARK] {
    let whole = keyed::digest(key, &[head.as_bytes(), nonce, detail.as_bytes()]);
    std::array::from_fn(|i| if i < NONCE { nonce[i] } else { whole[i - NONCE] })
}

/// True when this is a mark of these facts under this key. An empty key has none.
pub fn is_marked(key: &[u8], facts: &EventFacts<'_>, found: Option<&[u8]>) -> bool {
    let found = found.filter(|found| !key.is_empty() && found.len() == MARK);
    found.is_some_and(|found| with_nonce(key, facts, &found[..NONCE]) == found)
}

/// As [`is_marked`], of the canonical texts of all but the detail, and of the detail.
pub(super) fn is_marked_over(key: &[u8], head: &str, detail: &str, found: Option<&[u8]>) -> bool {
    let found = found.filter(|found| !key.is_empty() && found.len() == MARK);
    found.is_some_and(|found| over(key, &found[..NONCE], head, detail) == found)
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;

//! An event as the sealing reads it: from the text that its digest is made over, which has everything once.
//!
//! `["event 1", number, run, event, attempt, from, to, at, detail, mark]`, as `store::seal` has PostgreSQL write it. What
//! counts is what is in the row, so nothing else of it is fetched.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::super::canonical::jsonb::Scanner;
use super::super::canonical::{by_value, write_worth};
use super::chain::Hash;
use super::mark::{MARK, is_marked_over};

/// An event that is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub event_id: i64,
    /// The run.
    pub run_id: Uuid,
    /// The attempt that it began.
    pub began: Option<i32>,
    /// True for a run's first state.
    pub is_birth: bool,
    /// True when it has a mark under the key that it was read with.
    pub is_marked: bool,
    /// The digest of its row.
    pub digest: Hash,
}

/// Reads a row. `None` for a text that `store::seal` does not have written. A detail that is none of ours is not marked.
pub fn read(text: &str, key: &[u8]) -> Option<Row> {
    let mut scanner = Scanner::new(text, String::with_capacity(text.len()));
    scanner.expect(b'[')?;
    (scanner.scalar()? == "\"event 1\"").then_some(())?;
    let mut next = || {
        scanner.expect(b',')?;
        scanner.scalar()
    };
    let (event_id, run, event, attempt, from, to, _at) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    scanner.expect(b',')?;
    // What is in the row of an event without a name can only be somebody else's work.
    let event = if event == "null" { "\"\"" } else { event };
    for part in ["[\"event 1\",", run, ",", event, ","] {
        scanner.push(part);
    }
    scanner.push(&worth(attempt));
    for part in [",", from, ",", to, "]"] {
        scanner.push(part);
    }
    let (head, detail_at) = (scanner.made().len(), scanner.position());
    let is_marked = match scanner.value() {
        Some(_) => {
            let mark = mark(&mut scanner)?;
            let (head, detail) = scanner.made().split_at(head);
            is_marked_over(key, head, detail, mark.as_ref().map(<[u8; MARK]>::as_slice))
        }
        None => is_marked_the_long_way(key, scanner.made().get(..head)?, text.get(detail_at..)?),
    };
    Some(Row {
        event_id: event_id.parse().ok()?,
        run_id: Uuid::try_parse(plain(run)?).ok()?,
        began: if to == "\"running\"" { attempt.parse().ok() } else { None },
        is_birth: from == "null" && to != "null",
        is_marked,
        digest: Sha256::digest(text).into(),
    })
}

/// `rest` begins with a detail that is not as PostgreSQL writes one.
fn is_marked_the_long_way(key: &[u8], head: &str, rest: &str) -> bool {
    let Ok((detail, mark)) = serde_json::from_str::<(Value, Option<String>)>(&format!("[{}", rest.trim_start())) else {
        return false;
    };
    is_marked_over(key, head, &by_value(&detail), mark.as_deref().and_then(bytes).as_ref().map(<[u8; MARK]>::as_slice))
}

/// The mark, which is the last; `Some(None)` where there is none.
fn mark(scanner: &mut Scanner<'_>) -> Option<Option<[u8; MARK]>> {
    scanner.expect(b',')?;
    let found = scanner.scalar()?;
    scanner.expect(b']')?;
    Some(plain(found).and_then(bytes))
}

fn worth(number: &str) -> String {
    let mut out = String::new();
    match number {
        "null" => out.push_str(number),
        number => write_worth(&mut out, number),
    }
    out
}

/// Without the quotes.
fn plain(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// A mark in hexadecimal digits; what has another length is none.
fn bytes(hex: &str) -> Option<[u8; MARK]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; MARK];
    (hex.len() == 2 * MARK).then_some(())?;
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;

//! Tests of `row`: a row says the same of itself as its columns do.

use serde_json::json;

use super::super::{EventFacts, mark};
use super::*;
use crate::domain::canonical::hex;

const RUN: &str = "0190a5e1-7c11-7abc-8def-0123456789ab";

fn facts<'a>(event: &'a str, to_status: Option<&'a str>, detail: &'a Value) -> EventFacts<'a> {
    let run_id = Uuid::parse_str(RUN).unwrap();
    EventFacts { run_id, event, attempt: Some(10), from_status: Some("queued"), to_status, detail }
}

/// As PostgreSQL writes it; `detail` is the text of a jsonb.
fn text(facts: &EventFacts<'_>, detail: &str, mark: Option<&[u8]>) -> String {
    let json = |value: Value| value.to_string();
    format!(
        "[\"event 1\", 4711, {}, {}, {}, {}, {}, \"2026-11-23T07:30:00.123456\", {detail}, {}]",
        json(facts.run_id.to_string().into()),
        json(facts.event.into()),
        json(facts.attempt.into()),
        json(facts.from_status.into()),
        json(facts.to_status.into()),
        json(mark.map(hex).into()),
    )
}

#[test]
fn a_row_tells_all_that_the_sealing_needs() {
    let detail = json!({"zz": 1.50, "b": ["é\n\"", {"gate": "lease"}]});
    let facts = facts("running", Some("running"), &detail);
    let found = mark(b"key", &facts);
    let row = text(&facts, r#"{"b": ["é\n\"", {"gate": "lease"}], "zz": 1.50}"#, Some(&found));
    let read_row = read(&row, b"key").unwrap();
    let digest = Sha256::digest(&row).into();
    let whole = Row { event_id: 4711, run_id: facts.run_id, began: Some(10), is_birth: false, is_marked: true, digest };
    assert_eq!(read_row, whole);
    assert!(!read(&row, b"kez").unwrap().is_marked);
    assert!(!read(&row, b"").unwrap().is_marked);
    let birth = EventFacts { attempt: None, from_status: None, to_status: Some("queued"), event: "queued", ..facts };
    let row = read(&text(&birth, "{}", None), b"key").unwrap();
    assert_eq!((row.began, row.is_birth, row.is_marked), (None, true, false));
    let remark = EventFacts { from_status: None, to_status: None, ..birth };
    let row = read(&text(&remark, "{}", None), b"key").unwrap();
    assert_eq!((row.began, row.is_birth), (None, false));
}

/// Details as this code writes them, and such as somebody can put there.
#[test]
fn a_mark_is_found_whatever_the_detail_is_like() {
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    for kept in ["{}", "null", "1", r#"{"a": "\u0001\b", "b\"c": [100, 0.10, -3]}"#, r#"{"a": "\/", "e": 1e3}"#, &deep]
    {
        let detail = serde_json::from_str(kept).unwrap();
        for event in ["running", "", "\"q\"\u{1}é", "null"] {
            let facts = facts(event, None, &detail);
            let found = mark(b"key", &facts);
            assert!(read(&text(&facts, kept, Some(&found)), b"key").unwrap().is_marked, "{kept} {event}");
            assert!(!read(&text(&facts, kept, Some(&found[1..])), b"key").unwrap().is_marked, "{kept} {event}");
            let other = EventFacts { attempt: Some(1), ..facts };
            assert!(!read(&text(&other, kept, Some(&found)), b"key").unwrap().is_marked, "{kept} {event}");
        }
    }
    let detail = Value::Null;
    let nobody = facts("", None, &detail);
    let row = text(&nobody, "null", Some(&mark(b"key", &nobody))).replace("\"\"", "null");
    assert!(read(&row, b"key").unwrap().is_marked, "a name that is missing is an empty one");
    // Deeper than this code can have written it: not ours, and sealed all the same.
    let abyss = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let row = read(&text(&nobody, &abyss, Some(&[1; MARK])), b"key").unwrap();
    assert_eq!((row.event_id, row.is_marked), (4711, false));
}

#[test]
fn another_text_is_no_row() {
    for other in ["", "[]", "[\"event 2\", 1]", "[\"event 1\", 1, \"x\", null, null, null, null, null, {}, null]"] {
        assert_eq!(read(other, b"key"), None, "{other}");
    }
}

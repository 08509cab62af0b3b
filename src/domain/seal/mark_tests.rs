//! Tests of `mark`: what breaks a mark and what does not.

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
        let (sent, kept): (Value, Value) = (serde_json::from_str(sent).unwrap(), serde_json::from_str(kept).unwrap());
        assert!(is_marked(b"key", &facts(&kept), Some(&mark(b"key", &facts(&sent)))), "{sent} {kept}");
    }
}

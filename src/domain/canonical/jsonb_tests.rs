//! Tests of `jsonb`: the short way gives what the long one gives.

use proptest::prelude::*;
use serde_json::{Map, Number};

use super::*;

/// The long way: a value, and its canonical text.
fn long(text: &str) -> Option<String> {
    serde_json::from_str::<Value>(text).ok().map(|value| super::super::by_value(&value))
}

/// The short way without its detour.
fn short(text: &str) -> Option<String> {
    let mut scanner = Scanner::new(text, String::new());
    let whole = scanner.value()?;
    (whole.len() == text.len()).then(|| scanner.made().to_owned())
}

/// As jsonb writes a value: short keys first, and spaces after commas and colons.
fn spelled(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| (key.len(), key.as_str()));
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", Value::from(key.as_str()), spelled(value));
            format!("{{{}}}", list(pairs.into_iter().map(pair).collect()))
        }
        Value::Array(items) => format!("[{}]", list(items.iter().map(spelled).collect())),
        other => other.to_string(),
    }
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z]{0,6}", any::<String>(), "[\"\\\\\u{1}\n\t/é🔧]{0,4}"];
    let number = prop_oneof!["-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,8})?", any::<i64>().prop_map(|n| n.to_string())];
    let number = number.prop_map(|digits| Value::Number(digits.parse::<Number>().unwrap()));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

#[test]
fn what_jsonb_writes_takes_the_short_way() {
    for text in [
        r#"{"b": 1, "aa": {"zz": [], "yyy": {}}, "ccc": [1.50, 100, -3, 0, 0.00, null, true, false]}"#,
        r#"{"é": "\u0001\n\"\\/", "zz\n": 1, "z\"": "🔧"}"#,
        r#""text""#,
        "1e3",
        "[]",
        "{}",
    ] {
        assert_eq!(by_value(text), long(text), "{text}");
        assert_eq!(short(text).is_some(), text != "1e3", "{text}");
    }
}

#[test]
fn what_jsonb_never_writes_takes_the_detour_or_is_refused() {
    for text in [r#"["\/"]"#, r#"["\u000A", "\u00e9"]"#, r#"{"a": 1e400}"#, "[1, 2] ", "\t[1]", r#"{"a":1,"a":2}"#] {
        assert_eq!(by_value(text), long(text), "{text}");
    }
    for text in
        ["", "[", "[1", "[1 2]", "{\"a\" 1}", "{\"a\": }", "{1: 2}", "\"", "\"\\", "tru", "[1,]", "-", "1.", "1-2"]
    {
        assert_eq!((by_value(text), short(text)), (None, None), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(by_value(&deep), None);
}

#[test]
fn a_scanner_reads_one_value_after_the_other() {
    let mut scanner = Scanner::new(r#"["a", 1, {"b": 2}] rest"#, "x".into());
    assert_eq!(scanner.expect(b'['), Some(()));
    assert_eq!(scanner.scalar(), Some("\"a\""));
    assert_eq!(scanner.expect(b','), Some(()));
    assert_eq!(scanner.scalar(), Some("1"));
    assert_eq!(scanner.expect(b','), Some(()));
    assert_eq!(scanner.scalar(), None);
    assert_eq!(scanner.value(), Some(r#"{"b": 2}"#));
    assert_eq!((scanner.made(), scanner.position()), (r#"x{"b":2e0}"#, 17));
    assert_eq!(scanner.expect(b','), None);
    let mut scanner = scanner.restart("[3]");
    assert_eq!(scanner.made(), "");
    assert_eq!(scanner.value(), Some("[3]"));
}

proptest! {
    #[test]
    fn the_short_way_gives_what_the_long_one_gives(value in values()) {
        let text = spelled(&value);
        prop_assert_eq!(short(&text), Some(super::super::by_value(&value)));
    }

    /// And never anything else, whatever it is given.
    #[test]
    fn whatever_it_reads_it_does_not_make_up(text in "[\\[\\]{}\",:0-9a\\\\nu e.-]{0,24}") {
        if let Some(found) = by_value(&text) {
            prop_assert_eq!(Some(found), long(&text));
        }
    }
}

//! One spelling per JSON value, and digests of it: keys sorted, no white space.
//!
//! ```text
//! here     from a value
//! jsonb    from the text that PostgreSQL gives a jsonb, without a value between
//! ```

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub mod jsonb;

/// The canonical text of a value. Two values that jsonb calls equal and that carry the same number spellings
/// give the same text.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write_text(value, &mut out);
    out
}

/// As [`text`], at the end of a text.
pub fn write_text(value: &Value, out: &mut String) {
    write(value, String::push_str, out);
}

/// As [`text`], with numbers by what they are worth: jsonb keeps a number's value and not its spelling (1e2 becomes 100).
pub fn by_value(value: &Value) -> String {
    let mut out = String::new();
    write_by_value(value, &mut out);
    out
}

/// As [`by_value`], at the end of a text.
pub fn write_by_value(value: &Value, out: &mut String) {
    write(value, write_worth, out);
}

fn write(value: &Value, number: fn(&mut String, &str), out: &mut String) {
    match value {
        Value::Object(map) => write_object(map, number, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, number, out);
            }
            out.push(']');
        }
        Value::Number(spelled) => number(out, spelled.as_str()),
        Value::String(text) => write_string(text, out),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Null => out.push_str("null"),
    }
}

fn write_object(map: &Map<String, Value>, number: fn(&mut String, &str), out: &mut String) {
    out.push('{');
    let mut pair = |i: usize, key: &str, value: &Value| {
        if i > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        write(value, number, out);
    };
    // A map is sorted, unless some other crate has asked for one that keeps its order.
    if map.keys().is_sorted() {
        map.iter().enumerate().for_each(|(i, (key, value))| pair(i, key, value));
    } else {
        let mut pairs: Vec<_> = map.iter().collect();
        pairs.sort_unstable_by_key(|(key, _)| *key);
        pairs.into_iter().enumerate().for_each(|(i, (key, value))| pair(i, key, value));
    }
    out.push('}');
}

/// A text in quotes. The same escapes as `serde_json` and PostgreSQL write.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (clean, special) = rest.split_at(at);
        out.push_str(clean);
        write_escaped(special.as_bytes()[0], out);
        // What is escaped is a single byte.
        rest = &special[1..];
    }
    out.push_str(rest);
    out.push('"');
}

fn write_escaped(byte: u8, out: &mut String) {
    match byte {
        b'"' => out.push_str("\\\""),
        b'\\' => out.push_str("\\\\"),
        0x08 => out.push_str("\\b"),
        0x0c => out.push_str("\\f"),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        other => {
            out.push_str("\\u00");
            write_hex(&[other], out);
        }
    }
}

/// SHA-256 of the canonical text, as 64 lower-case hex digits.
pub fn digest(value: &Value) -> String {
    hex(&Sha256::digest(text(value).as_bytes()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    write_hex(bytes, &mut out);
    out
}

/// As [`hex`], at the end of a text.
pub fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
}

/// A decimal number as `[-]digits e exponent`, without zeros at either end of the digits; every zero is `0`.
pub fn write_worth(out: &mut String, spelled: &str) {
    // Whole numbers without a zero in front, as nearly all are, need no copy of their digits.
    let kept = spelled.trim_end_matches('0');
    let zeros = spelled.len() - kept.len();
    let digits = kept.strip_prefix('-').unwrap_or(kept);
    let is_plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    match u8::try_from(zeros) {
        Ok(zeros @ 0..=9) if is_plain => {
            out.push_str(kept);
            out.push('e');
            out.push(char::from(b'0' + zeros));
        }
        _ => out.push_str(&worth(spelled)),
    }
}

fn worth(spelled: &str) -> String {
    let (sign, rest) = spelled.strip_prefix('-').map_or(("", spelled), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let zeros = i128::try_from(digits.len() - kept.len()).unwrap_or(0);
    let fraction = i128::try_from(fraction.len()).unwrap_or(0);
    let kept = kept.trim_start_matches('0');
    match exponent.parse::<i128>() {
        _ if kept.is_empty() => "0".to_owned(),
        Ok(exponent) => format!("{sign}{kept}e{}", exponent.saturating_sub(fraction).saturating_add(zeros)),
        // Out of the range of jsonb's numbers as well, which says so when it is recorded.
        Err(_) => spelled.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn key_order_does_not_matter_and_values_do() {
        let a: Value = serde_json::from_str(r#"{"b":[1,{"y":null,"x":"é\n"}],"a":1.5}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a":1.5,"b":[1,{"x":"é\n","y":null}]}"#).unwrap();
        assert_eq!(text(&a), text(&b));
        assert_eq!(text(&a), r#"{"a":1.5,"b":[1,{"x":"é\n","y":null}]}"#);
        assert_ne!(digest(&a), digest(&json!({"a": 1.5})));
        assert_eq!(digest(&json!({})).len(), 64);
    }

    #[test]
    fn by_value_a_number_is_what_it_is_worth() {
        let value = |text: &str| by_value(&serde_json::from_str(text).unwrap());
        assert_eq!(value(r#"{"b":1e2,"a":[1.50,-0.0,true]}"#), value(r#"{"a":[1.5,0,true],"b":100}"#));
        assert_ne!(value("[100]"), text(&json!([100])));
        let vast = format!("1e{}", "9".repeat(40));
        assert_eq!((worth(&vast), worth(&format!("0e{}", "9".repeat(40)))), (vast.clone(), "0".to_owned()));
        for (one, other) in [("1", "10"), ("1", "-1"), ("1.05", "1.5"), ("1e3", "1e2"), ("0.1", "1")] {
            assert_ne!(worth(one), worth(other));
        }
    }

    /// A text in quotes is what `serde_json` makes of it: marks that are in ledgers were made from that.
    #[test]
    fn every_character_is_escaped_as_it_always_was() {
        for code in (0..0x3000).chain(0xfff0..0x1_0020).filter_map(char::from_u32) {
            let value = Value::from(format!("a{code}b"));
            assert_eq!(text(&value), value.to_string());
        }
    }

    proptest! {
        /// The short way for whole numbers says the same as the long one.
        #[test]
        fn a_whole_number_is_worth_what_it_always_was(number: i64, zeros in 0_usize..20, padded in "-?[0-9]{1,25}") {
            for spelled in [number.to_string(), format!("{number}{}", "0".repeat(zeros)), padded] {
                let mut out = String::new();
                write_worth(&mut out, &spelled);
                prop_assert_eq!(out, worth(&spelled));
            }
        }

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

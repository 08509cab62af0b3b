//! One spelling per JSON value, and digests of it: keys sorted, no white space.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// The canonical text of a value. Two values that jsonb calls equal and that carry the same number spellings
/// give the same text.
pub fn text(value: &Value) -> String {
    spelled(value, &Number::to_string)
}

/// As [`text`], with numbers by what they are worth: jsonb keeps a number's value and not its spelling (1e2 becomes 100).
pub fn by_value(value: &Value) -> String {
    spelled(value, &|number| worth(&number.to_string()))
}

fn spelled(value: &Value, number: &dyn Fn(&Number) -> String) -> String {
    let mut out = String::new();
    write(value, number, &mut out);
    out
}

fn write(value: &Value, number: &dyn Fn(&Number) -> String, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(&map[key], number, out);
            }
            out.push('}');
        }
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
        Value::Number(spelled) => out.push_str(&number(spelled)),
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// SHA-256 of the canonical text, as 64 lower-case hex digits.
pub fn digest(value: &Value) -> String {
    hex(&Sha256::digest(text(value).as_bytes()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
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

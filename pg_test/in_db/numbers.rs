//! Arguments on their way: jsonb to a Rust value, into the ledger, into the request, and back, digit by digit.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_db::fixture::{error_of, open_gates, run, text};
    use crate::store::event::{self, Remark};

    const NUMBERS: &str = r#"{"long": 12345678901234567890.123456789, "tail": 1.100, "tiny": 1e-30, "zero": -0.0,
        "big": 123456789012345678901234567890123456789012345678901234567890, "max": 9223372036854775808}"#;

    /// The text of `column` of a run with these args, and the text that jsonb itself gives them.
    fn kept(mode: &str, args: &str, column: &str) -> (String, String) {
        let sql = format!("SELECT ({column})::text FROM fn_dot_run('B', '{mode}', NULL, $json${args}$json$) r");
        (text(&sql), text(&format!("SELECT $json${args}$json$::jsonb::text")))
    }

    #[pg_test]
    fn numbers_reach_ledger_and_request_digit_by_digit() {
        open_gates();
        for args in [NUMBERS, r#"{"huge": 1e400}"#, r#"{"deep": [[[1.0, [2.50]]]], "n": [0, -1, 1e2]}"#] {
            for mode in ["plan", "apply"] {
                for column in ["r.args", "r.request -> 'body' -> 'args'"] {
                    let (got, want) = kept(mode, args, column);
                    assert_eq!(got, want, "{mode} {column}");
                }
            }
        }
        assert_eq!(kept("plan", r#"{"huge": 1e400}"#, "r.args ->> 'huge'").0, format!("1{}", "0".repeat(400)));
    }

    #[pg_test]
    fn strings_and_keys_reach_them_as_they_are() {
        open_gates();
        for args in [
            r#"{"": "", " ": "\u0001\t\n\r\"\\/", "schl\u00fcssel": "\ud83d\udd27", "null": null, "t": true}"#,
            r#"{"e\u0301": "\u00e9", "\u00e9": "e\u0301", "number": "12345678901234567890.10"}"#,
        ] {
            let (got, want) = kept("apply", args, "r.args");
            assert_eq!(got, want);
        }
    }

    #[pg_test]
    fn spellings_of_a_number_are_told_apart_where_jsonb_keeps_them() {
        open_gates();
        let print = |args: &str| kept("plan", args, "r.fingerprint").0;
        assert_ne!(print(r#"{"n": 1.10}"#), print(r#"{"n": 1.1}"#));
        assert_eq!(print(r#"{"n": 1e2}"#), print(r#"{"n": 100}"#));
        assert_ne!(
            print(r#"{"n": 12345678901234567890.123456789}"#),
            print(r#"{"n": 12345678901234567890.123456788}"#)
        );
    }

    #[pg_test]
    fn a_value_of_ours_goes_through_a_statement_unchanged() {
        let json = text(&format!("SELECT '{NUMBERS}'::jsonb::text"));
        let detail: serde_json::Value = serde_json::from_str(&json).unwrap();
        let run_id = uuid::Uuid::now_v7();
        event::remark(&[Remark { run_id, attempt: None, event: "late_answer", detail }]).unwrap();
        let sql = format!("SELECT detail::text FROM dot_wrapper.dot_run_event WHERE run_id = '{run_id}'");
        assert_eq!(text(&sql), json);
    }

    #[pg_test]
    fn what_cannot_be_taken_over_unchanged_is_misuse_and_not_a_defect() {
        open_gates();
        run("SET LOCAL dot_wrapper.max_args_size = '16MB'");
        let nested = |depth: usize| format!("{{\"n\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(kept("plan", &nested(120), "r.run_status").0, "planned");
        let plan = |args: &str| error_of(&format!("SELECT fn_dot_run('B', 'plan', NULL, $json${args}$json$)"));
        assert_eq!(plan(&nested(500)).sqlstate, "54000");
        assert_eq!(plan(r#"{"n": {"$serde_json::private::Number": "1"}}"#).sqlstate, "22023");
        assert_eq!(plan(r#"{"$serde_json::private::Number": "one"}"#).sqlstate, "22023");
    }
}

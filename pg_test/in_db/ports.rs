//! Calling the substrate's functions: what they answer, and what they leave behind, which is nothing.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::{Value, json};

    use crate::domain::decide::PortAnswer;
    use crate::in_db::fixture::{beside_others, holds, run, standing, text};
    use crate::pg::xact;
    use crate::store::port;

    /// Binds the toggle to a PL/pgSQL function with this body and result type, past the check of signatures.
    fn toggle_is(result: &str, body: &str) {
        beside_others();
        run(&format!(
            "CREATE SCHEMA IF NOT EXISTS ours;
             CREATE TABLE IF NOT EXISTS ours.mark (what text);
             DROP FUNCTION IF EXISTS ours.answer();
             CREATE FUNCTION ours.answer() RETURNS {result} LANGUAGE plpgsql AS $port$ BEGIN {body} END $port$;
             UPDATE dot_wrapper.port SET function = 'ours.answer()', origin = 'bound', reason = NULL WHERE port = 'toggle'"
        ));
    }

    fn ask() -> PortAnswer {
        port::load().expect("ports").toggle()
    }

    fn value(result: &str, body: &str) -> Value {
        toggle_is(result, body);
        match ask() {
            PortAnswer::Value(value) => value,
            other => panic!("{result} {body}: {other:?}"),
        }
    }

    #[pg_test]
    fn a_port_answers_with_one_json_value() {
        for (result, body, want) in [
            ("boolean", "RETURN true;", json!(true)),
            ("boolean", "RETURN NULL;", Value::Null),
            ("void", "RETURN;", json!(true)),
            ("text", "RETURN 'BLOCK';", json!("BLOCK")),
            ("jsonb", "RETURN '{\"a\": [1]}';", json!({"a": [1]})),
            ("timestamptz", "RETURN '2026-01-01 00:00:00Z'::timestamptz;", json!("2026-01-01T00:00:00+00:00")),
            ("SETOF integer", "RETURN QUERY SELECT generate_series(1, 3);", json!([1, 2, 3])),
            ("SETOF integer", "RETURN;", Value::Null),
            (
                "TABLE (check_name text, verdict text)",
                "RETURN QUERY VALUES ('a', 'OK');",
                json!([{"check_name": "a", "verdict": "OK"}]),
            ),
        ] {
            run("SET LOCAL timezone = 'UTC'");
            assert_eq!(value(result, body), want, "{result}: {body}");
        }
        let digits = value("numeric", "RETURN 12345678901234567890.1234567890;");
        assert_eq!(digits.to_string(), "12345678901234567890.1234567890");
    }

    #[pg_test]
    fn an_error_in_a_port_is_an_answer_and_undoes_what_the_port_did() {
        toggle_is("boolean", "INSERT INTO mark VALUES ('before'); RETURN 1 / 0 > 0;");
        run("INSERT INTO ours.mark VALUES ('outside')");
        let before = standing();
        match ask() {
            PortAnswer::Failed { sqlstate, message } => {
                assert_eq!((sqlstate.as_str(), message.as_str()), ("22012", "division by zero"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(standing(), before);
        assert_eq!(text("SELECT string_agg(what, ' ') FROM ours.mark"), "outside");
        run("INSERT INTO ours.mark VALUES ('afterwards')");
        assert!(holds("SELECT count(*) = 2 FROM ours.mark"));
    }

    #[pg_test]
    fn a_private_sqlstate_in_a_port_is_an_answer_as_well() {
        toggle_is("boolean", "RAISE EXCEPTION 'no' USING ERRCODE = 'P4711';");
        assert!(matches!(ask(), PortAnswer::Failed { sqlstate, message } if sqlstate == "XX000" && message == "no"));
    }

    #[pg_test]
    fn what_is_about_the_moment_goes_on_as_an_error() {
        for code in ["40001", "40P01", "53200", "57014", "57P01"] {
            toggle_is("boolean", &format!("RAISE EXCEPTION 'now' USING ERRCODE = '{code}';"));
            let before = standing();
            let caught = xact::subtransaction(ask).expect_err(code);
            assert_eq!((caught.sqlstate.as_str(), caught.message.as_str()), (code, "now"));
            assert_eq!(standing(), before);
        }
    }

    #[pg_test]
    fn a_cancel_in_a_port_cancels_the_caller() {
        toggle_is("boolean", "PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN true;");
        let before = standing();
        let caught = xact::subtransaction(ask).expect_err("cancelled");
        assert_eq!(caught.sqlstate, "57014");
        assert_eq!(standing(), before);
    }

    #[pg_test]
    fn a_lock_that_cannot_be_had_is_an_answer() {
        toggle_is("boolean", "RAISE EXCEPTION 'busy' USING ERRCODE = '55P03';");
        assert!(matches!(ask(), PortAnswer::Failed { sqlstate, .. } if sqlstate == "55P03"));
    }

    #[pg_test]
    fn a_port_runs_as_its_owner_in_its_schema_and_leaves_no_setting_behind() {
        run("CREATE ROLE in_db_port_owner SUPERUSER");
        toggle_is(
            "text",
            "SET work_mem = '77kB'; SET search_path = pg_catalog; SET LOCAL statement_timeout = '1h';
             RETURN current_user;",
        );
        run("ALTER FUNCTION ours.answer() OWNER TO in_db_port_owner");
        let before = standing();
        assert_eq!(ask(), PortAnswer::Value(json!("in_db_port_owner")));
        assert_eq!(standing(), before);
        assert_eq!(text("SHOW statement_timeout"), "0");
        toggle_is("text", "RETURN current_setting('search_path');");
        assert_eq!(ask(), PortAnswer::Value(json!("ours, pg_temp")));
    }

    #[pg_test]
    fn a_port_is_unbound_when_there_is_nothing_to_call_or_nobody_to_trust() {
        toggle_is("boolean", "RETURN true;");
        run("CREATE ROLE in_db_port_stranger; ALTER FUNCTION ours.answer() OWNER TO in_db_port_stranger");
        assert!(matches!(ask(), PortAnswer::Unbound(why) if why.contains("not trusted")));
        run("DROP FUNCTION ours.answer()");
        assert!(matches!(ask(), PortAnswer::Unbound(why) if why.contains("does not exist")));
        run("DROP SCHEMA ours CASCADE");
        assert!(matches!(ask(), PortAnswer::Unbound(why) if why.contains("does not exist")));
        run("DELETE FROM dot_wrapper.port WHERE port = 'toggle'");
        assert!(matches!(ask(), PortAnswer::Unbound(why) if why.contains("never bound")));
    }

    #[pg_test]
    fn the_shipped_lease_functions_keep_their_contract() {
        beside_others();
        let ports = port::load().expect("ports");
        let taken = |answer: PortAnswer| matches!(answer, PortAnswer::Value(Value::String(_)));
        assert!(taken(ports.acquire("k", "one", 60)));
        assert!(taken(ports.acquire("k", "one", 60)), "renewed");
        assert_eq!(ports.acquire("k", "two", 60), PortAnswer::Value(Value::Null));
        assert_eq!(ports.release("k", "two"), PortAnswer::Value(json!(false)));
        assert_eq!(ports.release("k", "one"), PortAnswer::Value(json!(true)));
        assert!(taken(ports.acquire("k", "two", 60)));
    }
}

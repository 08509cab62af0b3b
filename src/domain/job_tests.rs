//! What a job asks for, and what becomes of it.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::mode::Mode;

fn job(id: &str, payload: &str) -> Job {
    Job { id: id.into(), payload: Some(payload.into()), payload_bytes: payload.len() as i64, ..Job::default() }
}

fn refused(payload: &str) -> DotError {
    request("public.job_queue", &job("1", payload)).unwrap_err()
}

#[test]
fn a_payload_with_a_code_is_an_apply() {
    let raw = request("public.job_queue", &job("7", r#"{"code": "DOT-1"}"#)).unwrap();
    let call = raw.check(100).unwrap();
    assert_eq!((call.code.as_str(), call.mode, call.args), ("DOT-1", Mode::Apply, json!({})));
    assert_eq!(call.idempotency_key, "job:7");
    assert_eq!(call.process_run_id.unwrap().get_version_num(), 8);
}

#[test]
fn what_the_payload_says_is_taken_over() {
    let process = Uuid::now_v7();
    let payload = json!({"code": "DOT-1", "mode": "verify", "process_run_id": process, "args": {"a": [1]}});
    let one = Job { idempotency_key: Some("k".into()), ..job("7", &payload.to_string()) };
    let call = request("public.job_queue", &one).unwrap().check(100).unwrap();
    assert_eq!((call.mode, call.process_run_id, call.args), (Mode::Verify, Some(process), json!({"a": [1]})));
    assert_eq!(call.idempotency_key, "k");
    let nulls = r#"{"code": "DOT-1", "mode": null, "process_run_id": null, "args": null}"#;
    assert!(request("public.job_queue", &job("7", nulls)).unwrap().check(100).is_ok());
}

#[test]
fn a_job_is_one_run_and_so_are_two_with_one_key() {
    let process = |relation, job: &Job| request(relation, job).unwrap().process_run_id.unwrap();
    let payload = r#"{"code": "DOT-1"}"#;
    let (one, other) = (job("1", payload), job("2", payload));
    assert_eq!(process("a.b", &one), process("a.b", &one.clone()));
    assert_ne!(process("a.b", &one), process("a.b", &other));
    assert_ne!(process("a.b", &one), process("a.c", &one));
    let keyed = |id| Job { idempotency_key: Some("k".into()), ..job(id, payload) };
    assert_eq!(process("a.b", &keyed("1")), process("a.b", &keyed("2")));
    // A key that reads like another job's id is not that job.
    let posing = Job { idempotency_key: Some("1".into()), ..job("9", payload) };
    assert_ne!(process("a.b", &posing), process("a.b", &one));
    let empty = Job { idempotency_key: Some(String::new()), ..one.clone() };
    assert_eq!(request("a.b", &empty).unwrap().idempotency_key, request("a.b", &one).unwrap().idempotency_key);
}

#[test]
fn a_payload_that_is_none_is_refused_with_a_line_for_people() {
    for payload in ["", "x", "[]", "1", "null", r#"{"code": 1}"#, r#"{"code": "a", "arg": {}}"#, "{\"code\": \"a\"} x"]
    {
        assert_eq!(refused(payload).state, SqlState::InvalidParameterValue, "{payload}");
    }
    for payload in [r#"{"code": "a", "process_run_id": "x"}"#, r#"{"code": "a", "mode": []}"#] {
        assert!(is_final(refused(payload).state), "{payload}");
    }
    assert_eq!(
        refused(r#"{"code": "a", "args": {"$serde_json::private::Number": "1"}}"#).message,
        "the payload has a reserved key"
    );
    let missing = request("a.b", &Job { id: "1".into(), ..Job::default() }).unwrap_err();
    assert_eq!(missing.state, SqlState::NullValueNotAllowed);
    let large = request("a.b", &Job { id: "1".into(), payload_bytes: 9, ..Job::default() }).unwrap_err();
    assert_eq!(large.state, SqlState::ProgramLimitExceeded);
    let deep = format!(r#"{{"code": "a", "args": {}}}"#, "[".repeat(200));
    assert!(is_final(refused(&deep).state));
    let standing = Standing::misuse(&refused(r#"{"code": 1}"#));
    assert!(standing.message.unwrap().starts_with("code must be a string"));
}

#[test]
fn every_state_has_a_word_and_queued_is_like_no_other() {
    let words = Words::parse(json!({"queued": "new", "succeeded": "done", "failed": "done"})).unwrap();
    for status in RunStatus::ALL {
        assert_ne!(words.of(status), words.queued, "{status:?}");
    }
    assert_eq!(words.of(RunStatus::Planned), "done");
    assert_eq!(words.of(RunStatus::Queued), "running");
    for bad in
        [json!({"taken": "queued"}), json!({"done": "x"}), json!({"failed": 1}), json!([]), json!({"queued": "failed"})]
    {
        assert!(Words::parse(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn a_job_says_how_its_run_ended_and_nothing_before() {
    let of = |status| Standing { run_id: None, status, reason: None, message: None, result: None }.report();
    for status in RunStatus::ALL {
        assert_eq!(of(status).is_some(), !matches!(status, RunStatus::Queued | RunStatus::Running), "{status:?}");
    }
}

proptest! {
    #[test]
    fn no_job_panics(id in ".*", payload in ".*", key in proptest::option::of(".*")) {
        let _ = request("a.b", &Job { idempotency_key: key, ..job(&id, &payload) });
    }

    #[test]
    fn a_job_without_a_key_gets_one_that_can_be_used(id in "\\PC{0,400}") {
        let call = request("a.b", &job(&id, r#"{"code": "DOT-1"}"#)).unwrap().check(100);
        prop_assert!(call.is_ok(), "{:?}", call);
    }
}

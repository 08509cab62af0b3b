//! Tests of `retry`: the table word by word, and what holds for every answer.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::policy::Layer;
use crate::domain::tool::Tool;

fn policy(layer: &Layer) -> Policy {
    Policy::resolve(&Tool::from_row(json!({"code": "D"})).unwrap(), None, Some(layer))
}

fn idempotent() -> Policy {
    policy(&Layer { idempotent: Some(true), ..Layer::default() })
}

fn unsent(reason: &str) -> Answer {
    Answer::failure(Reach::NotSent, reason, "x")
}

fn sent(reason: &str) -> Answer {
    Answer::failure(Reach::Sent, reason, "x")
}

fn status(status: u16) -> Answer {
    Answer { http_status: Some(status), ..Answer::failure(Reach::Answered, format!("http_{status}"), "x") }
}

fn said(verdict: Verdict) -> Answer {
    Answer { http_status: Some(200), verdict, ..Answer::failure(Reach::Answered, "agent", "x") }
}

fn attempt<'a>(policy: &'a Policy, answer: &'a Answer) -> Attempt<'a> {
    Attempt {
        mode: Mode::Apply,
        policy,
        number: 1,
        past: Past::None,
        age: Duration::from_secs(1),
        key_age: Duration::from_secs(1),
        withdrawn: false,
        answer,
        retry_after: None,
    }
}

/// What follows, without the times.
fn fate(attempt: &Attempt<'_>) -> Result<Cause, Past> {
    match next(attempt, 0.5) {
        Next::End(cause) => Ok(cause),
        Next::Again { past, .. } => Err(past),
    }
}

#[test]
fn the_table_for_an_apply_that_is_not_idempotent() {
    let plain = policy(&Layer::default());
    let of = |answer: Answer| fate(&attempt(&plain, &answer));
    for reason in
        ["dns_failed", "connect_failed", "connect_timeout", "tls_failed", "withheld", "engine_down", "timeout"]
    {
        assert_eq!(of(unsent(reason)), Err(Past::None), "{reason}");
    }
    for reason in CONFIGURATION {
        assert_eq!(of(unsent(reason)), Ok(Cause::Failed), "{reason}");
    }
    for reason in ["timeout", "connection_lost", "answer_incomplete", "worker_lost", "engine_panic"] {
        assert_eq!(of(sent(reason)), Ok(Cause::OutcomeUnknown), "{reason}");
    }
    for code in [408, 425, 429] {
        assert_eq!(of(status(code)), Err(Past::Untaken), "{code}");
    }
    for code in [500, 501, 502, 503, 504, 599, 200, 204] {
        assert_eq!(of(status(code)), Ok(Cause::OutcomeUnknown), "{code}");
    }
    for code in [302, 307, 400, 401, 403, 404, 409, 413, 422] {
        assert_eq!(of(status(code)), Ok(Cause::Failed), "{code}");
    }
    assert_eq!(of(said(Verdict::Succeeded)), Ok(Cause::Succeeded));
    assert_eq!(of(said(Verdict::Failed)), Ok(Cause::Failed));
    assert_eq!(of(said(Verdict::Refused)), Ok(Cause::Failed));
}

#[test]
fn a_503_that_names_a_time_was_not_taken() {
    let plain = policy(&Layer::default());
    let answer = status(503);
    let asked = Attempt { retry_after: Some(Duration::from_secs(7)), ..attempt(&plain, &answer) };
    assert_eq!(fate(&asked), Err(Past::Untaken));
    let worded = Answer { verdict: Verdict::Refused, ..status(429) };
    assert_eq!(fate(&attempt(&plain, &worded)), Err(Past::Untaken), "the status is the more special word");
    let Next::Again { wait, .. } = next(&asked, 0.0) else { panic!("again") };
    assert_eq!(wait, Duration::from_secs(7), "the agent's wish is a lower bound");
}

#[test]
fn promise_a3_what_may_have_arrived_is_repeated_for_idempotent_tools_and_for_verify_only() {
    let (plain, idempotent) = (policy(&Layer::default()), idempotent());
    for answer in [sent("timeout"), status(500), status(200)] {
        assert_eq!(fate(&attempt(&idempotent, &answer)), Err(Past::Unknown));
        let verify = Attempt { mode: Mode::Verify, ..attempt(&plain, &answer) };
        assert_eq!(fate(&verify), Err(Past::Untaken));
        assert_eq!(fate(&Attempt { number: 5, ..verify }), Ok(Cause::Failed), "a verify is never in doubt");
    }
}

#[test]
fn what_an_earlier_delivery_may_have_done_stays_unknown_until_the_agent_tells() {
    let policy = idempotent();
    let (refused, bare, final_word) = (unsent("connect_failed"), status(409), said(Verdict::Refused));
    let later = |answer| Attempt { number: 5, past: Past::Unknown, ..attempt(&policy, answer) };
    assert_eq!(fate(&later(&refused)), Ok(Cause::OutcomeUnknown));
    assert_eq!(fate(&later(&bare)), Ok(Cause::OutcomeUnknown));
    assert_eq!(fate(&later(&final_word)), Ok(Cause::Failed), "about the key, and so about all deliveries");
}

#[test]
fn limits_end_the_repetitions() {
    let (answer, lost) = (unsent("connect_failed"), sent("timeout"));
    let policy = idempotent();
    let base = attempt(&policy, &answer);
    assert_eq!(fate(&Attempt { number: 4, ..base }), Err(Past::None));
    assert_eq!(fate(&Attempt { number: 5, ..base }), Ok(Cause::Failed));
    assert_eq!(fate(&Attempt { age: Duration::from_secs(172_800), ..base }), Ok(Cause::Failed));
    let old = Duration::from_secs(86_400 - 60);
    assert_eq!(fate(&Attempt { key_age: old, ..base }), Err(Past::None), "a key that was never sent does not age");
    let late = Attempt { key_age: old, ..attempt(&policy, &lost) };
    assert_eq!(fate(&late), Ok(Cause::OutcomeUnknown), "it could arrive when the key is forgotten");
}

#[test]
fn promise_a6_what_was_withdrawn_is_cancelled_only_if_nothing_was_sent() {
    let policy = idempotent();
    let (closed, lost, busy, done) = (unsent(CANCELLED), sent(CANCELLED), status(429), said(Verdict::Succeeded));
    let of = |answer, past| fate(&Attempt { withdrawn: true, past, ..attempt(&policy, answer) });
    assert_eq!(of(&closed, Past::None), Ok(Cause::Cancelled));
    assert_eq!(of(&closed, Past::Untaken), Ok(Cause::Failed));
    assert_eq!(of(&closed, Past::Unknown), Ok(Cause::OutcomeUnknown));
    assert_eq!(of(&lost, Past::None), Ok(Cause::OutcomeUnknown));
    assert_eq!(of(&busy, Past::None), Ok(Cause::Failed));
    assert_eq!(of(&done, Past::None), Ok(Cause::Succeeded), "the engine was quicker");
}

#[test]
fn pauses_grow_to_their_ceiling_and_are_random_below_it() {
    let policy = policy(&Layer {
        retry_base_ms: Some(100),
        retry_max_ms: Some(1_000),
        max_attempts: Some(100),
        ..Layer::default()
    });
    let answer = unsent("connect_failed");
    let wait = |number, chance| match next(&Attempt { number, ..attempt(&policy, &answer) }, chance) {
        Next::Again { wait, .. } => wait.as_millis(),
        Next::End(cause) => panic!("{cause:?}"),
    };
    assert_eq!([1, 2, 3, 4, 5, 60].map(|n| wait(n, 1.0)), [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!((wait(3, 0.0), wait(3, 0.25)), (0, 100));
}

fn answers() -> impl Strategy<Value = Answer> {
    let reach = prop::sample::select(&[Reach::NotSent, Reach::Sent, Reach::Answered][..]);
    let verdict = prop::sample::select(&[Verdict::Succeeded, Verdict::Failed, Verdict::Refused, Verdict::None][..]);
    let reason = prop::sample::select(&["timeout", CANCELLED, "secret_missing", "http_503", "agent_refused"][..]);
    (reach, verdict, reason, prop::option::of(100u16..600)).prop_map(|(reach, verdict, reason, http_status)| Answer {
        verdict,
        http_status,
        ..Answer::failure(reach, reason, "x")
    })
}

proptest! {
    /// Whatever comes: an apply that may have had its effect is repeated only under leave, ends in doubt or as the agent
    /// told, and is never called cancelled; limits hold; and what follows is an edge of the state machine.
    #[test]
    fn no_answer_leads_to_a_blind_repetition(answer in answers(), leave: bool, number in 1i32..8, chance in 0.0f64..=1.0,
            mode in prop::sample::select(&[Mode::Verify, Mode::Apply][..]), withdrawn: bool,
            past in prop::sample::select(&Past::ALL[..]), age in 0u64..200_000) {
        let policy = policy(&Layer { idempotent: Some(leave), ..Layer::default() });
        let past = if mode.mutates() { past } else { past.min(Past::Untaken) };
        let age = Duration::from_secs(age);
        let facts = Attempt { mode, policy: &policy, number, past, age, key_age: age, withdrawn, answer: &answer, retry_after: None };
        let unknown = effect(&answer, None) == Effect::Unknown;
        match next(&facts, chance) {
            Next::Again { past: now, wait } => {
                prop_assert!(!withdrawn && i64::from(number) < policy.max_attempts && age < Duration::from_secs(172_800));
                prop_assert!(!(unknown && mode.mutates()) || leave);
                prop_assert!(now >= past && wait <= Duration::from_millis(300_000));
                prop_assert_eq!(now == Past::Unknown, mode.mutates() && (unknown || past == Past::Unknown));
            }
            Next::End(cause) => {
                prop_assert!(crate::domain::state::next(mode, Some(crate::domain::state::RunStatus::Running), cause).is_some());
                if unknown && mode.mutates() { prop_assert_eq!(cause, Cause::OutcomeUnknown); }
                if cause == Cause::Cancelled { prop_assert!(answer.reach == Reach::NotSent && past == Past::None); }
                if cause == Cause::OutcomeUnknown { prop_assert!(mode.mutates()); }
            }
        }
    }
}

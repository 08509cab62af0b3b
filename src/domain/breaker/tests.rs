//! The breaker against what its documentation says, step by step and at random.

use proptest::prelude::*;

use super::*;
use crate::domain::answer::Reach;

const SET: Settings = Settings { failures: 3, pause: Duration::from_secs(10) };

fn sec(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn bad() -> Effect {
    Effect::Failure("http_500: x".into())
}

fn answer(reach: Reach, verdict: Verdict, reason: &str, status: Option<u16>) -> Answer {
    Answer { verdict, http_status: status, ..Answer::failure(reach, reason, "m") }
}

#[test]
fn what_an_answer_says_about_its_endpoint() {
    use Reach::{Answered, NotSent, Sent};
    let none = |reach, reason: &str, status| effect(&answer(reach, Verdict::None, reason, status), None);
    let said = |verdict, status| effect(&answer(Answered, verdict, "x", Some(status)), None);
    for (verdict, status) in
        [(Verdict::Succeeded, 200), (Verdict::Failed, 200), (Verdict::Refused, 409), (Verdict::Refused, 422)]
    {
        assert_eq!(said(verdict, status), Effect::Success);
    }
    for status in [400, 401, 403, 404, 408, 425, 429, 499] {
        assert_eq!(none(Answered, &format!("http_{status}"), Some(status)), Effect::Success, "{status}");
    }
    for status in [500, 502, 503, 504, 599] {
        let found = none(Answered, &format!("http_{status}"), Some(status));
        assert_eq!(found, Effect::Failure(format!("http_{status}: m")));
    }
    for reason in FAILURES {
        let (reach, status) = if reason.starts_with("bad_") { (Answered, Some(200)) } else { (Sent, None) };
        assert_eq!(none(reach, reason, status), Effect::Failure(format!("{reason}: m")));
    }
    for reason in [
        "address_denied",
        "secret_missing",
        "secret_unusable",
        "request_unusable",
        "tls_unusable",
        "engine_panic",
        "engine_down",
        "worker_lost",
        "cancelled",
        "withheld",
        "something new",
    ] {
        assert_eq!(none(NotSent, reason, None), Effect::Neither, "{reason}");
    }
    let asked = |status, wait| {
        effect(
            &answer(Answered, Verdict::None, &format!("http_{status}"), Some(status)),
            Some(Duration::from_secs(wait)),
        )
    };
    assert_eq!((asked(503, 7), asked(429, 7)), (Effect::Pause(sec(7)), Effect::Pause(sec(7))));
    assert_eq!(asked(503, 0), Effect::Neither);
    assert_eq!(asked(503, 86_400), Effect::Pause(LONGEST));
    assert_eq!(asked(500, 7), Effect::Failure("http_500: m".into()));
    assert_eq!(asked(404, 7), Effect::Success);
}

#[test]
fn it_opens_after_failures_in_a_row_and_one_trial_decides() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(!breaker.end(&Effect::Success, false, SET, now), "nothing to write for a success");
    assert!(breaker.end(&bad(), false, SET, now));
    assert!(breaker.end(&bad(), false, SET, now));
    assert!(breaker.end(&Effect::Success, false, SET, now), "in a row");
    assert_eq!(breaker, Breaker::default());
    for _ in 0..3 {
        assert_eq!(breaker.admits(now), Ok(false));
        breaker.end(&bad(), false, SET, now);
    }
    assert_eq!(breaker.admits(now + sec(9)), Err(Stop { until: Some(now + sec(10)) }));
    // What was out when it opened changes nothing.
    assert!(!breaker.end(&Effect::Success, false, SET, now + sec(1)));
    assert!(!breaker.end(&bad(), false, SET, now + sec(1)));
    let mut then = now + sec(10);
    for pause in [20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
        assert_eq!(breaker.admits(then), Ok(true));
        breaker.try_it();
        assert_eq!(breaker.admits(then), Err(Stop { until: None }), "one trial");
        breaker.end(&bad(), true, SET, then);
        assert_eq!(breaker.admits(then), Err(Stop { until: Some(then + sec(pause)) }));
        then += sec(pause);
    }
    // Trouble of ours ends the trial and decides nothing.
    breaker.try_it();
    assert!(!breaker.end(&Effect::Neither, true, SET, then));
    assert_eq!(breaker.admits(then), Ok(true));
    breaker.try_it();
    breaker.end(&Effect::Success, true, SET, then);
    assert_eq!(breaker, Breaker::default());
}

#[test]
fn zero_failures_never_open_it() {
    let mut breaker = Breaker::default();
    let set = Settings { failures: 0, ..SET };
    for _ in 0..100 {
        breaker.end(&bad(), false, set, Instant::now());
    }
    assert_eq!(breaker.admits(Instant::now()), Ok(false));
}

#[test]
fn a_wish_is_honoured_and_is_no_failure() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(breaker.end(&Effect::Pause(sec(7)), false, SET, now));
    assert!(!breaker.end(&Effect::Pause(sec(2)), false, SET, now) || breaker.paused_until == Some(now + sec(7)));
    assert_eq!(breaker.failures, 0);
    assert_eq!(breaker.admits(now + sec(6)), Err(Stop { until: Some(now + sec(7)) }));
    assert_eq!(breaker.admits(now + sec(7)), Ok(false));
}

#[test]
fn orders_are_followed_once() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(breaker.follow(1, Order::Open, now));
    assert_eq!(breaker.admits(now + LONGEST * 9), Err(Stop { until: None }));
    assert!(!breaker.follow(1, Order::Open, now));
    // Late successes do not undo it.
    breaker.end(&Effect::Success, false, SET, now);
    assert!(breaker.admits(now).is_err());
    assert!(breaker.follow(2, Order::Auto, now));
    assert_eq!(breaker.admits(now), Ok(true), "half open");
    breaker.try_it();
    breaker.end(&bad(), true, SET, now);
    assert!(breaker.admits(now).is_err());
    assert!(breaker.follow(3, Order::Closed, now));
    assert_eq!(breaker, Breaker { order: 3, ..Breaker::default() });
    assert!(breaker.follow(4, Order::Auto, now));
    assert_eq!(breaker.admits(now), Ok(false), "auto does not open what is closed");
    for order in Order::ALL {
        assert_eq!(Order::parse(order.as_str()), Some(order));
    }
    assert_eq!(Order::parse("ajar"), None);
}

#[derive(Clone, Debug)]
enum Step {
    Pass,
    End(Effect),
    Wait(u64),
    Order(Order),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Pass),
        2 => Just(Step::End(Effect::Success)),
        4 => Just(Step::End(Effect::Failure("x".into()))),
        1 => (0u64..100).prop_map(|s| Step::End(Effect::Pause(sec(s)))),
        1 => Just(Step::End(Effect::Neither)),
        3 => (0u64..30).prop_map(Step::Wait),
        1 => prop_oneof![Just(Order::Open), Just(Order::Closed), Just(Order::Auto)].prop_map(Step::Order),
    ]
}

proptest! {
    /// Never two trials, never a passage while forced or before its time, and it always comes back by itself.
    #[test]
    fn it_holds_what_it_says(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut breaker, mut now, mut number) = (Breaker::default(), Instant::now(), 0);
        let mut out: Vec<bool> = Vec::new();
        for step in steps {
            match step {
                Step::Pass => if let Ok(trial) = breaker.admits(now) {
                    prop_assert!(!breaker.forced);
                    prop_assert!(breaker.paused_until.is_none_or(|until| until <= now));
                    prop_assert!(!trial || out.iter().all(|was| !was), "two trials");
                    if let State::Open(until) = breaker.state {
                        prop_assert!(trial && until <= now);
                        breaker.try_it();
                    }
                    out.push(trial);
                },
                Step::End(effect) => if let Some(trial) = out.pop() {
                    breaker.end(&effect, trial, SET, now);
                },
                Step::Wait(s) => now += sec(s),
                Step::Order(order) => {
                    number += 1;
                    breaker.follow(number, order, now);
                }
            }
            prop_assert!(breaker.reason.chars().count() <= MAX_REASON);
        }
        for trial in out {
            breaker.end(&Effect::Neither, trial, SET, now);
        }
        prop_assert!(breaker.forced || breaker.admits(now + LONGEST).is_ok());
    }
}

//! A run's whole life against a model of the world: an agent that may or may not act on what reaches it, crashes at any
//! moment, people who cancel, gates that close. What the real rules (`state`, `retry`) make of it is held against what truly
//! happened, which they cannot see.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::policy::Layer;
use crate::domain::state::{self, RunStatus};
use crate::domain::tool::Tool;

/// What happens next, if it can.
#[derive(Clone, Debug)]
enum Step {
    /// The worker takes it up, and all gates are open.
    Claim,
    /// The worker takes it up, and a gate says no.
    Stopped(Cause),
    /// The call ends: did anything leave, did the agent act on it, and what was heard of it.
    Ends { left: bool, acts: bool, heard: Heard },
    /// The worker dies while the call is out.
    Crash { left: bool, acts: bool },
    /// Somebody cancels.
    Cancel,
    /// The agent is asked by key, after the deadline.
    Ask,
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Nothing,
    Word,
    Untaken,
    Error,
    Garbage,
    Refusal,
}

/// What truly happened.
#[derive(Debug, Default)]
struct Truth {
    /// Deliveries of which a byte left.
    sent: u32,
    /// Times that the agent did the work.
    effects: u32,
    /// The agent has the key in its memory, with what it answers.
    remembers: Option<Verdict>,
    /// The last delivery that left was answered "not taken", or the agent said that it never saw the key.
    leave: bool,
}

struct Run {
    mode: Mode,
    policy: Policy,
    status: RunStatus,
    past: Past,
    attempt: i32,
    withdrawn: bool,
}

impl Run {
    fn go(&mut self, cause: Cause) {
        self.status = state::next(self.mode, Some(self.status), cause).expect("an edge");
    }

    fn settle(&mut self, answer: &Answer) {
        let attempt = Attempt {
            mode: self.mode,
            policy: &self.policy,
            number: self.attempt,
            past: self.past,
            age: Duration::from_secs(1),
            key_age: Duration::from_secs(1),
            withdrawn: self.withdrawn,
            answer,
            retry_after: None,
        };
        match next(&attempt, 0.5) {
            Next::End(cause) => self.go(cause),
            Next::Again { past, .. } => {
                self.past = past;
                self.go(Cause::Requeued);
            }
        }
    }
}

impl Truth {
    /// A delivery reaches the agent, or not; what it would answer.
    fn deliver(&mut self, run: &Run, left: bool, acts: bool, failing: bool) -> Option<Verdict> {
        if !left {
            return None;
        }
        self.sent += 1;
        self.leave = false;
        if !acts {
            return None;
        }
        if run.policy.idempotent && self.remembers.is_some() {
            return self.remembers;
        }
        self.effects += u32::from(run.mode.mutates());
        self.remembers = Some(if failing { Verdict::Failed } else { Verdict::Succeeded });
        self.remembers
    }
}

fn answer(left: bool, told: Option<Verdict>, heard: Heard) -> Answer {
    let of = |status, verdict| Answer {
        http_status: Some(status),
        verdict,
        ..Answer::failure(Reach::Answered, format!("http_{status}"), "x")
    };
    match (left, heard, told) {
        (false, ..) => Answer::failure(Reach::NotSent, "connect_failed", "x"),
        (_, Heard::Word, Some(verdict)) => of(200, verdict),
        (_, Heard::Untaken, None) => of(429, Verdict::None),
        (_, Heard::Refusal, None) => of(404, Verdict::None),
        (_, Heard::Error, _) => of(502, Verdict::None),
        (_, Heard::Garbage, _) => of(200, Verdict::None),
        _ => Answer::failure(Reach::Sent, "timeout", "x"),
    }
}

fn apply(run: &mut Run, truth: &mut Truth, step: &Step) {
    match (run.status, step) {
        (RunStatus::Queued, Step::Claim) => {
            assert!(!run.withdrawn || run.attempt > 0);
            if run.withdrawn {
                return run.go(run.past.end(Cause::Cancelled));
            }
            run.attempt += 1;
            run.go(Cause::Claimed);
        }
        (RunStatus::Queued, Step::Stopped(cause)) => run.go(run.past.end(*cause)),
        (RunStatus::Queued, Step::Cancel) => run.go(run.past.end(Cause::Cancelled)),
        (RunStatus::Running, Step::Cancel) => run.withdrawn = true,
        (RunStatus::Running, Step::Ends { left, acts, heard }) => {
            // An agent that says "not taken" or refuses has not acted.
            let acts = *acts && !matches!(heard, Heard::Untaken | Heard::Refusal);
            let told = truth.deliver(run, *left, acts, false);
            let answer = answer(*left, told, *heard);
            truth.leave |= answer.http_status == Some(429);
            run.settle(&answer);
        }
        (RunStatus::Running, Step::Crash { left, acts }) => {
            truth.deliver(run, *left, *acts, true);
            run.settle(&Answer::failure(Reach::Sent, "worker_lost", "x"));
        }
        (RunStatus::InDoubt, Step::Ask) => match truth.remembers {
            Some(Verdict::Succeeded) => run.go(Cause::Succeeded),
            Some(_) => run.go(Cause::Failed),
            None if run.withdrawn || i64::from(run.attempt) >= run.policy.max_attempts => run.go(Cause::Failed),
            None => {
                truth.leave = true;
                run.past = Past::Untaken;
                run.go(Cause::Requeued);
            }
        },
        _ => {}
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let heard = prop::sample::select(
        &[Heard::Nothing, Heard::Word, Heard::Untaken, Heard::Error, Heard::Garbage, Heard::Refusal][..],
    );
    let one = prop_oneof![
        6 => Just(Step::Claim),
        1 => prop::sample::select(&[Cause::Refused, Cause::Expired, Cause::Cancelled][..]).prop_map(Step::Stopped),
        6 => (any::<bool>(), any::<bool>(), heard).prop_map(|(left, acts, heard)| Step::Ends { left, acts, heard }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(left, acts)| Step::Crash { left, acts }),
        1 => Just(Step::Cancel),
        1 => Just(Step::Ask),
    ];
    prop::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_the_ledger_says_is_true_whatever_happens(steps in steps(), idempotent: bool,
            mode in prop::sample::select(&[Mode::Verify, Mode::Apply][..])) {
        let tool = Tool::from_row(json!({"code": "D"})).unwrap();
        let layer = Layer { idempotent: Some(idempotent), max_attempts: Some(4), ..Layer::default() };
        let policy = Policy::resolve(&tool, None, Some(&layer));
        let mut run = Run { mode, policy, status: RunStatus::Queued, past: Past::None, attempt: 0, withdrawn: false };
        let mut truth = Truth::default();
        for step in &steps {
            let (before, sent, leave) = (run.status, truth.sent, truth.leave);
            apply(&mut run, &mut truth, step);
            prop_assert!(!before.is_terminal() || run.status == before, "terminal is final");
            // Never twice without leave.
            if mode.mutates() && !idempotent && truth.sent > sent && sent > 0 {
                prop_assert!(leave, "{:?}", truth);
            }
            prop_assert!(truth.effects <= 1, "{:?}", truth);
            let done = truth.effects > 0;
            match run.status {
                RunStatus::Cancelled | RunStatus::Refused | RunStatus::Expired => prop_assert_eq!(truth.sent, 0),
                RunStatus::Succeeded => prop_assert!(!mode.mutates() || done),
                RunStatus::Failed if mode.mutates() =>
                    prop_assert!(!done || truth.remembers == Some(Verdict::Failed), "{:?} {:?}", truth, steps),
                RunStatus::InDoubt => prop_assert!(mode.mutates() && truth.sent + u32::try_from(run.attempt).unwrap() > 0),
                // It may only go back to the queue as untouched when it is.
                RunStatus::Queued if mode.mutates() => prop_assert!(!done || run.past == Past::Unknown),
                _ => {}
            }
        }
    }
}

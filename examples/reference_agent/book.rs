//! What an agent must remember: which runs it has seen and what came of them (idempotency), and the newest fencing token
//! per tool. A real agent keeps this where its work is kept, in one transaction with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::behaviour::{Behaviour, Kind, work};
use crate::contract::{Mode, Problem, Run};
use crate::time::Clock;

/// All of it.
pub struct Book {
    pages: Mutex<Pages>,
    releases: watch::Sender<u64>,
}

#[derive(Default)]
struct Pages {
    runs: HashMap<Uuid, Entry>,
    newest_token: HashMap<String, i64>,
    clock: Clock,
}

/// One run.
struct Entry {
    /// The body without what may differ between deliveries.
    same: Value,
    deliveries: u64,
    /// The answer, once the work was begun.
    answer: Option<Value>,
    ready: Ready,
}

/// When the answer may be given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ready {
    /// At once.
    Now,
    /// From then on.
    At(Instant),
    /// After this many releases.
    Released(u64),
}

/// What is to be done with one delivery.
#[derive(Debug)]
pub struct Decision {
    /// How to behave.
    pub kind: Kind,
    /// The answer of the contract; `None` when nothing was done.
    pub answer: Option<Value>,
    /// When to give it.
    pub ready: Ready,
    /// True when this delivery is the one that brought the answer about, by work or by refusing.
    pub first: bool,
    /// True when this delivery changed the world: never for a verify, a refusal, or a delivery that came again.
    pub executed: bool,
    /// 1 for the first delivery of this run; 0 for one that came too late to count.
    pub delivery: u64,
}

impl Decision {
    fn too_late() -> Decision {
        let answer = Some(json!({"status": "refused", "message": "the deadline has passed"}));
        Decision { kind: Kind::Refuse, answer, ready: Ready::Now, first: false, executed: false, delivery: 0 }
    }
}

impl Default for Book {
    fn default() -> Self {
        Book { pages: Mutex::default(), releases: watch::Sender::new(0) }
    }
}

impl Book {
    /// Decides about one delivery, and does the work when it is the first.
    ///
    /// # Errors
    /// 422 for a known key with another body, 409 for a fencing token that is older than the newest seen.
    pub fn take(&self, run: &Run, body: &Value, behaviour: &Behaviour) -> Result<Decision, Problem> {
        let mut pages = self.pages();
        let same = same(body);
        if pages.runs.get(&run.run_id).is_some_and(|entry| entry.same != same) {
            let message = "this Idempotency-Key was used with another body";
            return Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, message.into()));
        }
        // A known run is answered from memory whatever its token and deadline: nothing is done for it any more.
        if pages.runs.get(&run.run_id).is_none_or(|entry| entry.answer.is_none()) {
            // Nothing is begun after the deadline: the caller may have asked for the key since, and been told that it is
            // unknown. Not remembered, since the same run may come again in time.
            let now = pages.clock.now();
            if run.is_late(now) {
                return Ok(Decision::too_late());
            }
            pages.fence(run)?;
        }
        let fresh = || Entry { same, deliveries: 0, answer: None, ready: Ready::Now };
        let entry = pages.runs.entry(run.run_id).or_insert_with(fresh);
        entry.deliveries += 1;
        let kind = behaviour.on(entry.deliveries);
        let first = entry.answer.is_none() && kind.answers();
        let executed = first && kind != Kind::Refuse && run.mode == Mode::Apply;
        if first {
            entry.answer = Some(work(run, kind));
            entry.ready = match kind {
                Kind::Slow | Kind::Accepted => Ready::At(Instant::now() + behaviour.wait),
                Kind::Hold => Ready::Released(*self.releases.borrow() + 1),
                _ => Ready::Now,
            };
        }
        let (answer, ready, delivery) = (entry.answer.clone(), entry.ready, entry.deliveries);
        Ok(Decision { kind, answer, ready, first, executed, delivery })
    }

    /// What is known about a run: its answer and when it may be given. `None`: it was not begun; and if that is said
    /// after the deadline of a delivery, that delivery is never begun.
    pub fn look_up(&self, run_id: Uuid) -> Option<(Value, Ready)> {
        let mut pages = self.pages();
        // Looked at here, so that no later look shows an earlier time than the one of this answer.
        let _ = pages.clock.now();
        pages.runs.get(&run_id).and_then(|entry| Some((entry.answer.clone()?, entry.ready)))
    }

    /// True when the time has come.
    pub fn is_ready(&self, ready: Ready) -> bool {
        match ready {
            Ready::Now => true,
            Ready::At(time) => Instant::now() >= time,
            Ready::Released(count) => *self.releases.borrow() >= count,
        }
    }

    /// Waits for the time to come.
    pub async fn wait(&self, ready: Ready) {
        match ready {
            Ready::Now => {}
            Ready::At(time) => tokio::time::sleep_until(time).await,
            // The sender lives as long as the book, so this cannot fail.
            Ready::Released(count) => drop(self.releases.subscribe().wait_for(|released| *released >= count).await),
        }
    }

    /// Lets all held answers go.
    pub fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Forgets all runs and tokens, and lets held answers go.
    pub fn reset(&self) {
        *self.pages() = Pages::default();
        self.release();
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    /// Fencing: the caller that holds the newest lease wins, and a late one with an older token changes nothing.
    fn fence(&mut self, run: &Run) -> Result<(), Problem> {
        let (Mode::Apply, Some(token)) = (run.mode, run.fencing_token) else { return Ok(()) };
        let newest = self.newest_token.entry(run.dot_code.clone()).or_insert(token);
        if token < *newest {
            return Err(Problem(StatusCode::CONFLICT, format!("fencing token {token} is older than {newest}")));
        }
        *newest = token;
        Ok(())
    }
}

impl Ready {
    /// What to tell a caller that asks too early, in whole seconds.
    pub fn retry_after(self) -> u64 {
        match self {
            Ready::At(time) => time.saturating_duration_since(Instant::now()).min(Duration::from_secs(60)).as_secs(),
            Ready::Now | Ready::Released(_) => 0,
        }
    }
}

/// The body without what describes one delivery: a run that is delivered again has a later attempt and deadline, and
/// perhaps a newer lease.
fn same(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        for name in ["attempt", "deadline", "fencing_token"] {
            fields.remove(name);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(run: u128, token: i64, args: Value) -> Value {
        json!({
            "dot_code": "DOT-1", "mode": "apply", "run_id": Uuid::from_u128(run), "process_run_id": Uuid::from_u128(9),
            "attempt": 1, "args": args, "fencing_token": token, "deadline": "9999-12-31T23:59:59Z",
        })
    }

    fn take(book: &Book, body: &Value) -> Result<Decision, Problem> {
        let run: Run = serde_json::from_value(body.clone()).unwrap();
        book.take(&run, body, &Behaviour::of(&run.args).unwrap())
    }

    #[test]
    fn a_run_is_executed_once_however_often_it_comes() {
        let book = Book::default();
        let first = take(&book, &body(1, 5, json!({}))).unwrap();
        let mut again = body(1, 6, json!({}));
        again["attempt"] = json!(2);
        let second = take(&book, &again).unwrap();
        assert_eq!((first.executed, second.executed, second.delivery), (true, false, 2));
        assert_eq!(first.answer, second.answer);
        assert_eq!(take(&book, &body(1, 5, json!({"other": 1}))).unwrap_err().0, 422);
    }

    #[test]
    fn nothing_begins_after_its_deadline_and_what_has_begun_is_answered() {
        let book = Book::default();
        let with_deadline = |run, deadline: &str| {
            let mut body = body(run, 5, json!({}));
            body["deadline"] = deadline.into();
            body
        };
        let late = take(&book, &with_deadline(1, "2020-01-01T00:00:00Z")).unwrap();
        assert_eq!(late.answer.unwrap()["status"], "refused");
        assert!(!late.executed && book.look_up(Uuid::from_u128(1)).is_none(), "and it is still unknown");
        assert!(take(&book, &with_deadline(1, "9999-01-01T00:00:00Z")).unwrap().executed, "unless it comes in time");
        let again = take(&book, &with_deadline(1, "2020-01-01T00:00:00Z")).unwrap();
        assert_eq!((again.answer.unwrap()["status"].clone(), again.executed), (json!("succeeded"), false));
    }

    #[test]
    fn an_older_token_is_refused_and_a_known_run_is_not() {
        let book = Book::default();
        take(&book, &body(1, 5, json!({}))).unwrap();
        take(&book, &body(2, 6, json!({}))).unwrap();
        assert_eq!(take(&book, &body(3, 5, json!({}))).unwrap_err().0, 409);
        assert!(!take(&book, &body(1, 5, json!({}))).unwrap().executed);
        book.reset();
        assert!(take(&book, &body(3, 5, json!({}))).unwrap().executed);
    }

    #[test]
    fn a_fault_may_pass_and_the_work_is_still_done_once() {
        let book = Book::default();
        let args = json!({"agent": "nothing", "times": 1});
        let first = take(&book, &body(1, 5, args.clone())).unwrap();
        let second = take(&book, &body(1, 5, args)).unwrap();
        assert_eq!((first.kind, first.executed), (Kind::Nothing, true));
        assert_eq!((second.kind, second.executed), (Kind::Succeed, false));
        let args = json!({"agent": "status:503", "times": 1});
        let first = take(&book, &body(2, 5, args.clone())).unwrap();
        let second = take(&book, &body(2, 5, args)).unwrap();
        assert_eq!((first.executed, first.answer), (false, None));
        assert!(second.executed);
    }
}

//! Proves, before each storm, that the checker can find: a story that is in order gives no finding, and each way of
//! spoiling it gives one of the right kind.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::book::{Book, Course, Kept, Received};
use super::check::{self, Facts, Kind};
use super::deeds::Deed;
use super::ledger::{Event, Intent, Ledger, Run};
use super::world::{Asked, Told};

const ID: Uuid = Uuid::from_u128(7);

/// One run, as everybody tells it.
struct Story {
    ledger: Ledger,
    book: Book,
    asked: Vec<Asked>,
}

/// A moment of the story, in milliseconds.
fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
}

fn event(ms: u64, from: Option<&str>, to: &str) -> Event {
    Event { event: to.to_owned(), from: from.map(str::to_owned), to: Some(to.to_owned()), at: at(ms) }
}

fn received(ms: u64, attempt: i64, run: Uuid, token: i64) -> Received {
    Received {
        at: at(ms),
        run,
        attempt,
        mode: "apply".into(),
        key: run.to_string(),
        body: "{}".into(),
        token: Some(token),
        lease_key: Some("tool:ONCE-TOOL".into()),
        deed: Deed::Succeed,
        course: Course::Done,
    }
}

/// Asked for, committed, sent, done, told, settled.
fn good() -> Story {
    let run = Run {
        code: "ONCE-TOOL".into(),
        mode: "apply".into(),
        status: "succeeded".into(),
        reason: String::new(),
        attempts: 1,
        lease_key: Some("tool:ONCE-TOOL".into()),
        finish_by: Some(at(9000)),
        intents: HashMap::from([(1, Intent { at: at(20), token: Some(5) })]),
        events: vec![
            event(0, None, "queued"),
            event(20, Some("queued"), "running"),
            event(50, Some("running"), "succeeded"),
        ],
        queued: None,
    };
    let mut book = Book::default();
    book.received.push(received(30, 1, ID, 5));
    book.runs.insert(ID, Kept { effects: 1, verdict: Some("succeeded"), said_success: true, ..Kept::default() });
    let asked = vec![Asked { run: ID, mode: "apply", told: Told::Committed, at: at(10) }];
    Story { ledger: Ledger::from([(ID, run)]), book, asked }
}

impl Story {
    fn run(&mut self) -> &mut Run {
        self.ledger.get_mut(&ID).expect("the run")
    }

    fn kept(&mut self) -> &mut Kept {
        self.book.runs.get_mut(&ID).expect("the run")
    }

    fn end(&mut self, status: &str) {
        self.run().status = status.to_owned();
        let last = self.run().events.last_mut().expect("events");
        (last.event, last.to) = (status.to_owned(), Some(status.to_owned()));
        self.run().queued = (!check::is_final(status)).then(|| status.to_owned());
    }

    fn vanish(&mut self) {
        self.ledger.clear();
        self.book.received.clear();
    }

    fn second_delivery(&mut self) {
        self.run().attempts = 2;
        self.run().intents.insert(2, Intent { at: at(35), token: Some(5) });
        self.book.received.push(received(40, 2, ID, 5));
    }
}

type Spoil = fn(&mut Story);

const CASES: [(Kind, &str, Spoil); 18] = [
    (Kind::Lost, "gone", Story::vanish),
    (Kind::Lost, "rolled back", |s| s.asked[0].told = Told::RolledBack),
    (Kind::Twice, "sent without a row", |s| s.ledger.clear()),
    (Kind::Twice, "no intent", |s| s.run().intents.clear()),
    (Kind::Twice, "before its intent", |s| s.book.received[0].at = at(19)),
    (Kind::Twice, "one attempt twice", |s| s.book.received.push(received(40, 1, ID, 5))),
    (Kind::Twice, "two attempts", Story::second_delivery),
    (Kind::Twice, "two effects", |s| s.kept().effects = 2),
    (Kind::Twice, "another key", |s| s.book.received[0].key = "other".into()),
    (Kind::Twice, "after the end", |s| s.book.received[0].at = at(60)),
    (Kind::Twice, "too late", |s| s.run().finish_by = Some(at(15) - Duration::from_secs(2))),
    (Kind::Contradiction, "failed and done", |s| s.end("failed")),
    (Kind::Contradiction, "cancelled and sent", |s| s.end("cancelled")),
    (Kind::Contradiction, "never said", |s| s.kept().said_success = false),
    (Kind::Contradiction, "never done", |s| s.kept().effects = 0),
    (Kind::Doubt, "told and in doubt", |s| s.end("in_doubt")),
    (Kind::Inconsistent, "a step left out", |s| drop(s.run().events.remove(1))),
    (Kind::Token, "an older token", |s| s.book.received.push(received(45, 1, Uuid::from_u128(8), 4))),
];

fn find(story: &Story) -> Vec<check::Finding> {
    check::all(Facts { ledger: &story.ledger, book: &story.book, asked: &story.asked, crashes: &[], wrong: &[] })
}

/// All of it; panics when the checker is blind.
pub fn run() {
    let found = find(&good());
    assert!(found.is_empty(), "the checker finds in good order: {}", found[0].what);
    for (kind, what, spoil) in CASES {
        let mut story = good();
        spoil(&mut story);
        assert!(find(&story).iter().any(|finding| finding.kind == kind), "the checker does not find: {what}");
    }
    let mut leave = good();
    leave.second_delivery();
    leave.book.received[0].deed = Deed::Busy;
    let found = find(&leave);
    assert!(found.is_empty(), "the checker knows no leave: {}", found[0].what);
}

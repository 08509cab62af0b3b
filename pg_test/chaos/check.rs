//! Holds the ledger against the agent's record and against what callers were told. Each rule says what would break a
//! promise; none of them knows how the extension keeps it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::book::{Book, Course, Kept, Received};
use super::deeds::Deed;
use super::ledger::{Ledger, Run};
use super::tools;
use super::world::{Asked, Crash, Told};

/// What a finding is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A run that was committed is not there, or one that was rolled back is.
    Lost,
    /// Sent again where that was not allowed, or sent without an intent.
    Twice,
    /// Neither over nor in doubt at the end.
    Stuck,
    /// The ledger says other than what happened.
    Contradiction,
    /// In doubt, though the outcome was told.
    Doubt,
    /// A lease of a run that is over.
    Lease,
    /// Fencing tokens that do not grow.
    Token,
    /// The ledger contradicts itself.
    Inconsistent,
    /// What callers saw that must not be.
    Caller,
    /// The database is damaged.
    Corrupt,
}

/// A broken promise.
pub struct Finding {
    pub kind: Kind,
    pub what: String,
}

/// A commit with synchronous_commit off is on disk this long after it returned.
const PROMISE_KEPT: Duration = Duration::from_secs(2);

/// The gates of a batch come between the look at the clock and the intents, and may take this long on a busy machine.
const GATES: Duration = Duration::from_secs(2);

/// Everything at hand about one run.
struct Case<'a> {
    id: Uuid,
    run: Option<&'a Run>,
    received: Vec<&'a Received>,
    kept: Kept,
    asked: Option<&'a Asked>,
    crashes: &'a [Crash],
}

/// Everything at hand at the end.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub ledger: &'a Ledger,
    pub book: &'a Book,
    pub asked: &'a [Asked],
    pub crashes: &'a [Crash],
    /// What callers saw that must not be.
    pub wrong: &'a [String],
}

/// All rules, for all runs that anybody knows of.
pub fn all(facts: Facts<'_>) -> Vec<Finding> {
    let Facts { ledger, book, asked, crashes, wrong } = facts;
    let mut received: HashMap<Uuid, Vec<&Received>> = HashMap::new();
    for one in &book.received {
        received.entry(one.run).or_default().push(one);
    }
    let told: HashMap<Uuid, &Asked> = asked.iter().map(|asked| (asked.run, asked)).collect();
    let mut ids: Vec<Uuid> = ledger.keys().chain(received.keys()).chain(told.keys()).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::new();
    for id in ids {
        let case = Case {
            id,
            run: ledger.get(&id),
            received: received.remove(&id).unwrap_or_default(),
            kept: book.runs.get(&id).cloned().unwrap_or_default(),
            asked: told.get(&id).copied(),
            crashes,
        };
        let mut say = |kind, what: String| found.push(Finding { kind, what: format!("{what}; {}", case.tell()) });
        case.is_there(&mut say);
        case.matches_its_intents(&mut say);
        case.is_sent_with_leave(&mut say);
        case.ends_as_it_happened(&mut say);
        case.is_in_doubt_for_a_reason(&mut say);
        case.agrees_with_itself(&mut say);
    }
    tokens_grow(book, crashes, &mut found);
    found.extend(wrong.iter().map(|what| Finding { kind: Kind::Caller, what: what.clone() }));
    found
}

type Say<'a> = dyn FnMut(Kind, String) + 'a;

impl Case<'_> {
    /// D1, D2: what was committed is there, what was rolled back is not, and only what is there was sent.
    fn is_there(&self, say: &mut Say<'_>) {
        if self.run.is_none() && !self.received.is_empty() {
            say(Kind::Twice, "it was sent and is not in the ledger".into());
        }
        match (self.asked.map(|asked| asked.told), self.run) {
            (Some(Told::Committed), None) => say(Kind::Lost, "COMMIT returned, and it is gone".into()),
            (Some(Told::Promised), None) if !self.crashed_soon() => {
                say(Kind::Lost, "COMMIT returned long before the next crash, and it is gone".into());
            }
            (Some(Told::RolledBack), Some(_)) => say(Kind::Lost, "it was rolled back, and it is there".into()),
            _ => {}
        }
    }

    fn crashed_soon(&self) -> bool {
        self.asked.is_some_and(|asked| {
            let late = asked.at + PROMISE_KEPT;
            self.crashes.iter().any(|crash| crash.whole && crash.began <= late && crash.accepts >= asked.at)
        })
    }

    /// D3: each request matches exactly one intent.
    fn matches_its_intents(&self, say: &mut Say<'_>) {
        let Some(run) = self.run else { return };
        let mut seen: HashMap<i64, u32> = HashMap::new();
        for request in &self.received {
            *seen.entry(request.attempt).or_default() += 1;
            match run.intents.get(&request.attempt) {
                None => say(Kind::Twice, format!("attempt {} was sent without an intent", request.attempt)),
                Some(intent) if intent.at > request.at => {
                    say(Kind::Twice, format!("attempt {} was sent before its intent", request.attempt));
                }
                Some(intent) if intent.token != request.token => {
                    say(
                        Kind::Token,
                        format!("attempt {} was sent with another token than its intent's", request.attempt),
                    );
                }
                Some(_) => {}
            }
        }
        for (attempt, times) in seen.into_iter().filter(|(_, times)| *times > 1) {
            say(Kind::Twice, format!("attempt {attempt} was sent {times} times"));
        }
    }

    /// A1, A2, A6: again only with leave, always the same, and never after its end.
    fn is_sent_with_leave(&self, say: &mut Say<'_>) {
        let Some(run) = self.run else { return };
        let tool = tools::find(&run.code);
        if run.mode == "apply" && tool.is_some_and(|tool| !tool.idempotent) {
            for pair in self.received.windows(2).filter(|pair| !self.has_leave(pair[0], pair[1])) {
                say(Kind::Twice, format!("it was sent again after attempt {} ({:?})", pair[0].attempt, pair[0].deed));
            }
        }
        if tool.is_some_and(|tool| run.attempts > tool.max_attempts) {
            say(Kind::Twice, format!("it has {} attempts", run.attempts));
        }
        if run.intents.values().any(|intent| run.finish_by.is_some_and(|by| intent.at > by + GATES)) {
            say(Kind::Twice, "an attempt began after the time by which the run was to be finished".into());
        }
        if self.kept.effects > 1 {
            say(Kind::Twice, format!("it was done {} times", self.kept.effects));
        }
        if let Some(odd) =
            self.received.iter().find(|r| r.key != self.id.to_string() || r.body != self.received[0].body)
        {
            say(Kind::Twice, format!("attempt {} had another key or body", odd.attempt));
        }
        let end = run.events.iter().find(|event| event.to.as_deref().is_some_and(is_final)).map(|event| event.at);
        if let Some(late) = self.received.iter().find(|request| end.is_some_and(|end| request.at > end))
            && !self.crashes.iter().any(|crash| crash.began <= late.at && late.at <= crash.accepts)
        {
            say(Kind::Twice, format!("attempt {} was sent after the end", late.attempt));
        }
    }

    /// A second delivery where the first one had no effect for certain: the agent said so, or said later that it had
    /// never heard of it.
    fn has_leave(&self, first: &Received, second: &Received) -> bool {
        let unknown = self.kept.said_unknown.iter().any(|at| first.at < *at && *at < second.at);
        first.deed.says_untaken() || (unknown && !first.deed.takes())
    }

    /// The end in the ledger is what happened at the agent.
    fn ends_as_it_happened(&self, say: &mut Say<'_>) {
        let Some(run) = self.run else { return };
        let unsent = matches!(run.status.as_str(), "cancelled" | "expired" | "refused");
        if unsent && !self.received.is_empty() {
            say(Kind::Contradiction, format!("it is {}, and was sent", run.status));
        }
        if run.mode == "apply" && run.status == "failed" && self.kept.effects > 0 {
            say(Kind::Contradiction, "it has failed, and the agent did it".into());
        }
        if run.status == "succeeded" && run.reason != "resolved" && !self.kept.said_success {
            say(Kind::Contradiction, "it has succeeded, and the agent never said so".into());
        }
        if run.status == "succeeded" && run.mode == "apply" && self.kept.effects == 0 {
            say(Kind::Contradiction, "it has succeeded, and the agent never did it".into());
        }
    }

    /// Where the agent has told and nobody died before it could be written down, there is no doubt.
    fn is_in_doubt_for_a_reason(&self, say: &mut Say<'_>) {
        let Some(run) = self.run.filter(|run| run.status == "in_doubt") else { return };
        let since = run.events.iter().rev().find(|event| event.to.as_deref() == Some("in_doubt")).map(|event| event.at);
        let last = run.intents.values().map(|intent| intent.at).max();
        let (Some(since), Some(last)) = (since, last) else {
            return say(Kind::Inconsistent, "it is in doubt without an intent".into());
        };
        let died = self.crashes.iter().any(|crash| crash.began <= since && crash.accepts >= last);
        let clear = |request: &&&Received| request.course == Course::Done && request.deed.is_clear();
        let cancelled = run.events.iter().any(|event| event.event == "cancel_requested") || run.reason == "cancelled";
        if !died
            && !cancelled
            && run.reason != "lease_lost"
            && self.received.iter().max_by_key(|request| request.attempt).as_ref().is_some_and(clear)
        {
            say(Kind::Doubt, "it is in doubt, the agent answered, and nobody died".into());
        }
        if run.reason == "worker_lost" && !died {
            say(Kind::Doubt, "its worker is said to be lost, and was not".into());
        }
    }

    /// Events, attempts and queue say the same as the row.
    fn agrees_with_itself(&self, say: &mut Say<'_>) {
        let Some(run) = self.run else { return };
        let mut at: Option<&str> = None;
        for event in run.events.iter().filter(|event| event.to.is_some()) {
            if event.from.as_deref() != at {
                say(Kind::Inconsistent, format!("event {} leaves {:?}, and it was {at:?}", event.event, event.from));
            }
            if at.is_some_and(is_final) {
                say(Kind::Inconsistent, format!("{} came after the end", event.event));
            }
            at = event.to.as_deref();
        }
        if at != Some(run.status.as_str()) {
            say(Kind::Inconsistent, format!("its events end with {at:?}"));
        }
        if run.attempts != run.intents.len() as i64 {
            say(Kind::Inconsistent, format!("it counts {} attempts and has {}", run.attempts, run.intents.len()));
        }
        let queued = (!is_final(&run.status)).then_some(run.status.as_str());
        if run.queued.as_deref() != queued {
            say(Kind::Inconsistent, format!("the queue says {:?}", run.queued));
        }
    }

    /// The whole story in one line.
    fn tell(&self) -> String {
        let mut story: Vec<(SystemTime, String)> = Vec::new();
        story.extend(self.asked.map(|asked| (asked.at, format!("caller was told {:?}", asked.told))));
        for request in &self.received {
            let what = format!("received attempt {} ({:?} {:?})", request.attempt, request.deed, request.course);
            story.push((request.at, what));
        }
        if let Some(run) = self.run {
            story.extend(run.events.iter().map(|event| (event.at, event.event.clone())));
            let intents = run.intents.iter();
            story.extend(intents.map(|(attempt, intent)| (intent.at, format!("intent {attempt}"))));
        }
        let (first, last) = (story.iter().map(|(at, _)| *at).min(), story.iter().map(|(at, _)| *at).max());
        let crashes = self.crashes.iter().filter(|crash| Some(crash.accepts) >= first && Some(crash.began) <= last);
        story.extend(
            crashes.flat_map(|crash| [(crash.began, crash.kind.to_owned()), (crash.accepts, "server is back".into())]),
        );
        story.sort_by_key(|(at, _)| *at);
        let since = |at: SystemTime| at.duration_since(story[0].0).unwrap_or_default().as_millis();
        let lines: Vec<String> = story.iter().map(|(at, what)| format!("{} {what}", since(*at))).collect();
        let row = self.run.map_or("no row".to_owned(), |run| {
            let lease = run.lease_key.as_deref().unwrap_or("no lease");
            format!("{} {} {} ({}), {lease}", run.code, run.mode, run.status, run.reason)
        });
        let mode = self.asked.map_or("", |asked| asked.mode);
        format!("{} {mode} [{row}] effects {} | {}", self.id, self.kept.effects, lines.join(" | "))
    }
}

/// Whether a state is the end.
pub fn is_final(status: &str) -> bool {
    !matches!(status, "queued" | "running" | "in_doubt")
}

/// L2: for each lease, tokens grow in the order of requests. One that comes late of a worker that died is fenced off.
fn tokens_grow(book: &Book, crashes: &[Crash], found: &mut Vec<Finding>) {
    let mut newest: HashMap<&str, &Received> = HashMap::new();
    for request in &book.received {
        let Some(key) = request.lease_key.as_deref() else { continue };
        let Some(before) = newest.get(key) else {
            newest.insert(key, request);
            continue;
        };
        let died = |crash: &&Crash| crash.accepts >= before.at && crash.began <= request.at;
        let older = request.token < before.token || (request.token == before.token && request.run != before.run);
        if older && crashes.iter().find(died).is_none() {
            let what = format!(
                "lease {key}: run {} came with token {:?} after {:?}",
                request.run, request.token, before.token
            );
            found.push(Finding { kind: Kind::Token, what });
        }
        if request.token >= before.token {
            newest.insert(key, request);
        }
    }
}

/// For the report: what the agent did, by behaviour.
pub fn deeds(book: &Book) -> Vec<(Deed, usize)> {
    let mut counts: HashMap<Deed, usize> = HashMap::new();
    for request in &book.received {
        *counts.entry(request.deed).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

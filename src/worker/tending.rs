//! What a worker looks after from time to time, whatever else it does: leases that are to be renewed or let go, rows of the
//! request table that are behind the ledger, attempts that no worker has, runs in doubt, and anything that nobody has told of. It is
//! the one transaction that a worker without work has in each poll interval.
//!
//! Lives here: when. Does not live here: what is done about it.

use std::time::{Duration, Instant};

use super::context::Context;
use super::retry::Retry;
use super::turn::{self, Trouble};
use crate::domain::error::DotError;
use crate::guc;
use crate::pg::session;
use crate::run::leases;
use crate::store::idle::{self, Seen};
use crate::store::{attempt, extension, grant, mirror, port, queue};

/// No more often than this, however busy the worker is.
pub const TEND_EVERY: Duration = Duration::from_secs(1);

/// A step that took long is taken again no sooner than so many times that later, if that is sooner than [`AT_LEAST_EVERY`]: it is
/// a tenth of the worker's time.
const REST: u32 = 9;
/// A third of the shortest lease that a policy can set.
const AT_LEAST_EVERY: Duration = Duration::from_secs(3);
/// Grants are looked for from the first one after so many times what that took: those that a long transaction has brought late. So
/// are calls of workers that are no more. With an old snapshot about, there may be more that is over than that is not.
const WHOLE: u32 = 50;
/// Seconds. Of grants that are there no sooner one is due, but for what is rounded.
const ROUNDED: f64 = 0.001;

/// When it was, and when it will be.
pub struct Tending {
    at: Instant,
    /// No grant before this wanted anything, in seconds since 1970, the last time that all were looked at.
    from: f64,
    /// When all are to be looked at again.
    whole_at: Instant,
    /// When the request table was last compared with the ledger.
    caught_up_at: Option<Instant>,
    /// Something has happened since then, or is about to.
    has_news: bool,
    retry: Retry,
    catching_up: Retry,
}

/// What there is to do for others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Attempts of workers that are no more.
    pub orphans: bool,
    /// Runs in doubt that it is time to ask about.
    pub doubts: bool,
    /// What nobody may have told of.
    pub seen: Seen,
}

struct Tended {
    found: Found,
    more: bool,
    due: Option<Duration>,
    /// Where the next look may begin, and what this one took.
    from: f64,
    cost: Duration,
}

impl Tending {
    /// Due at once.
    pub fn start() -> Tending {
        Tending {
            at: Instant::now(),
            from: f64::NEG_INFINITY,
            whole_at: Instant::now(),
            caught_up_at: None,
            has_news: true,
            retry: Retry::new("tending leases"),
            catching_up: Retry::new("catching up with dot_run_request"),
        }
    }

    /// After so long at the latest.
    pub fn by(&mut self, wait: Duration) {
        self.at = self.at.min(Instant::now() + wait.max(TEND_EVERY));
    }

    /// As [`Tending::by`], since there is work, which may leave the request table behind.
    pub fn notice(&mut self, wait: Duration) {
        self.by(wait);
        self.has_news = true;
    }

    /// Whether it is time.
    pub fn is_due(&self) -> bool {
        self.retry.is_due() && Instant::now() >= self.at
    }

    /// How long until it is due.
    pub fn wait(&self, now: Instant) -> Duration {
        self.retry.wait(self.at, now)
    }

    /// Does what is due. `is_quiet`: nobody has told of anything, be there calls that are out or not.
    pub fn step(&mut self, context: &Context, is_quiet: bool) -> Result<Found, Trouble> {
        if mirror::has_missed() {
            self.by(TEND_EVERY);
        }
        if !self.is_due() {
            return Ok(Found::default());
        }
        let now = Instant::now();
        let mut found = Found::default();
        let outcome = self.tend(context, now, is_quiet).map(|looked| found = looked);
        self.retry.note(outcome)?;
        self.has_news |= found.seen.runs || found.seen.unsealed;
        let is_time = self.caught_up_at.is_none_or(|at| now >= at + guc::poll_interval());
        if self.catching_up.is_due() && (mirror::has_missed() || (self.has_news && is_time)) {
            let outcome = self.catch_up(context, now);
            self.catching_up.note(outcome)?;
        }
        Ok(found)
    }

    fn tend(&mut self, context: &Context, now: Instant, is_quiet: bool) -> Result<Found, Trouble> {
        let (poll, worker) = (guc::poll_interval(), context.identity);
        let is_whole = now >= self.whole_at;
        let from = if is_whole { f64::NEG_INFINITY } else { self.from };
        let tended = turn::transaction(context, c"tending leases", |_| {
            if !extension::instance(session::system_identifier())?.is_here {
                return Ok(None);
            }
            let (mut tended, due_in_ms) = grants(from)?;
            tended.due = turn::sooner(due_in_ms, queue::due_in_ms()?);
            let found = &mut tended.found;
            if is_whole {
                let begun = Instant::now();
                found.orphans = attempt::has_orphans(worker)?;
                tended.cost += begun.elapsed();
            }
            found.doubts = attempt::has_doubts()?;
            if is_quiet {
                found.seen = idle::look()?;
            }
            Ok(Some(tended))
        })?;
        let Some(tended) = tended else {
            self.at = now + poll;
            return Ok(Found::default());
        };
        self.from = tended.from;
        if is_whole {
            self.whole_at = now + tended.cost * WHOLE;
        }
        let rest = (now.elapsed() * REST).clamp(TEND_EVERY, AT_LEAST_EVERY);
        let next = tended.due.unwrap_or(poll).max(rest).min(poll);
        self.at = now + if tended.more { Duration::ZERO } else { next };
        Ok(tended.found)
    }

    /// In a transaction of its own: what an administrator's trigger does there must not hold up the leases.
    fn catch_up(&mut self, context: &Context, now: Instant) -> Result<(), Trouble> {
        let complaint = turn::transaction(context, c"catching up with dot_run_request", |_| {
            let is_here = extension::instance(session::system_identifier())?.is_here;
            if is_here { mirror::catch_up() } else { Ok(None) }
        })?;
        if let Some(text) = complaint {
            return Err(Trouble::Failed { sqlstate: "55000".to_owned(), text });
        }
        (self.caught_up_at, self.has_news) = (Some(now), false);
        Ok(())
    }
}

/// Does what is due of the grants that want something no sooner than `from`; and how soon the next one does, in milliseconds.
fn grants(from: f64) -> Result<(Tended, Option<f64>), DotError> {
    let begun = Instant::now();
    let before = grant::next_due(from)?;
    let cost = begun.elapsed();
    // All before it are over; the next looks begin there. What is as old as time itself has no number.
    let from = match before.first.map_or(before.now, |first| first.min(before.now)) - ROUNDED {
        from if from > 0.0 => from,
        _ => f64::NEG_INFINITY,
    };
    let (mut more, mut after) = (false, before);
    if before.in_ms().is_some_and(|due| due <= 0.0) {
        more = leases::tend(&port::load()?, from)?;
        after = grant::next_due(from)?;
    }
    Ok((Tended { found: Found::default(), more, due: None, from, cost }, after.in_ms()))
}

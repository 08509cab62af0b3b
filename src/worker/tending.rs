//! What a worker looks after from time to time, whatever else it does: leases that are to be renewed or let go, rows of the
//! request table that are behind the ledger, attempts that no worker has, runs in doubt.
//!
//! Lives here: when. Does not live here: what is done about it.

use std::time::{Duration, Instant};

use super::context::Context;
use super::retry::Retry;
use super::turn::{self, Trouble};
use crate::guc;
use crate::pg::session;
use crate::run::leases;
use crate::store::{attempt, extension, grant, mirror, port, queue};

/// No more often than this, however busy the worker is.
pub const TEND_EVERY: Duration = Duration::from_secs(1);

/// When it was, and when it will be.
pub struct Tending {
    at: Instant,
    /// When the request table was last compared with the ledger.
    caught_up_at: Option<Instant>,
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
}

struct Tended {
    found: Found,
    more: bool,
    due: Option<Duration>,
}

impl Tending {
    /// Due at once.
    pub fn start() -> Tending {
        Tending {
            at: Instant::now(),
            caught_up_at: None,
            retry: Retry::new("tending leases"),
            catching_up: Retry::new("catching up with dot_run_request"),
        }
    }

    /// After so long at the latest.
    pub fn by(&mut self, wait: Duration) {
        self.at = self.at.min(Instant::now() + wait.max(TEND_EVERY));
    }

    /// How long until it is due.
    pub fn wait(&self, now: Instant) -> Duration {
        self.retry.wait(self.at, now)
    }

    /// Does what is due.
    pub fn step(&mut self, context: &Context) -> Result<Found, Trouble> {
        if mirror::has_missed() {
            self.by(TEND_EVERY);
        }
        let now = Instant::now();
        if !self.retry.is_due() || now < self.at {
            return Ok(Found::default());
        }
        let mut found = Found::default();
        let outcome = self.tend(context, now).map(|looked| found = looked);
        self.retry.note(outcome)?;
        if self.catching_up.is_due()
            && (mirror::has_missed() || self.caught_up_at.is_none_or(|at| now >= at + guc::poll_interval()))
        {
            let outcome = self.catch_up(context, now);
            self.catching_up.note(outcome)?;
        }
        Ok(found)
    }

    fn tend(&mut self, context: &Context, now: Instant) -> Result<Found, Trouble> {
        let (poll, worker) = (guc::poll_interval(), context.identity);
        let tended = turn::transaction(context, c"tending leases", |_| {
            if !extension::instance(session::system_identifier())?.is_here {
                return Ok(Tended { found: Found::default(), more: false, due: None });
            }
            let mut more = false;
            if grant::due_in_ms()?.is_some_and(|due| due <= 0.0) {
                more = leases::tend(&port::load()?)?;
            }
            let due = turn::sooner(grant::due_in_ms()?, queue::due_in_ms()?);
            let found = Found { orphans: attempt::has_orphans(worker)?, doubts: attempt::has_doubts()? };
            Ok(Tended { found, more, due })
        })?;
        let next = tended.due.unwrap_or(poll).clamp(TEND_EVERY, poll);
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
        self.caught_up_at = Some(now);
        Ok(())
    }
}

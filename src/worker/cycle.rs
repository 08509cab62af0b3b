//! One database's worker at work: recover, then take turns of collect, settle, claim, send, tend, wait.
//!
//! Lives here: the order of a turn and when the next one is due. Does not live here: what happens inside a transaction
//! (`run`), or the calls that are out (`calls`). No transaction is open while this waits or while a call is out.

use std::time::{Duration, Instant};

use super::calls::Calls;
use super::context::{Context, Ended};
use super::turn::{self, Trouble};
use crate::guc;
use crate::pg::{latch, session, signals};
use crate::run::{claim, leases, recover, usage};
use crate::store::{attempt, grant, port, queue};

/// Runs claimed in one transaction. Larger batches save commits, smaller ones bound what a crash leaves in doubt.
const BATCH: usize = 200;
/// Between tries of something that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Leases and counters are looked at no more often than this, however busy the worker is.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// Works until the extension is gone or somebody needs the database.
pub fn run(context: &Context) -> Ended {
    let mut worker = Worker {
        context,
        calls: Calls::start(context.identity),
        recovering: true,
        look: true,
        tend_at: Instant::now(),
        pay_at: None,
        pay_pause: RETRY,
        pause: None,
    };
    loop {
        match worker.turn() {
            Ok(wait) => worker.wait(wait),
            Err(Trouble::NoExtension) => return Ended::NoExtension,
            Err(Trouble::Left) => return Ended::Left,
            Err(Trouble::Failed(error)) => worker.stumble(&error),
        }
    }
}

struct Worker<'a> {
    context: &'a Context,
    calls: Calls,
    /// What a dead worker left is not yet taken care of; nothing new is claimed before.
    recovering: bool,
    /// There may be something to claim.
    look: bool,
    tend_at: Instant,
    /// When the catalogue's counters are to be moved; `None` when nothing is owed.
    pay_at: Option<Instant>,
    pay_pause: Duration,
    /// Set after a failure: how long to wait next time.
    pause: Option<Duration>,
}

impl Worker<'_> {
    /// One turn; how long may be waited for the next.
    fn turn(&mut self) -> Result<Duration, Trouble> {
        if signals::reload_config_if_asked() {
            self.calls.reconfigure();
            self.look = true;
        }
        self.collect()?;
        if self.context.must_leave() {
            return self.leave();
        }
        if self.context.take_wake() {
            self.look = true;
        }
        if self.recovering {
            self.recover()?;
        } else {
            self.claim()?;
        }
        self.pay();
        let due = self.tend()?;
        self.pause = None;
        Ok(if self.recovering { Duration::ZERO } else { due })
    }

    /// Claims nothing more, and leaves once the calls that are out have ended. Who cannot wait for that sends SIGTERM,
    /// and what was out is in doubt.
    fn leave(&mut self) -> Result<Duration, Trouble> {
        if self.calls.in_flight() == 0 {
            self.pay();
            return Err(Trouble::Left);
        }
        Ok(TEND_EVERY)
    }

    fn collect(&mut self) -> Result<(), Trouble> {
        if self.calls.collect(self.context)? {
            self.pay_at.get_or_insert_with(Instant::now);
            self.look = true;
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<(), Trouble> {
        let found = turn::transaction(self.context, c"recovering", |extension| {
            recover::recover(extension, self.context.identity)
        })?;
        if found.doubted > 0 {
            pgrx::log!("dot_wrapper: {} runs of a worker that is gone have an unknown outcome", found.doubted);
            self.pay_at.get_or_insert_with(Instant::now);
        }
        for (delivery, status_url) in found.resumed {
            self.calls.resume(delivery, &status_url);
        }
        self.recovering = found.more;
        Ok(())
    }

    /// Claims while there is room, and hands the calls over only after the intents are committed.
    fn claim(&mut self) -> Result<(), Trouble> {
        let room = guc::max_in_flight().saturating_sub(self.calls.in_flight()).min(BATCH);
        if !self.look || room == 0 {
            return Ok(());
        }
        let claimed = turn::transaction(self.context, c"claiming", |extension| {
            claim::claim(extension, self.context.identity, room)
        })?;
        // A full batch, or one in which runs were refused, may not have been all.
        self.look = claimed.seen == room;
        for delivery in claimed.deliveries {
            self.calls.submit(delivery);
        }
        Ok(())
    }

    /// Renews and releases leases when due; when the next look at anything is due.
    fn tend(&mut self) -> Result<Duration, Trouble> {
        let poll = guc::poll_interval();
        let room = self.calls.in_flight() < guc::max_in_flight();
        if self.look && room && !self.recovering {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        if now >= self.tend_at {
            let worker = self.context.identity;
            let (more, due, orphans) = turn::transaction(self.context, c"tending leases", |_| {
                let mut more = false;
                if grant::due_in_ms()?.is_some_and(|due| due <= 0.0) {
                    more = leases::tend(&port::load()?)?;
                }
                let due = turn::sooner(grant::due_in_ms()?, queue::due_in_ms()?);
                Ok((more, due, attempt::has_orphans(worker)?))
            })?;
            let next = due.unwrap_or(poll).clamp(TEND_EVERY, poll);
            self.tend_at = now + if more { Duration::ZERO } else { next };
            // A dump that was restored under a living worker brings attempts of workers that never were here.
            self.recovering |= orphans;
        }
        let mut wait = self.tend_at.saturating_duration_since(now);
        if let Some(pay_at) = self.pay_at {
            wait = wait.min(pay_at.saturating_duration_since(now));
        }
        Ok(wait.min(poll))
    }

    /// Moves the catalogue's counters. A failure is the catalogue owner's affair: it is logged, and tried again later.
    fn pay(&mut self) {
        if self.pay_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match turn::transaction(self.context, c"counting executions", usage::pay) {
            Ok(_) => (self.pay_at, self.pay_pause) = (None, RETRY),
            Err(Trouble::Failed(error)) => {
                pgrx::log!("dot_wrapper: usage_count and last_executed are not moved yet: {error}");
                self.pay_at = Some(Instant::now() + self.pay_pause);
                self.pay_pause = (self.pay_pause * 2).min(RETRY_MAX);
            }
            // Found again, and acted upon, by the next transaction.
            Err(Trouble::NoExtension | Trouble::Left) => self.pay_at = None,
        }
    }

    fn wait(&mut self, timeout: Duration) {
        if timeout > TEND_EVERY {
            session::report_statistics(true);
        }
        let woken = latch::wait(Some(self.calls.descriptor()), timeout);
        if woken.timeout {
            self.look = true;
        }
    }

    /// A turn failed: say so, wait a little longer each time, and go on. What was in hand is kept.
    fn stumble(&mut self, error: &str) {
        let pause = self.pause.map_or(RETRY, |pause| (pause * 2).min(RETRY_MAX));
        pgrx::warning!("dot_wrapper: {error}; the next try is in {} s", pause.as_secs());
        self.look = true;
        self.pause = Some(pause);
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.context.must_leave() {
            latch::wait(None, until.saturating_duration_since(Instant::now()));
        }
    }
}

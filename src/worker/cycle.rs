//! One database's worker at work: recover, then take turns of collect, settle, claim, send, tend, wait.
//!
//! Lives here: the order of a turn and when the next one is due. Does not live here: what happens inside a transaction
//! (`run`), or the calls that are out (`calls`). No transaction is open while this waits or while a call is out. The
//! steps of a turn are independent: one that fails waits for its next try, and the others go on.

use std::time::{Duration, Instant};

use super::calls::Calls;
use super::context::{Context, Ended};
use super::jobs::Jobs;
use super::recovery::Recovery;
use super::rest::Rest;
use super::retry::Retry;
use super::sealing::Sealing;
use super::tending::{TEND_EVERY, Tending};
use super::turn::{self, Trouble};
use crate::guc;
use crate::pg::fail_point::{self, Point};
use crate::pg::{latch, open_files, session, signals};
use crate::run::careful::{self, Next};
use crate::run::claim::{self, Claimed, Pick};
use crate::run::pick::Memory;
use crate::run::{inquire, usage, watch};
use crate::store::{attempt, queue, worker_life};

/// Runs claimed in one transaction. Larger batches save commits, smaller ones bound what a crash leaves in doubt.
const BATCH: usize = 500;
/// And no later than this after work has come in: a third of the shortest lease that a policy can set.
const TEND_NEW: Duration = Duration::from_secs(3);
/// How long a call may begin to send after the toggle was seen on. A toggle that is turned off stops what is new within this.
const OPEN_FOR: Duration = Duration::from_millis(900);
/// How old that sight may be before it is renewed, while calls wait for their connections.
const LOOK_AGAIN: Duration = Duration::from_millis(400);
/// The catalogue's counters are moved no more often than this: while somebody has an old snapshot, each move leaves rows behind
/// that all who look a tool up have to pass.
const PAY_EVERY: Duration = Duration::from_secs(1);
/// How long a worker whose predecessor died takes up one run at a time, unless it has seen the end of the queue before.
const CAREFUL: Duration = Duration::from_secs(30);

/// Works until the extension is gone or somebody needs the database.
pub fn run(context: &Context) -> Ended {
    open_files::raise();
    // Before there is another thread.
    let rest = Rest::start();
    let now = Instant::now();
    let mut worker = Worker {
        context,
        calls: Calls::start(context.identity),
        memory: Memory::default(),
        sealing: Sealing::start(),
        recovery: Recovery::start(),
        jobs: Jobs::start(),
        rest,
        careful_until: None,
        look: true,
        quiet: false,
        look_at: None,
        open_at: None,
        doubts: true,
        // A worker before this one may have left something to count.
        pay_at: Some(now),
        paid_at: None,
        collecting: Retry::new("recording results"),
        claiming: Retry::new("claiming"),
        tending: Tending::start(),
        paying: Retry::new("moving usage_count and last_executed"),
        watching: Retry::new("looking at the master toggle"),
        inquiring: Retry::new("asking about runs in doubt"),
    };
    loop {
        match worker.turn() {
            Ok(wait) => worker.wait(wait),
            Err(Trouble::NoExtension) => return Ended::NoExtension,
            Err(Trouble::Left | Trouble::Failed { .. }) => return Ended::Left,
        }
    }
}

struct Worker<'a> {
    context: &'a Context,
    calls: Calls,
    /// What is out, and how far the queue has been emptied.
    memory: Memory,
    sealing: Sealing,
    recovery: Recovery,
    jobs: Jobs,
    rest: Rest,
    /// Until then one run at a time: the worker before this one died.
    careful_until: Option<Instant>,
    /// There may be something to claim.
    look: bool,
    /// The last wait was to its end: nobody has told of anything.
    quiet: bool,
    /// When the next run that waits for its time may be claimed.
    look_at: Option<Instant>,
    /// When the toggle was last seen on.
    open_at: Option<Instant>,
    /// There may be runs in doubt that it is time to ask about.
    doubts: bool,
    /// When the catalogue's counters are to be moved; `None` when nothing is owed.
    pay_at: Option<Instant>,
    paid_at: Option<Instant>,
    collecting: Retry,
    claiming: Retry,
    tending: Tending,
    paying: Retry,
    watching: Retry,
    inquiring: Retry,
}

impl Worker<'_> {
    /// One turn; how long may be waited for the next. `Trouble::Failed` does not leave this function.
    fn turn(&mut self) -> Result<Duration, Trouble> {
        if signals::reload_config_if_asked() {
            self.calls.reconfigure();
            self.memory.forget();
            self.look = true;
        }
        if self.collecting.is_due() {
            let outcome = self.collect();
            self.collecting.note(outcome)?;
        }
        if self.context.must_leave() {
            return self.leave();
        }
        if self.context.take_wake() {
            self.look = true;
            self.jobs.notice();
            self.sealing.notice();
            self.tending.notice(TEND_NEW);
        }
        // Before the claim, so that what becomes a run goes out in the same turn.
        if self.jobs.step(self.context)? {
            self.look = true;
            self.sealing.notice();
            self.tending.notice(TEND_NEW);
        }
        self.look |= self.look_at.take_if(|at| Instant::now() >= *at).is_some();
        if self.claiming.is_due() {
            let outcome = if self.recovery.pending { self.recover() } else { self.claim() };
            self.claiming.note(outcome)?;
        }
        if self.watching.is_due() {
            let outcome = self.watch();
            self.watching.note(outcome)?;
        }
        if self.paying.is_due() {
            let outcome = self.pay();
            self.paying.note(outcome)?;
        }
        self.tend()?;
        if self.inquiring.is_due() {
            let outcome = self.inquire();
            self.inquiring.note(outcome)?;
        }
        let is_busy = self.look || self.calls.has_results() || self.calls.in_flight() > 0;
        self.sealing.step(self.context, is_busy)?;
        Ok(self.next_turn())
    }

    /// Claims nothing more, and leaves once the calls that are out have ended. Who cannot wait for that sends SIGTERM,
    /// and what was out is in doubt.
    fn leave(&mut self) -> Result<Duration, Trouble> {
        if self.calls.in_flight() == 0 {
            self.pay_at = self.pay_at.map(|_| Instant::now());
            let outcome = self.pay();
            self.paying.note(outcome)?;
            self.sealing.finish(self.context)?;
            let (worker, what) = (self.context.identity, c"leaving");
            turn::transaction(self.context, what, |_| worker_life::end(worker))?;
            return Err(Trouble::Left);
        }
        if self.watching.is_due() {
            let outcome = self.watch();
            self.watching.note(outcome)?;
        }
        if self.context.take_wake() {
            let worker = self.context.identity;
            let withdrawn = turn::transaction(self.context, c"looking for cancels", |_| attempt::withdrawn(worker))?;
            self.calls.withdraw(&withdrawn);
        }
        // What is out keeps its lease to the end.
        self.tend()?;
        Ok(TEND_EVERY)
    }

    fn collect(&mut self) -> Result<(), Trouble> {
        if self.calls.collect(self.context, &mut self.memory)? {
            self.owe();
            self.look = true;
            self.jobs.notice();
            self.sealing.notice();
            self.rest.note_work();
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<(), Trouble> {
        let found = self.recovery.step(self.context, &mut self.calls, &mut self.memory)?;
        if found.died {
            self.careful_until = Some(Instant::now() + CAREFUL);
        }
        if found.lost > 0 {
            self.owe();
        }
        self.jobs.notice();
        self.sealing.notice();
        Ok(())
    }

    /// Claims while there is room, and hands the calls over only after the intents are committed. Looks for calls to close
    /// even when there is no room.
    fn claim(&mut self) -> Result<(), Trouble> {
        let room = self.room().min(BATCH);
        if !self.look {
            return Ok(());
        }
        let pick = self.next_careful(room)?;
        let (asked, worker) = (Instant::now(), self.context.identity);
        let memory = &mut self.memory;
        let claimed = turn::transaction(self.context, c"claiming", |extension| {
            fail_point::at(Point::ClaimBegun, "");
            claim::claim(extension, memory, worker, pick)
        });
        let mut claimed = match claimed {
            Ok(claimed) => claimed,
            Err(trouble) => {
                self.memory.failed();
                if let (Trouble::Failed { .. }, Pick::Only(run_id)) = (&trouble, pick) {
                    // An error is not a death: the note that was made before is taken back.
                    turn::transaction(self.context, c"claiming one by one", |_| queue::unmark(run_id))?;
                }
                return Err(trouble);
            }
        };
        fail_point::each(Point::ClaimAfterCommit, claimed.deliveries.iter().map(|delivery| delivery.code.as_str()));
        let more = self.memory.committed(claimed.sight.take(), &claimed.held, &claimed.parked);
        // Who is refused leaves room for another, and no end of a call will tell of it.
        self.look = (more || claimed.gone > 0) && !claimed.suspended && !matches!(pick, Pick::UpTo(0));
        self.send(claimed, asked)
    }

    fn send(&mut self, claimed: Claimed, asked: Instant) -> Result<(), Trouble> {
        self.calls.withdraw(&claimed.withdrawn);
        let due = claimed.due.map(|due| Instant::now() + due);
        // What has come already was looked at, or waits for room: a call that ends brings the next look.
        let next_due = self.memory.next_due().filter(|at| *at > asked);
        self.look_at = due.into_iter().chain(next_due).min();
        if claimed.seen > 0 {
            self.jobs.notice();
            self.sealing.notice();
        }
        if let Some(soonest) = claimed.deliveries.iter().map(|d| d.terms.policy.lease_ttl_s / 3).min() {
            self.tending.by(Duration::from_secs(u64::try_from(soonest).unwrap_or(1)));
            self.open_at = Some(asked);
            self.calls.allow_until(asked + OPEN_FOR);
            if asked.elapsed() >= LOOK_AGAIN {
                // Gates that took long have told about a moment that is past.
                let outcome = self.renew();
                self.watching.note(outcome)?;
            }
        }
        for delivery in claimed.deliveries {
            self.calls.submit(delivery);
        }
        Ok(())
    }

    /// As many as there is room for; or one to take up alone, when the worker before this one died.
    fn next_careful(&mut self, room: usize) -> Result<Pick, Trouble> {
        self.careful_until.take_if(|until| Instant::now() >= *until);
        if room == 0 || self.careful_until.is_none() {
            return Ok(Pick::UpTo(room));
        }
        let memory = &mut self.memory;
        match turn::transaction(self.context, c"claiming one by one", |_| careful::next(memory))? {
            Next::This(run_id) => Ok(Pick::Only(run_id)),
            Next::Later => Ok(Pick::UpTo(0)),
            Next::Nothing => {
                self.careful_until = None;
                Ok(Pick::UpTo(room))
            }
        }
    }

    /// Renews the leave to send while calls wait for their connections.
    fn watch(&mut self) -> Result<(), Trouble> {
        if self.calls.unsent() > 0 && self.open_at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            self.renew()?;
        }
        Ok(())
    }

    /// Looks at the toggle, and lets calls begin to send for a moment if it is on.
    fn renew(&mut self) -> Result<(), Trouble> {
        let asked = Instant::now();
        let open = turn::transaction(self.context, c"looking at the master toggle", watch::is_open)?;
        // Looked at, whatever it said: without leave the calls end as withheld when their connections are made.
        self.open_at = Some(asked);
        if open {
            self.calls.allow_until(asked + OPEN_FOR);
        }
        Ok(())
    }

    /// Asks the agents of runs in doubt.
    fn inquire(&mut self) -> Result<(), Trouble> {
        if !std::mem::take(&mut self.doubts) || self.recovery.pending {
            return Ok(());
        }
        for inquiry in turn::transaction(self.context, c"asking about runs in doubt", inquire::due)? {
            self.calls.inquire(inquiry);
        }
        Ok(())
    }

    fn room(&self) -> usize {
        guc::max_in_flight().saturating_sub(self.calls.in_flight())
    }

    /// Looks after what has to be looked at from time to time.
    fn tend(&mut self) -> Result<(), Trouble> {
        let found = self.tending.step(self.context, self.quiet && !self.look)?;
        self.doubts |= found.doubts;
        self.look |= found.seen.runs;
        if found.seen.unsealed {
            self.sealing.notice();
            self.jobs.notice();
        }
        // A restored dump brings attempts of workers that never were here.
        self.recovery.pending |= found.orphans;
        Ok(())
    }

    /// The catalogue's counters are behind.
    fn owe(&mut self) {
        let (now, paid_at) = (Instant::now(), self.paid_at);
        self.pay_at.get_or_insert_with(|| paid_at.map_or(now, |at| now.max(at + PAY_EVERY)));
    }

    /// Moves the catalogue's counters. A failure is the catalogue owner's affair; the debt stays until it is paid.
    fn pay(&mut self) -> Result<(), Trouble> {
        if self.pay_at.is_some_and(|at| Instant::now() >= at) {
            turn::transaction(self.context, c"counting executions", usage::pay)?;
            (self.pay_at, self.paid_at) = (None, Some(Instant::now()));
        }
        Ok(())
    }

    /// How long until a step is due. A step that failed is due when its pause is over, whatever it has to do.
    fn next_turn(&self) -> Duration {
        let now = Instant::now();
        let mut wait = guc::poll_interval().min(self.tending.wait(now));
        if self.recovery.pending || (self.look && self.room() > 0) {
            wait = wait.min(self.claiming.wait(now, now));
        }
        if let Some(pay_at) = self.pay_at {
            wait = wait.min(self.paying.wait(pay_at, now));
        }
        if let Some(at) = self.look_at {
            wait = wait.min(self.claiming.wait(at, now));
        }
        if self.calls.unsent() > 0 {
            wait = wait.min(self.watching.wait(self.open_at.map_or(now, |at| at + LOOK_AGAIN), now));
        }
        if self.doubts && !self.recovery.pending {
            wait = wait.min(self.inquiring.wait(now, now));
        }
        if let Some(at) = self.calls.busy_until() {
            wait = wait.min(self.collecting.wait(at, now));
        }
        if self.calls.has_results() {
            wait = wait.min(self.collecting.wait(now, now));
        }
        for due in [self.sealing.wait(now), self.jobs.wait(now)].into_iter().flatten() {
            wait = wait.min(due);
        }
        wait
    }

    fn wait(&mut self, timeout: Duration) {
        if timeout > TEND_EVERY {
            session::report_statistics(true);
            self.rest.begin();
        }
        let woken = latch::wait(Some(self.calls.descriptor()), timeout);
        self.quiet = woken.timeout;
        if self.quiet {
            // What nobody has told of, as after COMMIT PREPARED, is found by the tending.
            self.look |= !self.tending.is_due();
            self.jobs.poll(guc::poll_interval());
        }
        // A latch alone says nothing: timers of the last transaction set it, too, and a seal for each of them would set the next.
        if self.context.has_unsealed() || woken.readable {
            self.sealing.notice();
        }
    }
}

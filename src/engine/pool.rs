//! Connections that have carried an answer and wait for the next request: how long they may, and to whom it is done.
//!
//! A request that dies on its way is "perhaps sent", and an apply that is perhaps sent is in doubt until somebody finds
//! out. An agent that closes connections which it did not announce to close would leave a run in doubt each time that it
//! does so just when a request is on its way. Therefore a connection rests for a second at most: servers close idle
//! connections after 2 s (gunicorn), 5 s (Node, uvicorn, Apache) or more (nginx: 75 s). And an agent has to show that it
//! keeps connections before one is used again: the first one is put on trial, and is used again only when it is found
//! unhurt after a while. Where one is found ended, shorter rests are allowed for a minute, or none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// The longest rest.
const REST: Duration = Duration::from_secs(1);
/// How long the first connection has to rest unhurt.
const TRIAL: Duration = Duration::from_millis(100);
/// How long it is remembered that one was found ended.
const MEMORY: Duration = Duration::from_secs(60);

/// The resting connections of one client.
pub(super) struct Pool<C>(Mutex<Inner<C>>);

struct Inner<C> {
    /// The one that has rested longest comes first, and is used first: the longer one rests, the more surely it shows that
    /// it has ended, or that something came behind its answer.
    resting: VecDeque<Rested<C>>,
    /// One was used again.
    trusted: bool,
    /// How long connections rest.
    patience: Duration,
    /// Until when that is less than it could be.
    wary_until: Option<Instant>,
    swept: bool,
}

/// A connection, and since when it rests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rested<C> {
    pub(super) connection: C,
    pub(super) since: Instant,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        let (resting, patience) = (VecDeque::new(), REST);
        Pool(Mutex::new(Inner { resting, trusted: false, patience, wary_until: None, swept: false }))
    }
}

impl<C> Inner<C> {
    fn drop_tired(&mut self, now: Instant) {
        let patience = self.patience;
        let fresh = self.resting.partition_point(|rested| now.saturating_duration_since(rested.since) > patience);
        self.resting.drain(..fresh);
    }

    fn forget(&mut self, now: Instant) {
        if self.wary_until.take_if(|until| *until <= now).is_some() {
            self.patience = REST;
        }
    }
}

impl<C: Send + 'static> Pool<C> {
    /// A connection for the next request; none where a new one is to be made.
    pub(super) fn take(&self, now: Instant) -> Option<Rested<C>> {
        let mut inner = self.lock();
        inner.drop_tired(now);
        if inner.trusted {
            return inner.resting.pop_front();
        }
        let tried = inner.resting.front().is_some_and(|first| now.saturating_duration_since(first.since) >= TRIAL);
        if tried { inner.resting.pop_front() } else { None }
    }

    /// Puts a connection to rest, if it may; else it is closed.
    pub(super) fn keep(self: &Arc<Self>, connection: C, now: Instant) {
        let mut inner = self.lock();
        inner.forget(now);
        inner.drop_tired(now);
        if inner.patience < TRIAL || (!inner.trusted && !inner.resting.is_empty()) {
            return;
        }
        inner.resting.push_back(Rested { connection, since: now });
        if !inner.swept {
            inner.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// A connection was used again and carried an answer.
    pub(super) fn trust(&self) {
        self.lock().trusted = true;
    }

    /// One that rested since then was found ended, or has carried more than an answer.
    pub(super) fn doubt(&self, since: Instant, now: Instant) {
        let mut inner = self.lock();
        inner.resting.clear();
        inner.trusted = false;
        inner.patience = inner.patience.min(now.saturating_duration_since(since) / 2);
        inner.wary_until = Some(now + MEMORY);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

/// Closes what has rested too long, and ends with the last one: an engine without calls has no timer.
async fn sweep<C: Send + 'static>(pool: Weak<Pool<C>>) {
    loop {
        sleep(REST).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut inner = pool.lock();
        inner.drop_tired(Instant::now());
        if inner.resting.is_empty() {
            inner.resting.shrink_to_fit();
            inner.swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs where a task may be spawned, with a pool and a point in time.
    fn with(body: impl FnOnce(Arc<Pool<u8>>, Instant)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        body(Arc::default(), Instant::now());
    }

    fn taken(pool: &Pool<u8>, now: Instant) -> Option<u8> {
        pool.take(now).map(|rested| rested.connection)
    }

    #[test]
    fn the_first_connection_is_on_trial_and_the_others_are_closed() {
        with(|pool, start| {
            pool.keep(1, start);
            pool.keep(2, start + MS);
            assert_eq!(taken(&pool, start + 99 * MS), None);
            assert_eq!(taken(&pool, start + 100 * MS), Some(1));
            assert_eq!(taken(&pool, start + 200 * MS), None);
            // Not trusted yet: it has not carried anything.
            pool.keep(3, start + 200 * MS);
            assert_eq!(taken(&pool, start + 201 * MS), None);
            pool.trust();
            pool.keep(4, start + 201 * MS);
            assert_eq!(taken(&pool, start + 202 * MS), Some(3), "the one that has rested longest");
            assert_eq!(taken(&pool, start + 202 * MS), Some(4));
        });
    }

    #[test]
    fn no_connection_rests_for_more_than_a_second() {
        with(|pool, start| {
            pool.trust();
            pool.keep(1, start);
            pool.keep(2, start + 500 * MS);
            assert_eq!(taken(&pool, start + 1500 * MS), Some(2));
            assert_eq!(taken(&pool, start + 1500 * MS), None);
            pool.keep(3, start + 1500 * MS);
            assert_eq!(taken(&pool, start + 2501 * MS), None);
        });
    }

    #[test]
    fn where_one_was_found_ended_rests_are_shorter_or_there_are_none_for_a_minute() {
        with(|pool, start| {
            pool.trust();
            pool.keep(1, start);
            pool.keep(2, start);
            // Ended within 600 ms: half of that is allowed, after a new trial.
            pool.doubt(start, start + 600 * MS);
            assert_eq!(taken(&pool, start + 600 * MS), None, "all of them are closed");
            pool.keep(3, start + 600 * MS);
            assert_eq!(taken(&pool, start + 699 * MS), None);
            assert_eq!(taken(&pool, start + 700 * MS), Some(3));
            pool.keep(4, start + 700 * MS);
            assert_eq!(taken(&pool, start + 1001 * MS), None, "longer than 300 ms");
            // Ended within 150 ms: not even a trial.
            pool.doubt(start, start + 150 * MS);
            pool.keep(5, start + 150 * MS);
            assert_eq!(taken(&pool, start + 300 * MS), None);
            let later = start + MEMORY + 150 * MS;
            pool.keep(6, later);
            assert_eq!(taken(&pool, later + 100 * MS), Some(6));
        });
    }

    #[test]
    fn the_sweeper_closes_what_nobody_takes_and_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pool = Arc::<Pool<u8>>::default();
        runtime.block_on(async {
            pool.keep(1, Instant::now());
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
            while !pool.lock().resting.is_empty() || pool.lock().swept {
                sleep(10 * MS).await;
            }
            tokio::task::yield_now().await;
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "no timer is left");
        });
    }
}

//! Connections that have carried an answer and wait for the next request: how long they may, and to whom it is done.
//!
//! A request that dies on its way is "perhaps sent", and an apply that is perhaps sent is in doubt until somebody finds
//! out. An agent that closes connections which it did not announce to close would leave a run in doubt each time that it
//! does so just when a request is on its way. Therefore a connection rests for a second at most: servers close idle
//! connections after 2 s (gunicorn), 5 s (Node, uvicorn, Apache) or more (nginx: 75 s). And an agent has to show that it
//! keeps connections before one is used again: the first one is put on trial, and is used again only when it is found
//! unhurt after a while. Where one is found ended, shorter rests are allowed for a minute, or none.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connection::Connection;

/// The longest rest.
const REST: Duration = Duration::from_secs(1);
/// How long the first connection has to rest unhurt.
const TRIAL: Duration = Duration::from_millis(100);
/// How long it is remembered that one was found ended.
const MEMORY: Duration = Duration::from_secs(60);

/// The resting connections of one client.
#[derive(Default)]
pub(super) struct Pool(Mutex<Inner>);

struct Inner {
    /// The one that has rested longest comes first.
    resting: Vec<Rested>,
    /// One was used again.
    trusted: bool,
    /// How long connections rest.
    patience: Duration,
    /// Until when that is less than it could be.
    wary_until: Option<Instant>,
    swept: bool,
}

/// A connection, and since when it rests.
pub(super) struct Rested {
    pub(super) connection: Connection,
    pub(super) since: Instant,
}

impl Default for Inner {
    fn default() -> Self {
        Inner { resting: Vec::new(), trusted: false, patience: REST, wary_until: None, swept: false }
    }
}

impl Inner {
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

impl Pool {
    /// A connection for the next request; none where a new one is to be made.
    pub(super) fn take(&self, now: Instant) -> Option<Rested> {
        let mut inner = self.lock();
        inner.drop_tired(now);
        if inner.trusted {
            return inner.resting.pop();
        }
        let tried = inner.resting.first().is_some_and(|first| now.saturating_duration_since(first.since) >= TRIAL);
        tried.then(|| inner.resting.remove(0))
    }

    /// Puts a connection to rest, if it may; else it is closed.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection, now: Instant) {
        let mut inner = self.lock();
        inner.forget(now);
        inner.drop_tired(now);
        if inner.patience < TRIAL || (!inner.trusted && !inner.resting.is_empty()) {
            return;
        }
        inner.resting.push(Rested { connection, since: now });
        if !inner.swept {
            inner.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// A connection was used again and carried an answer.
    pub(super) fn trust(&self) {
        self.lock().trusted = true;
    }

    /// One that rested since then was found ended.
    pub(super) fn doubt(&self, since: Instant, now: Instant) {
        let mut inner = self.lock();
        inner.resting.clear();
        inner.trusted = false;
        inner.patience = inner.patience.min(now.saturating_duration_since(since) / 2);
        inner.wary_until = Some(now + MEMORY);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

/// Closes what has rested too long, and ends with the last one: an engine without calls has no timer.
async fn sweep(pool: Weak<Pool>) {
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

//! The moment at which a delivery begins to send: whether it may, and whether it has. Decides nothing about a run.
//!
//! "The gates are open" was true when somebody looked, and is believed for a moment only. The question is therefore asked
//! as late as it can be: when hyper asks for the request's body, at a connection that is made. Until then nothing of an
//! HTTP/1 request is written, its head included, so that a delivery that is still here has certainly not been sent.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::domain::answer::Reach;

/// Until when deliveries may begin to send. Cheap to share; the clock is the monotonic one, which goes on while the
/// process is stopped.
#[derive(Debug)]
pub(super) struct Permission {
    origin: Instant,
    /// Nanoseconds after `origin`; 0 is never.
    until: AtomicU64,
    /// Deliveries that may still begin to send.
    waiting: AtomicUsize,
}

impl Permission {
    /// None is given yet.
    pub(super) fn none() -> Self {
        Permission { origin: Instant::now(), until: AtomicU64::new(0), waiting: AtomicUsize::new(0) }
    }

    /// Gives it until then, or takes it away when that is over. The last word counts.
    pub(super) fn until(&self, then: Instant) {
        self.until.store(self.nanos(then), Ordering::SeqCst);
    }

    /// How many deliveries have neither begun to send nor ended.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn given(&self) -> bool {
        self.nanos(Instant::now()) < self.until.load(Ordering::SeqCst)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Nobody asked for the body yet.
const WAITING: u8 = 0;
/// It was handed out: from here on bytes may have left.
const STARTED: u8 = 1;
/// It was asked for, and there was no permission.
const WITHHELD: u8 = 2;
/// The delivery is over, and nothing was handed out.
const CLOSED: u8 = 3;

/// How a delivery stood when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Certainly not sent.
    Unsent,
    /// Certainly not sent, for want of a permission.
    Withheld,
    /// Something may have been sent.
    Sent,
}

impl Fate {
    /// The same in the words of an answer.
    pub(super) fn reach(self) -> Reach {
        if self == Fate::Sent { Reach::Sent } else { Reach::NotSent }
    }
}

/// Where one delivery stands. Leaves `WAITING` once.
#[derive(Debug)]
pub(super) struct Departure {
    permission: Arc<Permission>,
    state: AtomicU8,
}

impl Departure {
    /// Of a request that is still to be sent.
    pub(super) fn waiting(permission: Arc<Permission>) -> Self {
        permission.waiting.fetch_add(1, Ordering::SeqCst);
        Departure { permission, state: AtomicU8::new(WAITING) }
    }

    /// Of a request that was sent before, or of a mere question: nothing is withheld, and nothing is ever "not sent".
    pub(super) fn started(permission: Arc<Permission>) -> Self {
        Departure { permission, state: AtomicU8::new(STARTED) }
    }

    /// Ends it, so that it can never begin to send from here on, and tells how it stood.
    pub(super) fn close(&self) -> Fate {
        match self.turn(CLOSED) {
            Ok(()) | Err(CLOSED) => Fate::Unsent,
            Err(WITHHELD) => Fate::Withheld,
            Err(_) => Fate::Sent,
        }
    }

    /// Begins to send, if it may.
    pub(super) fn leave(&self) -> Result<(), Withheld> {
        let next = if self.permission.given() { STARTED } else { WITHHELD };
        if self.turn(next).is_ok() && next == STARTED { Ok(()) } else { Err(Withheld) }
    }

    /// Leaves `WAITING`, or says where it had gone before.
    fn turn(&self, next: u8) -> Result<(), u8> {
        self.state.compare_exchange(WAITING, next, Ordering::SeqCst, Ordering::SeqCst)?;
        self.permission.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.close();
    }
}

/// Nothing may be sent any more. `Departure::close` says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Withheld;

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was withheld")
    }
}

impl std::error::Error for Withheld {}

/// A request's body that asks for the permission when it is asked for.
#[derive(Debug)]
pub(super) struct Load {
    bytes: Option<Bytes>,
    departure: Arc<Departure>,
}

impl Load {
    /// All of a delivery's body, in one piece, and never empty.
    pub(super) fn new(bytes: Bytes, departure: Arc<Departure>) -> Self {
        debug_assert!(!bytes.is_empty());
        Load { bytes: Some(bytes), departure }
    }

    /// Of a question, which asks for no permission: hyper does not ask for a body that is empty.
    pub(super) fn none(departure: Arc<Departure>) -> Self {
        Load { bytes: None, departure }
    }
}

impl Body for Load {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        let piece = self.bytes.take().map(|bytes| self.departure.leave().map(|()| Frame::data(bytes)));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now_and_then() -> (Instant, Arc<Permission>) {
        (Instant::now(), Arc::new(Permission::none()))
    }

    #[test]
    fn there_is_no_permission_until_it_is_given_and_the_last_word_counts() {
        let (now, permission) = now_and_then();
        assert!(!permission.given());
        permission.until(now + Duration::from_secs(60));
        assert!(permission.given());
        permission.until(now);
        assert!(!permission.given());
        permission.until(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now));
        assert!(!permission.given());
    }

    #[test]
    fn a_delivery_leaves_once_and_never_after_its_end() {
        let (now, permission) = now_and_then();
        permission.until(now + Duration::from_secs(60));
        let departure = Departure::waiting(Arc::clone(&permission));
        assert_eq!(permission.waiting(), 1);
        assert_eq!((departure.leave(), departure.leave()), (Ok(()), Err(Withheld)));
        assert_eq!((departure.close(), departure.close()), (Fate::Sent, Fate::Sent));
        let departure = Departure::waiting(Arc::clone(&permission));
        assert_eq!(departure.close(), Fate::Unsent);
        assert_eq!(departure.leave(), Err(Withheld));
        assert_eq!((departure.close(), permission.waiting()), (Fate::Unsent, 0));
        drop(Departure::waiting(Arc::clone(&permission)));
        assert_eq!(permission.waiting(), 0);
        permission.until(now);
        let departure = Departure::waiting(Arc::clone(&permission));
        assert_eq!((departure.leave(), departure.close()), (Err(Withheld), Fate::Withheld));
        assert_eq!(Departure::started(permission).close(), Fate::Sent);
    }
}

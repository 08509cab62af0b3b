//! Where the engine's thread puts its reports, so that the owner finds them and wakes up.

use std::sync::mpsc;

use super::Report;
use super::waker::Waker;

/// Where reports go.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    channel: mpsc::Sender<Report>,
    waker: Waker,
}

impl Reports {
    /// Both ends of what an owner watches.
    pub(super) fn new(channel: mpsc::Sender<Report>, waker: Waker) -> Self {
        Reports { channel, waker }
    }

    /// Puts a report where the owner finds it, and wakes the owner.
    pub(super) fn send(&self, report: Report) {
        // Nobody listens once the owner has let go of the engine.
        let _ = self.channel.send(report);
        self.waker.wake();
    }
}

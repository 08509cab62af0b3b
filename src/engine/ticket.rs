//! What both sides hold of a call that is out: its name, whether it has begun to send, and the way to call it off.
//! Here is said how a call ends that has no answer of its own.

use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use super::departure::{Departure, Permission};
use super::{Call, Errand, Report};
use crate::domain::answer::Answer;
use crate::domain::doubt::Finding;

/// One call. Clones are the same call.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) run_id: Uuid,
    pub(super) attempt: i32,
    pub(super) departure: Arc<Departure>,
    inquiry: bool,
    called_off: Arc<Notify>,
}

impl Ticket {
    /// For a call that is about to be handed over.
    pub(super) fn of(call: &Call, permission: &Arc<Permission>) -> Self {
        let departure = match call.errand {
            Errand::Deliver => Departure::waiting(Arc::clone(permission)),
            Errand::Follow(_) | Errand::Inquire(_) => Departure::started(Arc::clone(permission)),
        };
        Ticket {
            run_id: call.run_id,
            attempt: call.attempt,
            departure: Arc::new(departure),
            inquiry: matches!(call.errand, Errand::Inquire(_)),
            called_off: Arc::default(),
        }
    }

    /// The same call, which does not hear that it is called off: somebody else does.
    pub(super) fn deaf(&self) -> Self {
        Ticket { called_off: Arc::default(), ..self.clone() }
    }

    /// Calls it off, also when it was not yet taken up. It still has one end.
    pub(super) fn call_off(&self) {
        self.called_off.notify_one();
    }

    /// Waits until it is called off. Remembered, so that it may be waited for later; for one waiter.
    pub(super) async fn called_off(&self) {
        self.called_off.notified().await;
    }

    /// The end of a call without an answer: from here on it cannot begin to send.
    pub(super) fn ended(&self, reason: &'static str, message: &str) -> Report {
        let (run_id, attempt, fate) = (self.run_id, self.attempt, self.departure.close());
        if self.inquiry {
            let finding = Finding::NoAnswer { message: message.into(), retry_after: None };
            return Report::Learned { run_id, attempt, finding };
        }
        let answer = Answer::failure(fate.reach(), reason, message);
        Report::Ended { run_id, attempt, answer, retry_after: None }
    }
}

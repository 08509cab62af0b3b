//! Names what went wrong when no answer's head came: did a byte leave, and what is to be told. Shows host and port, never
//! a path or query, and no address that a name resolved to.

use std::error::Error;
use std::io;
use std::iter::successors;

use url::Url;

use super::client::Trouble;
use super::departure::Fate;
use super::resolve::NoAddress;
use super::{Outcome, reason};
use crate::domain::answer::{Answer, Reach};

const WITHHELD: &str = "the gates were not seen open any more when it was about to be sent";

/// The end of an attempt without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// Never `Answered`.
    pub(super) reach: Reach,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Failure {
    /// Certainly nothing was sent.
    pub(super) fn unsent(reason: &'static str, message: impl Into<String>) -> Self {
        Failure { reach: Reach::NotSent, reason, message: message.into() }
    }

    /// The same, corrected by what is known about the request itself.
    pub(super) fn under(self, fate: Fate) -> Self {
        match fate {
            Fate::Withheld => Failure::unsent(reason::WITHHELD, WITHHELD),
            Fate::Unsent | Fate::Sent => Failure { reach: fate.reach(), ..self },
        }
    }

    /// Something may have been sent.
    pub(super) fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Failure { reach: Reach::Sent, reason, message: message.into() }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Answer::failure(failure.reach, failure.reason, failure.message).into()
    }
}

/// The end of an attempt whose request got no answer's head.
pub(super) fn without_head(trouble: &Trouble, url: &Url) -> Failure {
    let target = authority(url);
    let (reason, what) = match trouble {
        Trouble::Late => (reason::CONNECT_TIMEOUT, "it took too long".to_owned()),
        Trouble::Tls(error) => (reason::TLS_FAILED, format!("TLS: {}", last(error))),
        Trouble::Unconnected(error) => unconnected(error.as_ref()),
        Trouble::Lost(error) => {
            return Failure::unknown(reason::CONNECTION_LOST, format!("{target} did not answer: {}", last(error)));
        }
    };
    Failure::unsent(reason, format!("no connection to {target}: {what}"))
}

/// Host and port, as a message may show them.
pub(super) fn authority(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or("?"), url.port_or_known_default().unwrap_or(0))
}

fn unconnected(error: &(dyn Error + 'static)) -> (&'static str, String) {
    if let Some(why) = causes(error).find_map(|cause| cause.downcast_ref::<NoAddress>()) {
        let reason = match why {
            NoAddress::Unresolved => reason::DNS_FAILED,
            NoAddress::Denied => reason::ADDRESS_DENIED,
        };
        return (reason, why.to_string());
    }
    let timed_out = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    if causes(error).any(timed_out) {
        return (reason::CONNECT_TIMEOUT, "it took too long".into());
    }
    (reason::CONNECT_FAILED, last(error))
}

/// The innermost cause, in words.
fn last(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(|| "no answer".to_owned(), ToString::to_string)
}

/// An error and what it was caused by, the outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |cause| below(*cause))
}

/// The next cause. `io::Error::source` skips the error that it wraps, so it is opened.
fn below<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

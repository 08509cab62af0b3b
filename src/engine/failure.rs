//! Names what went wrong when no answer's head came: did a byte leave, and what is to be told. Shows host and port, never
//! a path or query, and no address that a name resolved to.

use std::error::Error;
use std::io;
use std::iter::successors;

use url::Url;

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
pub(super) fn without_head(error: &reqwest::Error, url: &Url) -> Failure {
    let target = authority(url);
    if error.is_builder() {
        return Failure::unsent(reason::REQUEST_UNUSABLE, "the request cannot be built");
    }
    if error.is_connect() {
        let (reason, what) = unconnected(error, url.scheme() == "https");
        return Failure::unsent(reason, format!("no connection to {target}: {what}"));
    }
    let what = causes(error).last().map_or_else(|| "no answer".to_owned(), ToString::to_string);
    Failure::unknown(reason::CONNECTION_LOST, format!("{target} did not answer: {what}"))
}

/// Host and port, as a message may show them.
pub(super) fn authority(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or("?"), url.port_or_known_default().unwrap_or(0))
}

fn unconnected(error: &reqwest::Error, https: bool) -> (&'static str, String) {
    if let Some(why) = causes(error).find_map(|cause| cause.downcast_ref::<NoAddress>()) {
        let reason = match why {
            NoAddress::Unresolved => reason::DNS_FAILED,
            NoAddress::Denied => reason::ADDRESS_DENIED,
        };
        return (reason, why.to_string());
    }
    if error.is_timeout() {
        return (reason::CONNECT_TIMEOUT, "it took too long".into());
    }
    let last = causes(error).last().map_or_else(|| "connect error".to_owned(), ToString::to_string);
    // The connector wraps what TCP says in an error of this name; what comes after it in https is the handshake.
    let tcp = causes(error).any(|cause| cause.to_string() == "tcp connect error");
    if https && !tcp { (reason::TLS_FAILED, format!("TLS: {last}")) } else { (reason::CONNECT_FAILED, last) }
}

/// What an error was caused by, the outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    successors(error.source(), |cause| below(*cause))
}

/// The next cause. `io::Error::source` skips the error that it wraps, so it is opened.
fn below<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

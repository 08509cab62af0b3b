//! Every reason that an engine puts into an answer, beside `http_NNN` and those of `domain::egress::Denied`.
//! What a reason does to a run is decided in `domain`; `docs/agent_api.md` explains them to authors of agents.

/// The agent said `succeeded`.
pub const OK: &str = "ok";
/// The agent said `failed`.
pub const AGENT_FAILED: &str = "agent_failed";
/// The agent said `refused`.
pub const AGENT_REFUSED: &str = "agent_refused";

/// The name resolved, but to no address that the egress rule allows. The same word as for address literals.
pub const ADDRESS_DENIED: &str = "address_denied";
/// The secret that the endpoint names is missing or cannot be read.
pub const SECRET_MISSING: &str = "secret_missing";
/// The secret's value cannot stand in a header.
pub const SECRET_UNUSABLE: &str = "secret_unusable";
/// The request cannot be built from its parts.
pub const REQUEST_UNUSABLE: &str = "request_unusable";
/// No root certificates, or a CA file that cannot be read.
pub const TLS_UNUSABLE: &str = "tls_unusable";
/// The host name did not resolve.
pub const DNS_FAILED: &str = "dns_failed";
/// No TCP connection.
pub const CONNECT_FAILED: &str = "connect_failed";
/// DNS, TCP and TLS together took too long.
pub const CONNECT_TIMEOUT: &str = "connect_timeout";
/// The TLS handshake or the certificate was refused.
pub const TLS_FAILED: &str = "tls_failed";

/// There was no permission to begin to send any more: nobody had seen the gates open a moment ago.
pub const WITHHELD: &str = "withheld";
/// It was called off, before or after it was sent.
pub const CANCELLED: &str = "cancelled";

/// The whole delivery took too long.
pub const TIMEOUT: &str = "timeout";
/// The connection ended, or spoke no HTTP, before an answer's head was complete.
pub const CONNECTION_LOST: &str = "connection_lost";
/// A success status came, but not all of its body.
pub const ANSWER_INCOMPLETE: &str = "answer_incomplete";
/// The agent is working on it, but said nowhere to ask.
pub const ACCEPTED_WITHOUT_LOCATION: &str = "accepted_without_location";
/// The agent is working on it, and the place to ask is not one that may be asked.
pub const BAD_STATUS_LOCATION: &str = "bad_status_location";
/// A defect in the engine; whether the request was sent is told by how far it got.
pub const ENGINE_PANIC: &str = "engine_panic";
/// The engine's thread had ended before the call was handed to it.
pub const ENGINE_DOWN: &str = "engine_down";

/// The answer is larger than allowed.
pub const ANSWER_TOO_LARGE: &str = "answer_too_large";
/// The answer is compressed, which was not asked for.
pub const BAD_CONTENT_ENCODING: &str = "bad_content_encoding";
/// The answer is not JSON by its content type.
pub const BAD_CONTENT_TYPE: &str = "bad_content_type";
/// The answer is not JSON, or not of the contract.
pub const BAD_ANSWER: &str = "bad_answer";
/// The answer is a redirect; none is followed.
pub const REDIRECT_REFUSED: &str = "redirect_refused";

/// The script could not be started.
pub const NOT_STARTED: &str = "not_started";
/// The process that keeps a script has gone without a word.
pub const KEEPER_LOST: &str = "keeper_lost";

/// Those of scripts alone, for the test that holds `docs/scripts.md` against them.
#[cfg(test)]
pub const OF_SCRIPTS: [&str; 2] = [NOT_STARTED, KEEPER_LOST];

/// All but those of scripts, for the test that holds the documentation against them.
#[cfg(test)]
pub const ALL: [&str; 26] = [
    OK,
    AGENT_FAILED,
    AGENT_REFUSED,
    ADDRESS_DENIED,
    SECRET_MISSING,
    SECRET_UNUSABLE,
    REQUEST_UNUSABLE,
    TLS_UNUSABLE,
    DNS_FAILED,
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    TLS_FAILED,
    WITHHELD,
    CANCELLED,
    TIMEOUT,
    CONNECTION_LOST,
    ANSWER_INCOMPLETE,
    ACCEPTED_WITHOUT_LOCATION,
    BAD_STATUS_LOCATION,
    ENGINE_PANIC,
    ENGINE_DOWN,
    ANSWER_TOO_LARGE,
    BAD_CONTENT_ENCODING,
    BAD_CONTENT_TYPE,
    BAD_ANSWER,
    REDIRECT_REFUSED,
];

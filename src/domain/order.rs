//! What a delivery asks of an engine: an HTTP request, or a program to be started. The same value makes a plan, the ledger's
//! `request` and the call. How each is rendered is in `render` and `script`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::render::{self, Request};
use super::script::{self, Command};

/// One of the two.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// For `agent_api`.
    Http(Request),
    /// For `script`.
    Script(Command),
}

impl Order {
    /// The same for one delivery: attempt from 1, the token in force, the deadline in RFC 3339.
    #[must_use]
    pub fn delivered(self, run: (Uuid, Uuid), attempt: i32, fencing_token: Option<i64>, deadline: &str) -> Order {
        match self {
            Order::Http(request) => Order::Http(request.delivered(run, attempt, fencing_token, deadline)),
            Order::Script(command) => Order::Script(command.delivered(run, attempt, fencing_token, deadline)),
        }
    }

    /// The same, admitted with this token.
    #[must_use]
    pub fn with_token(self, fencing_token: Option<i64>) -> Order {
        match self {
            Order::Http(mut request) => {
                request.body["fencing_token"] = json!(fencing_token);
                Order::Http(request)
            }
            Order::Script(command) => Order::Script(command.with_token(fencing_token)),
        }
    }

    /// As people and the ledger see it: without a secret's value.
    pub fn masked(&self) -> Value {
        match self {
            Order::Http(request) => request.masked(),
            Order::Script(command) => command.shown(),
        }
    }

    /// Where it goes: the URL, or the program's path. The second gate refuses a run whose target is another by then.
    pub fn target(&self) -> &str {
        match self {
            Order::Http(request) => request.url.as_str(),
            Order::Script(command) => &command.program,
        }
    }

    /// What identifies "the same thing asked of the same tool": see [`render::fingerprint`].
    pub fn fingerprint(&self, tool_version: &str, args: &Value) -> String {
        match self {
            Order::Http(request) => render::fingerprint(tool_version, args, request),
            Order::Script(command) => script::fingerprint(tool_version, args, command),
        }
    }

    /// The HTTP request, if it is one.
    pub fn http(&self) -> Option<&Request> {
        match self {
            Order::Http(request) => Some(request),
            Order::Script(_) => None,
        }
    }
}

//! DNS under an egress rule: yields only addresses that may be connected to, so that what was checked is what is
//! dialled. Address literals never come here; `Rules::check_url` judges them.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::egress::Rule;

/// Why a name gave no address. Says nothing about the addresses that were found: that would map a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// The name does not resolve.
    Unresolved,
    /// It does, but to nothing that the rule allows.
    Denied,
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoAddress::Unresolved => "the host name does not resolve",
            NoAddress::Denied => "the host name resolves to no address that the egress rule allows",
        })
    }
}

impl Error for NoAddress {}

/// The system's resolver behind one rule.
pub(super) struct Guarded(pub(super) Arc<Rule>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = Arc::clone(&self.0);
        Box::pin(async move {
            // Port 0 stands for the port of the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| NoAddress::Unresolved)?;
            let allowed: Vec<SocketAddr> = found.filter(|address| rule.allows_address(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NoAddress::Denied.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

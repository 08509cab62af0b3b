//! DNS under an egress rule: yields only addresses that may be connected to, so that what was checked is what is
//! dialled. Address literals never come here; `Rules::check_url` judges them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

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

/// What a test says about names.
#[cfg(test)]
pub(super) type Script = dyn Fn(&str) -> Vec<std::net::IpAddr> + Send + Sync;

/// Who is asked for a name's addresses.
#[derive(Clone, Default)]
pub(super) enum Names {
    /// The system's resolver.
    #[default]
    System,
    /// A test.
    #[cfg(test)]
    Told(Arc<Script>),
}

impl Names {
    /// All addresses of a name. Port 0 stands for the port of the URL.
    async fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Names::System => Ok(tokio::net::lookup_host((name, 0)).await?.collect()),
            #[cfg(test)]
            Names::Told(tell) => Ok(tell(name).into_iter().map(|ip| SocketAddr::new(ip, 0)).collect()),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// A resolver behind one rule.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    pub(super) rule: Arc<Rule>,
    pub(super) names: Names,
}

impl Service<Name> for Guarded {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (rule, names) = (Arc::clone(&self.rule), self.names.clone());
        Box::pin(async move {
            let found = names.look_up(name.as_str()).await.map_err(|_| NoAddress::Unresolved)?;
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| rule.allows_address(address.ip())).collect();
            if allowed.is_empty() { Err(NoAddress::Denied) } else { Ok(allowed.into_iter()) }
        })
    }
}

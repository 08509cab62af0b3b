//! HTTP clients, one per egress rule and connect timeout. Everything that a client could do by itself is off: redirects,
//! proxies, retries, cookies, decompression, connection reuse.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

use super::resolve::{Guarded, Names};
use super::tls::Tls;
use crate::domain::egress::Rule;

/// Kept at most; rules change rarely, so that the cache is emptied rather than aged.
const MAX_CLIENTS: usize = 64;

/// How long the other side may take no byte and acknowledge none. Over TLS, hyper ends a connection with a word of
/// goodbye, for which there must be room: a peer that does not read holds its connection for as long as this after the
/// end of the call.
const DEAF: Duration = Duration::from_secs(30);

/// Builds clients and keeps them.
#[derive(Debug)]
pub(super) struct Clients {
    tls: Tls,
    names: Names,
    /// A client depends on the rule (its resolver holds it) and on the connect timeout.
    kept: Mutex<HashMap<(Rule, Duration), Client>>,
}

impl Clients {
    /// None is built yet.
    pub(super) fn new(ca_file: Option<PathBuf>, names: Names) -> Self {
        Clients { tls: Tls::new(ca_file), names, kept: Mutex::new(HashMap::new()) }
    }

    /// The client for one rule, when it was built before. Does not block.
    pub(super) fn kept(&self, rule: &Rule, connect: Duration) -> Option<Client> {
        self.lock().get(&(rule.clone(), connect)).cloned()
    }

    /// Builds and keeps the client for one rule. May block on the file system.
    ///
    /// # Errors
    /// A line for people, when TLS cannot be set up.
    pub(super) fn build(&self, rule: Rule, connect: Duration) -> Result<Client, String> {
        let tls = self.tls.config(rule.scheme == "https")?;
        let resolver = Guarded { rule: Arc::new(rule.clone()), names: self.names.clone() };
        let client = build(tls, resolver, connect)?;
        let mut kept = self.lock();
        if kept.len() >= MAX_CLIENTS {
            kept.clear();
        }
        kept.insert((rule, connect), client.clone());
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Rule, Duration), Client>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(tls: rustls::ClientConfig, resolver: Guarded, connect: Duration) -> Result<Client, String> {
    Client::builder()
        .user_agent(concat!("dot_wrapper/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(resolver))
        .connect_timeout(connect)
        .tcp_user_timeout(DEAF)
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| format!("the HTTP client cannot be built ({})", error.without_url()))
}

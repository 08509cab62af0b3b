//! HTTP clients, one per egress rule and host: each makes connections and keeps those that may be used
//! again. Nothing is followed, decoded or repeated. What a connection is, is in `connection`; when one may be used again,
//! in `pool`.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Request, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::connection::{Connection, Home, Lost, Response, Stream, Wire};
use super::departure::{Load, Withheld};
use super::pool::Rested;
use super::resolve::{Guarded, Names};
use super::tls::Tls;
use crate::domain::egress::Rule;

/// Kept at most; rules change rarely, so that the cache is emptied rather than aged.
const MAX_CLIENTS: usize = 64;

/// How long the other side may take no byte and acknowledge none.
const DEAF: Duration = Duration::from_secs(30);

/// Silence after which the kernel asks whether the other side is still there, and between its questions.
const ALIVE: Duration = Duration::from_secs(15);

/// Builds clients and keeps them.
#[derive(Debug)]
pub(super) struct Clients {
    tls: Tls,
    names: Names,
    kept: Mutex<Vec<Arc<Client>>>,
}

impl Clients {
    /// None is built yet.
    pub(super) fn new(ca_file: Option<PathBuf>, names: Names) -> Self {
        Clients { tls: Tls::new(ca_file), names, kept: Mutex::default() }
    }

    /// The client for a URL under the rule that allows it, when it was built before. Does not block.
    pub(super) fn kept(&self, rule: &Rule, url: &Url) -> Option<Arc<Client>> {
        let host = url.host_str()?;
        let fits = |client: &&Arc<Client>| client.host == host && *client.rule == *rule;
        self.lock().iter().find(fits).map(Arc::clone)
    }

    /// Builds and keeps the client for a URL under the rule that allows it. May block on the file system.
    ///
    /// # Errors
    /// A line for people, when TLS cannot be set up.
    pub(super) fn build(&self, rule: Rule, url: &Url) -> Result<Arc<Client>, String> {
        let tls = if rule.scheme == "https" { Some(self.tls.config()?) } else { None };
        let client = Arc::new(Client::new(rule, url, tls, self.names.clone())?);
        let mut kept = self.lock();
        if kept.len() >= MAX_CLIENTS {
            kept.clear();
        }
        kept.push(Arc::clone(&client));
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no answer's head came.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection within the connect timeout.
    Late,
    /// The handshake failed.
    Tls(io::Error),
    /// No address, or no TCP connection.
    Unconnected(Box<dyn Error + Send + Sync>),
    /// The connection ended under the request. Whether any of it was sent is `Departure`'s to say.
    Lost(hyper::Error),
}

/// Makes connections under one rule, to one host.
#[derive(Debug)]
pub(super) struct Client {
    /// The resolver holds it as well, and yields only addresses that it allows.
    rule: Arc<Rule>,
    host: String,
    origin: Uri,
    connector: HttpConnector<Guarded>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pool: Home,
}

impl Client {
    fn new(rule: Rule, url: &Url, tls: Option<Arc<ClientConfig>>, names: Names) -> Result<Client, String> {
        let rule = Arc::new(rule);
        let host = url.host_str().unwrap_or_default().to_owned();
        let origin = url.origin().ascii_serialization();
        let origin = origin.parse().map_err(|_| format!("no connection can be made to {origin}"))?;
        let name = |config| {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).map_err(|_| format!("no certificate can name {host}"))?;
            Ok::<_, String>((config, name))
        };
        let tls = tls.map(name).transpose()?;
        let mut connector = HttpConnector::new_with_resolver(Guarded { rule: Arc::clone(&rule), names });
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_tcp_user_timeout(Some(DEAF));
        connector.set_keepalive(Some(ALIVE));
        connector.set_keepalive_interval(Some(ALIVE));
        connector.set_keepalive_retries(Some(3));
        Ok(Client { rule, host, origin, connector, tls, pool: Arc::default() })
    }

    /// Sends a request and waits for the answer's head: on a connection that has rested, or else on a new one. A request is
    /// begun at most once: only one that hyper hands back untouched goes to another connection. `connect` is how long a
    /// new connection may take.
    ///
    /// # Errors
    /// Why there is no head.
    pub(super) async fn send(&self, mut request: Request<Load>, connect: Duration) -> Result<Response, Trouble> {
        while let Some(Rested { connection, since }) = self.pool.take(Instant::now()) {
            match connection.send(request, &self.pool).await {
                Ok(response) => {
                    self.pool.trust();
                    return Ok(response);
                }
                Err(lost) => {
                    if !is_withheld(&lost) {
                        self.pool.doubt(since, Instant::now());
                    }
                    match lost {
                        Lost::Before(untouched) => request = *untouched,
                        Lost::Under(error) => return Err(Trouble::Lost(error)),
                    }
                }
            }
        }
        let connection = timeout(connect, self.connection(connect)).await.map_err(|_| Trouble::Late)??;
        connection.send(request, &self.pool).await.map_err(|lost| match lost {
            Lost::Before(_) => Trouble::Unconnected("the connection ended at once".into()),
            Lost::Under(error) => Trouble::Lost(error),
        })
    }

    async fn connection(&self, connect: Duration) -> Result<Box<Connection>, Trouble> {
        let mut connector = self.connector.clone();
        // Shared among the addresses of a name, so that one that is silent does not use up the time of the others.
        connector.set_connect_timeout(Some(connect));
        let tcp = connector
            .call(self.origin.clone())
            .await
            .map_err(|error| Trouble::Unconnected(Box::new(error)))?
            .into_inner();
        let remote = tcp.peer_addr().ok();
        let wire = Wire::new(tcp);
        let watch = wire.watch();
        let stream = match &self.tls {
            None => Stream::Plain(wire),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), wire).await.map_err(Trouble::Tls)?;
                Stream::Tls(Box::new(stream))
            }
        };
        Connection::over(stream, watch, remote).await.map_err(|error| Trouble::Unconnected(Box::new(error)))
    }
}

/// True where it was our own permission that was missing, which says nothing about the agent.
fn is_withheld(lost: &Lost) -> bool {
    matches!(lost, Lost::Under(error) if error.source().is_some_and(|source| source.is::<Withheld>()))
}

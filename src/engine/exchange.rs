//! One HTTP exchange of a call: the egress rule, the client, the headers, the secret, and the answer's head.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Uri};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};
use uuid::Uuid;

use super::client::{Client, Clients};
use super::connection::Response;
use super::departure::{Departure, Load};
use super::failure::{self, Failure};
use super::reply::{self, Meaning};
use super::secrets::Secrets;
use super::{Call, Limits, Scripts, body, reason};
use crate::domain::egress::Rules;
use crate::domain::order::Order;
use crate::domain::render::{Auth, Request};
use crate::domain::secret::Secret;

/// What all deliveries share under one configuration.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clients: Clients,
    pub(super) secrets: Secrets,
    pub(super) scripts: Scripts,
}

/// The largest head, in bytes. hyper writes a larger one before it asks for the body.
const MAX_HEAD: usize = 256 * 1024;

/// A call without its order.
pub(super) struct Bounded {
    pub(super) run_id: Uuid,
    pub(super) attempt: i32,
    pub(super) limits: Limits,
    pub(super) egress: Arc<Rules>,
}

/// One call under way.
pub(super) struct Delivery {
    pub(super) call: Bounded,
    /// What the call orders.
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) departure: Arc<Departure>,
    pub(super) secret: Option<Secret>,
    auth: Option<(HeaderName, HeaderValue)>,
    shared: Arc<Shared>,
}

impl Delivery {
    /// Reads the secret. Nothing is sent yet.
    ///
    /// # Errors
    /// The end of the attempt when there is no usable secret.
    pub(super) async fn open(
        call: Call,
        departure: Arc<Departure>,
        shared: Arc<Shared>,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let Call { run_id, attempt, limits, egress, request: Order::Http(request), .. } = call else {
            return Err(Failure::unsent(reason::REQUEST_UNUSABLE, "it is not an HTTP request"));
        };
        let call = Bounded { run_id, attempt, limits, egress };
        let mut delivery = Delivery { call, request, deadline, departure, secret: None, auth: None, shared };
        if let Some(auth) = delivery.request.auth.clone() {
            let (shared, name) = (Arc::clone(&delivery.shared), auth.secret.clone());
            let secret = unsent(reason::SECRET_MISSING, deadline, move || shared.secrets.value(&name)).await?;
            delivery.auth = Some(header(&auth, &secret)?);
            delivery.secret = Some(secret);
        }
        Ok(delivery)
    }

    /// Sends the request, or asks at a status URL, and waits for the answer's head.
    ///
    /// # Errors
    /// The end of the exchange without a head.
    pub(super) async fn send(&self, method: Method, url: &Url, until: Instant) -> Result<Response, Failure> {
        let until = until.min(self.deadline);
        let client = self.client(url, until).await?;
        let body = match method {
            Method::POST => Load::new(self.request.body.to_string().into(), Arc::clone(&self.departure)),
            _ => Load::none(Arc::clone(&self.departure)),
        };
        let unusable = || Failure::unsent(reason::REQUEST_UNUSABLE, "the request cannot be built");
        let mut request = hyper::Request::new(body);
        *request.headers_mut() = self.headers(&method, url)?;
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(&url[Position::BeforePath..Position::AfterQuery]).map_err(|_| unusable())?;
        match timeout_at(until, client.send(request, self.connect())).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(trouble)) => Err(failure::without_head(&trouble, url)),
            Err(_) => {
                let message = format!("{} did not answer in time", failure::authority(url));
                Err(Failure::unknown(reason::TIMEOUT, message))
            }
        }
    }

    /// The client for a URL that a rule allows.
    async fn client(&self, url: &Url, until: Instant) -> Result<Arc<Client>, Failure> {
        let rule = self.call.egress.check_url(url);
        let rule = rule.map_err(|denied| Failure::unsent(denied.reason, denied.message))?;
        if let Some(client) = self.shared.clients.kept(rule, url) {
            return Ok(client);
        }
        let (shared, rule, url) = (Arc::clone(&self.shared), rule.clone(), url.clone());
        unsent(reason::TLS_UNUSABLE, until, move || shared.clients.build(rule, &url)).await
    }

    /// Reads the rest of an answer whose head came.
    pub(super) async fn read(&self, response: Response) -> Meaning {
        let limits = &self.call.limits;
        let bounds = body::Bounds { max: limits.max_response_bytes, idle: limits.idle, until: self.deadline };
        reply::read(response, bounds, self.secret.as_ref()).await
    }

    /// Shorter than the whole, so that the connect timeout fires first and the attempt counts as not sent.
    fn connect(&self) -> Duration {
        self.call.limits.connect.min(self.call.limits.total / 2)
    }

    /// The rendered headers; a question carries no body and no key, so it leaves out what describes them.
    fn headers(&self, method: &Method, url: &Url) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::with_capacity(16);
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        headers.insert(HOST, host.map_err(|_| Failure::unsent(reason::REQUEST_UNUSABLE, "bad host"))?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("dot_wrapper/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.request.headers {
            if method == Method::GET && matches!(*name, "content-type" | "idempotency-key") {
                continue;
            }
            let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let unusable = || Failure::unsent(reason::REQUEST_UNUSABLE, format!("bad header {name}"));
            let (name, value) = pair.ok_or_else(unusable)?;
            headers.insert(name, value);
        }
        if let Some((name, value)) = self.auth.clone() {
            headers.insert(name, value);
        }
        let length = self.request.url.as_str().len() + headers.values().map(HeaderValue::len).sum::<usize>();
        if length > MAX_HEAD {
            return Err(Failure::unsent(reason::REQUEST_UNUSABLE, "the request's headers are too long"));
        }
        Ok(headers)
    }
}

/// The header that carries the secret, marked so that no library prints it.
fn header(auth: &Auth, secret: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    let name = HeaderName::from_bytes(auth.header.as_bytes()).unwrap_or(AUTHORIZATION);
    let text = format!("{} {}", auth.scheme, secret.reveal());
    let unusable = || {
        let message = format!("secret \"{}\" holds characters that a header cannot carry", auth.secret);
        Failure::unsent(reason::SECRET_UNUSABLE, message)
    };
    let mut value = HeaderValue::from_bytes(text.trim_start().as_bytes()).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Runs what may block on the file system beside the thread that drives the connections; a failure means that nothing
/// was sent.
pub(super) async fn unsent<T, F>(reason: &'static str, until: Instant, work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, String> + Send + 'static,
{
    let message = match timeout_at(until, spawn_blocking(work)).await {
        Ok(Ok(Ok(value))) => return Ok(value),
        Ok(Ok(Err(message))) => message,
        Ok(Err(_)) => "reading it failed unexpectedly".into(),
        Err(_) => "reading it took too long".into(),
    };
    Err(Failure::unsent(reason, message))
}

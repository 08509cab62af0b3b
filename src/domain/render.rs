//! The request that a run would send: method, URL, headers, body. The same code renders a plan and the real call.
//! Secrets stay names here; the engine puts the value in.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use super::canonical;
use super::mode::Mode;
use super::secret::{self, MASK};

/// Where an engine listens: one row of `dot_wrapper.endpoint`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Scheme, host, port and perhaps a path; no query, fragment or user information.
    pub base_url: String,
    /// Appended to it; `{code}` stands for the tool's code, percent-encoded.
    pub path: String,
    /// The header that carries the secret, for example `Authorization`.
    pub auth_header: String,
    /// What stands before the secret in that header, for example `Bearer`; may be empty.
    pub auth_scheme: String,
    /// The name of the secret, when the endpoint wants one.
    pub auth_secret: Option<String>,
    /// Appended to `base_url`; where the agent tells what became of an idempotency key, which stands for `{run_id}`.
    pub status_path: Option<String>,
    /// Calls at the same time; `None`: no limit of its own.
    pub max_in_flight: Option<i64>,
    /// Requests a second; `None`: no limit.
    pub rate_per_s: Option<f64>,
    /// Requests that may go at once after a pause.
    pub rate_burst: i64,
    /// Failures in a row that open the breaker; 0: never.
    pub breaker_failures: i64,
    /// Seconds that it stays open first.
    pub breaker_pause_s: i64,
}

/// A secret in a header, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Header name.
    pub header: String,
    /// Scheme before the value; may be empty.
    pub scheme: String,
    /// Name of the secret.
    pub secret: String,
}

/// The facts of one delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts<'a> {
    /// The tool's code.
    pub code: &'a str,
    /// Never `Plan`: a plan shows the apply.
    pub mode: Mode,
    /// The run.
    pub run_id: Uuid,
    /// The process run.
    pub process_run_id: Uuid,
    /// 1 for the first delivery.
    pub attempt: i32,
    /// The caller's arguments, an object.
    pub args: &'a Value,
    /// The lease's token; `None` in a plan and for tools that need no lease.
    pub fencing_token: Option<i64>,
    /// When the engine should have ended, RFC 3339 in UTC; `None` in a plan.
    pub deadline: Option<&'a str>,
}

/// A request, ready to be sent but for the secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Always `POST`.
    pub method: &'static str,
    /// The target.
    pub url: Url,
    /// Header names and values, without the secret one.
    pub headers: Vec<(&'static str, String)>,
    /// The secret header, by name.
    pub auth: Option<Auth>,
    /// The JSON body.
    pub body: Value,
}

/// Why a request cannot be formed; a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unformed(pub String);

/// Renders the request of one delivery.
///
/// # Errors
/// `Unformed` when the endpoint's URL, path, header or secret name is not usable.
pub fn request(endpoint: &Endpoint, facts: &Facts<'_>) -> Result<Request, Unformed> {
    Ok(Request {
        method: "POST",
        url: target(endpoint, facts.code)?,
        headers: vec![
            ("content-type", "application/json".into()),
            ("accept", "application/json".into()),
            ("idempotency-key", facts.run_id.to_string()),
            ("traceparent", traceparent(facts.process_run_id, facts.run_id, facts.attempt)),
        ],
        auth: auth(endpoint)?,
        body: json!({
            "dot_code": facts.code,
            "mode": facts.mode,
            "run_id": facts.run_id,
            "process_run_id": facts.process_run_id,
            "attempt": facts.attempt,
            "args": facts.args,
            "fencing_token": facts.fencing_token,
            "deadline": facts.deadline,
        }),
    })
}

impl Request {
    /// The same request for one delivery: attempt from 1, the token in force, the deadline in RFC 3339.
    #[must_use]
    pub fn delivered(mut self, run: (Uuid, Uuid), attempt: i32, fencing_token: Option<i64>, deadline: &str) -> Request {
        let (run_id, process_run_id) = run;
        self.body["attempt"] = attempt.into();
        self.body["fencing_token"] = json!(fencing_token);
        self.body["deadline"] = deadline.into();
        for (name, value) in &mut self.headers {
            if *name == "traceparent" {
                *value = traceparent(process_run_id, run_id, attempt);
            }
        }
        self
    }

    /// The request as people and the ledger see it: the secret header shows its scheme and a mask.
    pub fn masked(&self) -> Value {
        let mut headers: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        if let Some(auth) = &self.auth {
            let shown = format!("{} {MASK}", auth.scheme);
            headers.insert(auth.header.to_ascii_lowercase(), shown.trim_start().into());
        }
        json!({"method": self.method, "url": self.url.as_str(), "headers": headers, "body": self.body})
    }
}

/// What identifies "the same thing asked of the same tool": equal for a plan and for the apply that it announces.
/// Covers the tool's version, the arguments, the target and the secret's name; not the run, the attempt or the time.
pub fn fingerprint(tool_version: &str, args: &Value, request: &Request) -> String {
    canonical::digest(&json!({
        "v": 1,
        "tool": tool_version,
        "args": args,
        "method": request.method,
        "url": request.url.as_str(),
        "dot_code": request.body["dot_code"],
        "secret": request.auth.as_ref().map(|auth| [&auth.header, &auth.scheme, &auth.secret]),
    }))
}

/// Where the agent tells what became of a run's key; `None` when the endpoint names no such place, or none that is a URL.
pub fn status_url(endpoint: &Endpoint, run_id: Uuid) -> Option<Url> {
    let path = endpoint.status_path.as_ref()?.replace("{run_id}", &run_id.to_string());
    target(&Endpoint { path, ..endpoint.clone() }, "").ok()
}

fn target(endpoint: &Endpoint, code: &str) -> Result<Url, Unformed> {
    let bad = |why: &str| Unformed(format!("endpoint \"{}\": {why}", endpoint.name));
    let base = Url::parse(&endpoint.base_url).map_err(|e| bad(&format!("base_url is not a URL ({e})")))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(bad("base_url must start with http:// or https://"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(bad("base_url must not carry user information; name a secret instead"));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(bad("base_url must not have a query or a fragment"));
    }
    if !endpoint.path.starts_with('/') || endpoint.path.contains(['?', '#', '\\']) {
        return Err(bad("path must start with a slash and have no query, fragment or backslash"));
    }
    if matches!(code, "." | "..") {
        // URL parsers take these for a step in the path, percent-encoded or not.
        return Err(bad("the tool's code cannot stand in a URL path"));
    }
    let path = endpoint.path.replace("{code}", &encode_segment(code));
    let whole = format!("{}{path}", endpoint.base_url.trim_end_matches('/'));
    Url::parse(&whole).map_err(|e| bad(&format!("base_url and path make no URL ({e})")))
}

/// Percent-encodes everything but RFC 3986's unreserved characters, so that a code stays one segment.
fn encode_segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

fn auth(endpoint: &Endpoint) -> Result<Option<Auth>, Unformed> {
    let Some(name) = &endpoint.auth_secret else { return Ok(None) };
    let bad = |why: &str| Unformed(format!("endpoint \"{}\": {why}", endpoint.name));
    if !secret::is_name(name) {
        return Err(bad("auth_secret is not a secret's name"));
    }
    let token = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !token(&endpoint.auth_header) || is_reserved(&endpoint.auth_header) {
        return Err(bad("auth_header is not a header that may carry a secret"));
    }
    if !endpoint.auth_scheme.is_empty() && !token(&endpoint.auth_scheme) {
        return Err(bad("auth_scheme is not a token"));
    }
    Ok(Some(Auth { header: endpoint.auth_header.clone(), scheme: endpoint.auth_scheme.clone(), secret: name.clone() }))
}

/// Headers that frame or route the request, or that the wrapper itself sets.
fn is_reserved(header: &str) -> bool {
    const RESERVED: [&str; 14] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "content-type",
        "accept",
        "accept-encoding",
        "idempotency-key",
        "traceparent",
        "proxy-authorization",
    ];
    RESERVED.contains(&header.to_ascii_lowercase().as_str())
}

/// W3C Trace Context: the process run is the trace, run and attempt make the span.
pub(super) fn traceparent(process_run_id: Uuid, run_id: Uuid, attempt: i32) -> String {
    let mut hash = Sha256::new();
    hash.update(run_id.as_bytes());
    hash.update(attempt.to_be_bytes());
    let span = canonical::hex(&hash.finalize()[..8]);
    format!("00-{}-{span}-01", process_run_id.simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            name: "kg".into(),
            base_url: "https://agent.example/api/".into(),
            path: "/v1/dots/{code}/runs".into(),
            auth_header: "Authorization".into(),
            auth_scheme: "Bearer".into(),
            auth_secret: Some("agent_token".into()),
            status_path: None,
            max_in_flight: None,
            rate_per_s: None,
            rate_burst: 1,
            breaker_failures: 5,
            breaker_pause_s: 30,
        }
    }

    fn facts(args: &Value) -> Facts<'_> {
        Facts {
            code: "DOT-KG-017",
            mode: Mode::Apply,
            run_id: Uuid::from_u128(7),
            process_run_id: Uuid::from_u128(9),
            attempt: 1,
            args,
            fencing_token: Some(5),
            deadline: None,
        }
    }

    #[test]
    fn the_request_is_what_the_contract_says_and_shows_no_secret() {
        let args = json!({"scope": "all"});
        let request = request(&endpoint(), &facts(&args)).unwrap();
        assert_eq!(request.url.as_str(), "https://agent.example/api/v1/dots/DOT-KG-017/runs");
        let shown = request.masked();
        assert_eq!(shown["headers"]["authorization"], format!("Bearer {MASK}"));
        assert_eq!(shown["headers"]["idempotency-key"], "00000000-0000-0000-0000-000000000007");
        assert!(shown["headers"]["traceparent"].as_str().unwrap().starts_with("00-00000000000000000000000000000009-"));
        assert_eq!(shown["body"]["args"], args);
        assert_eq!(shown["body"]["fencing_token"], 5);
        assert!(!shown.to_string().contains("agent_token"));
    }

    #[test]
    fn a_plan_and_its_apply_have_one_fingerprint_and_a_change_has_another() {
        let args = json!({"a": 1});
        let one = request(&endpoint(), &facts(&args)).unwrap();
        let later = Facts { attempt: 3, run_id: Uuid::from_u128(8), mode: Mode::Verify, ..facts(&args) };
        let two = request(&endpoint(), &later).unwrap();
        assert_eq!(fingerprint("t1", &args, &one), fingerprint("t1", &args, &two));
        assert_ne!(fingerprint("t2", &args, &one), fingerprint("t1", &args, &one));
        assert_ne!(fingerprint("t1", &json!({"a": 2}), &one), fingerprint("t1", &args, &one));
    }

    #[test]
    fn a_delivery_changes_attempt_token_and_deadline_and_nothing_else() {
        let args = json!({"a": 1});
        let (run_id, process_run_id) = (Uuid::from_u128(7), Uuid::from_u128(9));
        let first = request(&endpoint(), &facts(&args)).unwrap();
        let second = first.clone().delivered((run_id, process_run_id), 2, Some(6), "2026-01-01T00:00:00Z");
        let whole =
            Facts { attempt: 2, fencing_token: Some(6), deadline: Some("2026-01-01T00:00:00Z"), ..facts(&args) };
        assert_eq!(second, request(&endpoint(), &whole).unwrap());
        assert_ne!(second.headers, first.headers);
    }

    #[test]
    fn an_unusable_endpoint_is_told_apart() {
        let args = json!({});
        for (change, why) in [
            (Endpoint { base_url: "ftp://x".into(), ..endpoint() }, "http://"),
            (Endpoint { base_url: "https://u:p@x".into(), ..endpoint() }, "user information"),
            (Endpoint { base_url: "https://x?q=1".into(), ..endpoint() }, "query"),
            (Endpoint { base_url: "not a url".into(), ..endpoint() }, "not a URL"),
            (Endpoint { path: "v1".into(), ..endpoint() }, "start with a slash"),
            (Endpoint { auth_header: "Host".into(), ..endpoint() }, "auth_header"),
            (Endpoint { auth_header: "X-A\r\nB".into(), ..endpoint() }, "auth_header"),
            (Endpoint { auth_secret: Some("../x".into()), ..endpoint() }, "auth_secret"),
        ] {
            let error = request(&change, &facts(&args)).unwrap_err();
            assert!(error.0.contains(why), "{} / {why}", error.0);
        }
    }

    proptest! {
        #[test]
        fn a_code_never_leaves_its_place_in_the_path(code in "\\PC{1,40}|[./%?#\\\\]{1,8}") {
            let args = json!({});
            let rendered = request(&endpoint(), &Facts { code: &code, ..facts(&args) });
            prop_assert_eq!(rendered.is_err(), code == "." || code == "..");
            let Ok(request) = rendered else { return Ok(()) };
            let segments: Vec<_> = request.url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 5);
            prop_assert_eq!(&segments[..3], &["api", "v1", "dots"]);
            prop_assert_eq!(segments[4], "runs");
            prop_assert_eq!(request.url.host_str(), Some("agent.example"));
        }
    }
}

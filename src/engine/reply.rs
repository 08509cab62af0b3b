//! Reads an answer of the agent contract. Whether it may be believed at this point (a status URL's 404 says nothing about
//! the run) is the business of who asked.

use std::time::{Duration, SystemTime};

use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::header::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::body::{self, Bounds, Cut, after};
use super::connection::Response;
use super::{Outcome, mask, reason};
use crate::domain::answer::{Answer, Reach, Verdict};
use crate::domain::secret::Secret;

/// How long the body of an error may take; its status has said what matters.
const ERROR_BODY: Duration = Duration::from_secs(2);
/// How much of an agent's own words a message quotes, in characters.
const QUOTED: usize = 200;
/// The longest `Retry-After` that is passed on.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What an answer says.
pub(super) enum Meaning {
    /// It is the end.
    Final(Outcome),
    /// 404 with `{"status": "unknown"}`: an end as well, and the answer to a question by key.
    NeverSeen(Outcome),
    /// 202, or a body that says `running`.
    Running {
        /// Where to ask, as it was sent.
        location: Option<String>,
        /// When to ask.
        retry_after: Option<Duration>,
    },
}

/// Reads head and body.
pub(super) async fn read(mut response: Response, bounds: Bounds, secret: Option<&Secret>) -> Meaning {
    let status = response.status;
    let remote = response.remote;
    let headers = std::mem::take(&mut response.headers);
    let retry_after = retry_after(&headers, SystemTime::now());
    let (mut bytes, mut unknown) = (0, false);
    let answer = match status {
        202 => None,
        200 | 201 => success(&mut response, &headers, bounds, secret, &mut bytes).await,
        300..=399 => Some(Answer::failure(
            Reach::Answered,
            reason::REDIRECT_REFUSED,
            format!("HTTP {status}: redirects are not followed"),
        )),
        _ => {
            let object = error_body(&mut response, &headers, bounds, &mut bytes).await;
            unknown = status == 404 && object.get("status").and_then(Value::as_str) == Some("unknown");
            Some(other(status, object, secret))
        }
    };
    response.finish();
    let Some(answer) = answer else {
        return Meaning::Running { location: text(&headers, LOCATION), retry_after };
    };
    let outcome = Outcome { answer: Answer { http_status: Some(status), remote, bytes, ..answer }, retry_after };
    if unknown { Meaning::NeverSeen(outcome) } else { Meaning::Final(outcome) }
}

/// 200 and 201; `None` when the body says `running`.
async fn success(
    response: &mut Response,
    headers: &HeaderMap,
    bounds: Bounds,
    secret: Option<&Secret>,
    bytes: &mut u64,
) -> Option<Answer> {
    let answered = |reason, message: String| Some(Answer::failure(Reach::Answered, reason, message));
    let unknown = |reason, message: &str| Some(Answer::failure(Reach::Sent, reason, message));
    if let Some(encoding) = encoding(headers) {
        return answered(reason::BAD_CONTENT_ENCODING, format!("the answer is encoded as {encoding}"));
    }
    if !is_json(headers) {
        let shown = text(headers, CONTENT_TYPE).unwrap_or_else(|| "nothing".into());
        return answered(
            reason::BAD_CONTENT_TYPE,
            format!("the answer's content type is {shown}, not application/json"),
        );
    }
    let whole = match body::read(response, bounds, bytes).await {
        Ok(whole) => whole,
        Err(Cut::TooLarge) => {
            return answered(reason::ANSWER_TOO_LARGE, format!("the answer is larger than {} bytes", bounds.max));
        }
        Err(Cut::Late) => return unknown(reason::TIMEOUT, "the time was over in the middle of the answer"),
        Err(Cut::Silent) => return unknown(reason::ANSWER_INCOMPLETE, "the answer stopped in the middle"),
        Err(Cut::Lost) => {
            return unknown(reason::ANSWER_INCOMPLETE, "the connection ended in the middle of the answer");
        }
    };
    match serde_json::from_slice(&whole) {
        Ok(Value::Object(object)) => contract(object, secret),
        Ok(_) => answered(reason::BAD_ANSWER, "the answer is not a JSON object".into()),
        // Without a length or chunks, a lost connection looks like the end of the body.
        Err(error) if error.is_eof() && !is_framed(headers) => {
            unknown(reason::ANSWER_INCOMPLETE, "the connection ended in the middle of the answer")
        }
        Err(error) => answered(
            reason::BAD_ANSWER,
            format!("the answer is not JSON (line {}, column {})", error.line(), error.column()),
        ),
    }
}

/// A body of the contract; `None` when it says `running`.
fn contract(mut object: Map<String, Value>, secret: Option<&Secret>) -> Option<Answer> {
    let (verdict, reason, default) = match object.get("status").and_then(Value::as_str) {
        Some("succeeded") => (Verdict::Succeeded, reason::OK, "the agent succeeded"),
        Some("failed") => (Verdict::Failed, reason::AGENT_FAILED, "the agent failed"),
        Some("refused") => (Verdict::Refused, reason::AGENT_REFUSED, "the agent refused"),
        Some("running") => return None,
        _ => {
            let message = "the answer's status is not succeeded, failed, refused or running";
            return Some(Answer::failure(Reach::Answered, reason::BAD_ANSWER, message));
        }
    };
    let message = said(&object, secret).unwrap_or_else(|| default.into());
    let (result, observations) = findings(&mut object, secret);
    Some(Answer { verdict, result, observations, ..Answer::failure(Reach::Answered, reason, message) })
}

/// The body of an error, where it is an object of JSON; else nothing. Its status has said what matters.
async fn error_body(
    response: &mut Response,
    headers: &HeaderMap,
    bounds: Bounds,
    bytes: &mut u64,
) -> Map<String, Value> {
    let until = bounds.until.min(after(Instant::now(), ERROR_BODY));
    if encoding(headers).is_none()
        && is_json(headers)
        && let Ok(whole) = body::read(response, Bounds { until, ..bounds }, bytes).await
        && let Ok(Value::Object(found)) = serde_json::from_slice(&whole)
    {
        return found;
    }
    Map::new()
}

/// Everything that is neither a success nor a redirect. The agent's own `failed` or `refused` tells that it knew the run
/// and did not do it; a `succeeded` under an error status counts for nothing.
fn other(status: u16, mut object: Map<String, Value>, secret: Option<&Secret>) -> Answer {
    let message = match said(&object, secret) {
        Some(words) => format!("HTTP {status}: {words}"),
        None => format!("HTTP {status}"),
    };
    let verdict = match object.get("status").and_then(Value::as_str) {
        Some("failed") => Verdict::Failed,
        Some("refused") => Verdict::Refused,
        _ => Verdict::None,
    };
    let (result, observations) = match status {
        409 | 422 => findings(&mut object, secret),
        _ if verdict != Verdict::None => findings(&mut object, secret),
        _ => (None, None),
    };
    Answer { verdict, result, observations, ..Answer::failure(Reach::Answered, format!("http_{status}"), message) }
}

/// `result` as it is, `observations` as an array; both cleaned, null being nothing.
fn findings(object: &mut Map<String, Value>, secret: Option<&Secret>) -> (Option<Value>, Option<Value>) {
    let mut take = |key| object.remove(key).filter(|v| !v.is_null()).map(|value| mask::json(value, secret));
    let result = take("result");
    let observations =
        take("observations").map(|value| if value.is_array() { value } else { Value::from(vec![value]) });
    (result, observations)
}

/// The agent's own words: `message` or `error`.
fn said(object: &Map<String, Value>, secret: Option<&Secret>) -> Option<String> {
    let words = ["message", "error"].into_iter().find_map(|key| object.get(key)?.as_str())?;
    Some(mask::line(words, secret, QUOTED)).filter(|words| !words.trim().is_empty())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    text(headers, CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn is_framed(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}

/// `Retry-After` in seconds or as a date; at most a day, and nothing when it is neither.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER)?;
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        value.parse().map_or(DAY, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 22 Nov 2026 10:00:00 GMT").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, want) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(value), want.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        for (value, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/json", false),
            ("text/html", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_json(&headers), want, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}

//! Checks a request against the contract before anything is done. What is done then is not known here.

use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::time;

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Look and tell; change nothing.
    Verify,
    /// Do it.
    Apply,
}

/// The body of a run. Fields that are not known are left for later versions of the contract.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// The tool.
    pub dot_code: String,
    /// What the caller wants.
    pub mode: Mode,
    /// The run; also the `Idempotency-Key`.
    pub run_id: Uuid,
    /// The undertaking that the run belongs to.
    #[serde(rename = "process_run_id")]
    pub _process_run_id: Uuid,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// The arguments.
    pub args: Map<String, Value>,
    /// Grows with every lease; absent for tools that need none.
    pub fencing_token: Option<i64>,
    /// When the caller stops waiting, RFC 3339.
    pub deadline: String,
}

impl Run {
    /// True when nobody waits any more. What cannot be read is taken for over.
    pub fn is_late(&self, now: SystemTime) -> bool {
        time::parse(&self.deadline).is_none_or(|deadline| deadline <= now)
    }
}

/// A request that is not taken: a status and a line for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem(pub StatusCode, pub String);

fn bad<T>(message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem(StatusCode::BAD_REQUEST, message.into()))
}

/// True when the caller shows the token. The time that it takes does not tell how much of a guess was right.
pub fn authorized(headers: &HeaderMap, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let shown = headers.get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    let shown = shown.unwrap_or_default();
    shown.len() == token.len() && shown.iter().zip(token.as_bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Reads and checks the whole request.
///
/// # Errors
/// The first problem found. None of them has had an effect, so the caller may correct and repeat.
pub fn read(code: &str, headers: &HeaderMap, body: &Value) -> Result<Run, Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text("content-type").and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is not application/json".into()));
    }
    let run: Run = match serde_json::from_value(body.clone()) {
        Ok(run) => run,
        Err(error) => return bad(format!("the body is not a run: {error}")),
    };
    if run.dot_code != code {
        return bad("dot_code is not the code in the path");
    }
    if text("idempotency-key").and_then(|key| key.parse().ok()) != Some(run.run_id) {
        return bad("Idempotency-Key is not the run_id");
    }
    if !text("traceparent").is_some_and(is_traceparent) {
        return bad("traceparent is missing or malformed");
    }
    if run.attempt < 1 {
        return bad("attempt starts at 1");
    }
    if time::parse(&run.deadline).is_none() {
        return bad("deadline is not an RFC 3339 time");
    }
    Ok(run)
}

/// W3C Trace Context, version 00: neither the trace nor the span may be all zeros.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, span, flags] = parts[..] else { return false };
    let zeros = |part: &str| part.bytes().all(|b| b == b'0');
    version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zeros(trace) && !zeros(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json; charset=utf-8".parse().unwrap());
        headers.insert("idempotency-key", Uuid::from_u128(7).to_string().parse().unwrap());
        headers.insert("traceparent", format!("00-{:032x}-{:016x}-01", 9, 7).parse().unwrap());
        headers
    }

    fn body() -> Value {
        json!({
            "dot_code": "DOT-1", "mode": "apply", "run_id": Uuid::from_u128(7), "process_run_id": Uuid::from_u128(9),
            "attempt": 1, "args": {}, "fencing_token": null, "deadline": "2026-11-22T10:00:00Z",
        })
    }

    #[test]
    fn a_request_of_the_contract_is_taken() {
        let run = read("DOT-1", &headers(), &body()).unwrap();
        assert_eq!((run.mode, run.attempt, run.fencing_token), (Mode::Apply, 1, None));
    }

    #[test]
    fn every_field_is_checked() {
        for (field, value) in [
            ("dot_code", json!("DOT-2")),
            ("mode", json!("plan")),
            ("run_id", json!(Uuid::from_u128(8))),
            ("run_id", json!("seven")),
            ("process_run_id", json!(null)),
            ("attempt", json!(0)),
            ("attempt", json!(-1)),
            ("attempt", json!("1")),
            ("args", json!([])),
            ("fencing_token", json!("5")),
            ("fencing_token", json!(1.5)),
            ("deadline", json!("tomorrow")),
            ("deadline", json!(null)),
        ] {
            let mut body = body();
            body[field] = value.clone();
            assert_eq!(read("DOT-1", &headers(), &body).unwrap_err().0, 400, "{field} {value}");
        }
        for (name, status) in [("content-type", 415), ("idempotency-key", 400), ("traceparent", 400)] {
            let mut headers = headers();
            headers.remove(name);
            assert_eq!(read("DOT-1", &headers, &body()).unwrap_err().0, status, "{name}");
        }
    }

    #[test]
    fn traces_are_read_strictly() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for bad in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_token_opens() {
        let mut headers = HeaderMap::new();
        assert!(authorized(&headers, None));
        assert!(!authorized(&headers, Some("t0ken")));
        for (value, want) in [("Bearer t0ken", true), ("Bearer t0keN", false), ("Bearer ", false), ("t0ken", false)] {
            headers.insert("authorization", value.parse().unwrap());
            assert_eq!(authorized(&headers, Some("t0ken")), want, "{value}");
        }
    }
}

//! The contract's two routes: start a run, and ask how it is.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Agent;
use crate::behaviour::{Behaviour, Kind};
use crate::book::{Decision, Ready};
use crate::contract::{self, Problem};

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // None of them has had an effect, and the agent says so.
        (self.0, Json(json!({"status": "refused", "message": self.1}))).into_response()
    }
}

/// `POST /v1/dots/{code}/runs`
pub async fn start(
    State(agent): State<Arc<Agent>>,
    Path(code): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    let decided = decide(&agent, &code, &headers, &body);
    let shown = match &decided {
        Ok((run_id, decision)) => json!({
            "run_id": run_id, "behaviour": format!("{:?}", decision.kind), "executed": decision.executed,
            "delivery": decision.delivery, "status": decision.answer.as_ref().map(|answer| &answer["status"]),
        }),
        Err(problem) => json!({"http": problem.0.as_u16(), "message": problem.1}),
    };
    agent.journal.write(&method, &uri, &headers, body, shown);
    match decided {
        Ok((run_id, decision)) => answer(&agent, run_id, decision, &uri).await,
        Err(problem) => problem.into_response(),
    }
}

/// `GET /v1/runs/{run_id}`, by `Location` or by key: the answer, that it is still running, or that it was never begun.
pub async fn status(
    State(agent): State<Arc<Agent>>,
    Path(run_id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let key = run_id.parse::<Uuid>().ok();
    let response = if !contract::authorized(&headers, agent.token.as_deref()) {
        unauthorized().into_response()
    } else if let Some(run_id) = key {
        known(&agent, run_id)
    } else {
        (StatusCode::NOT_FOUND, Json(json!({"message": "this is no key"}))).into_response()
    };
    agent.journal.write(&method, &uri, &headers, Value::Null, json!({"http": response.status().as_u16()}));
    response
}

fn known(agent: &Agent, run_id: Uuid) -> Response {
    match agent.book.look_up(run_id) {
        Some((answer, ready)) if agent.book.is_ready(ready) => Json(answer).into_response(),
        Some((_, ready)) => running(StatusCode::OK, run_id, ready),
        None => (StatusCode::NOT_FOUND, Json(json!({"status": "unknown", "message": "no such run"}))).into_response(),
    }
}

/// Everything else.
pub async fn unknown(State(agent): State<Arc<Agent>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    agent.journal.write(&method, &uri, &headers, Value::Null, json!({"http": 404}));
    (StatusCode::NOT_FOUND, Json(json!({"message": "no such route"}))).into_response()
}

/// Who is it, is it right, what is to be done: in this order.
fn decide(agent: &Agent, code: &str, headers: &HeaderMap, body: &Value) -> Result<(Uuid, Decision), Problem> {
    if !contract::authorized(headers, agent.token.as_deref()) {
        return Err(unauthorized());
    }
    let run = contract::read(code, headers, body)?;
    let behaviour = Behaviour::of(&run.args).map_err(|why| Problem(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    Ok((run.run_id, agent.book.take(&run, body, &behaviour)?))
}

fn unauthorized() -> Problem {
    Problem(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong".into())
}

/// The answer of the contract, or the fault that was asked for.
async fn answer(agent: &Agent, run_id: Uuid, decision: Decision, uri: &Uri) -> Response {
    if decision.kind.is_fault() {
        return fault(decision.kind, uri).await;
    }
    // A delivery that comes while an earlier one is still at work is pointed to where the answer will be.
    let accepted = decision.kind == Kind::Accepted;
    if decision.first && !accepted {
        agent.book.wait(decision.ready).await;
    }
    if !agent.book.is_ready(decision.ready) || (decision.first && accepted) {
        return running(StatusCode::ACCEPTED, run_id, decision.ready);
    }
    Json(decision.answer).into_response()
}

fn running(status: StatusCode, run_id: Uuid, ready: Ready) -> Response {
    let headers =
        [(header::LOCATION, format!("/v1/runs/{run_id}")), (header::RETRY_AFTER, ready.retry_after().to_string())];
    (status, headers, Json(json!({"status": "running"}))).into_response()
}

/// What an agent should not do. For tests of the caller.
async fn fault(kind: Kind, uri: &Uri) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match kind {
        Kind::Garbage => (json, "{\"status\": succeeded").into_response(),
        Kind::Html => ([(header::CONTENT_TYPE, "text/html")], "<html><body>It works!</body></html>").into_response(),
        Kind::Huge => {
            (json, format!(r#"{{"status":"succeeded","result":"{}"}}"#, "x".repeat(16 << 20))).into_response()
        }
        Kind::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, uri.path().to_owned())]).into_response(),
        Kind::Nothing => std::future::pending().await,
        Kind::Status(code, retry_after) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = Json(json!({"message": format!("the arguments told the agent to answer {code}")}));
            let mut response = (status, body).into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Book;
    use crate::journal::Journal;

    fn agent() -> Arc<Agent> {
        Arc::new(Agent { token: None, book: Book::default(), journal: Journal::open(None).unwrap() })
    }

    async fn shown(response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn ask(agent: &Arc<Agent>, run_id: &str) -> (u16, Value) {
        let path = Path(run_id.to_owned());
        shown(status(State(Arc::clone(agent)), path, Method::GET, "/".parse().unwrap(), HeaderMap::new()).await).await
    }

    async fn post(agent: &Arc<Agent>, deadline: &str, args: Value) -> (u16, Value) {
        let run_id = Uuid::from_u128(7);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("idempotency-key", run_id.to_string().parse().unwrap());
        headers.insert("traceparent", format!("00-{:032x}-{:016x}-01", 9, 7).parse().unwrap());
        let body = json!({
            "dot_code": "DOT-1", "mode": "apply", "run_id": run_id, "process_run_id": Uuid::from_u128(9), "attempt": 1,
            "args": args, "fencing_token": null, "deadline": deadline,
        });
        let (path, uri, body) = (Path("DOT-1".to_owned()), "/".parse().unwrap(), body.to_string().into());
        shown(start(State(Arc::clone(agent)), path, Method::POST, uri, headers, body).await).await
    }

    #[tokio::test]
    async fn a_key_is_unknown_then_running_then_answered() {
        let (agent, key) = (agent(), Uuid::from_u128(7).to_string());
        let unknown = (404, json!("unknown"));
        let of = |(status, body): (u16, Value)| (status, body["status"].clone());
        assert_eq!(of(ask(&agent, &key).await), unknown);
        let (never, in_time) = ("2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z");
        let (status, body) = post(&agent, never, json!({})).await;
        assert_eq!((status, &body["message"]), (200, &json!("the deadline has passed")));
        assert_eq!(of(ask(&agent, &key).await), unknown, "what came too late was not begun");
        let orders = json!({"agent": "accepted", "ms": 3_600_000});
        assert_eq!(of(post(&agent, in_time, orders).await), (202, json!("running")));
        assert_eq!(of(ask(&agent, &key).await), (200, json!("running")));
        let done = self::agent();
        assert_eq!(of(post(&done, in_time, json!({})).await), (200, json!("succeeded")));
        assert_eq!(ask(&done, &key).await, post(&done, never, json!({})).await, "the same answer, asked or sent again");
        assert_eq!(of(post(&done, in_time, json!({"other": 1})).await), (422, json!("refused")));
    }

    #[tokio::test]
    async fn what_is_no_key_is_not_called_unknown() {
        assert_eq!(ask(&agent(), "seven").await, (404, json!({"message": "this is no key"})));
    }
}

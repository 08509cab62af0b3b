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
        (self.0, Json(json!({"message": self.1}))).into_response()
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

/// `GET /v1/runs/{run_id}`: 200 with the answer, 202 as long as there is none.
pub async fn status(
    State(agent): State<Arc<Agent>>,
    Path(run_id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let known = run_id.parse().ok().and_then(|run_id| agent.book.look_up(run_id).map(|found| (run_id, found)));
    let response = if !contract::authorized(&headers, agent.token.as_deref()) {
        unauthorized().into_response()
    } else if let Some((run_id, (answer, ready))) = known {
        if agent.book.is_ready(ready) { Json(answer).into_response() } else { running(run_id, ready) }
    } else {
        Problem(StatusCode::NOT_FOUND, "no such run".into()).into_response()
    };
    agent.journal.write(&method, &uri, &headers, Value::Null, json!({"http": response.status().as_u16()}));
    response
}

/// Everything else.
pub async fn unknown(State(agent): State<Arc<Agent>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    agent.journal.write(&method, &uri, &headers, Value::Null, json!({"http": 404}));
    Problem(StatusCode::NOT_FOUND, "no such route".into()).into_response()
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
        return running(run_id, decision.ready);
    }
    Json(decision.answer).into_response()
}

fn running(run_id: Uuid, ready: Ready) -> Response {
    let headers =
        [(header::LOCATION, format!("/v1/runs/{run_id}")), (header::RETRY_AFTER, ready.retry_after().to_string())];
    (StatusCode::ACCEPTED, headers, Json(json!({"status": "running"}))).into_response()
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
        Kind::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Problem(status, format!("the arguments told the agent to answer {code}")).into_response()
        }
        _ => Problem(StatusCode::INTERNAL_SERVER_ERROR, "not a fault".into()).into_response(),
    }
}

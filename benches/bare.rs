//! A client without a database: the same calls by the HTTP library that our worker uses, and nothing else. Its rate is
//! what calls alone cost on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::agent::Agent;

/// As large as the body of a run.
const BODY: &str = r#"{"dot_code":"FAST-1","mode":"apply","run_id":"019a0000-0000-7000-8000-000000000000","process_run_id":"019a0000-0000-7000-8000-000000000000","attempt":1,"args":{"n":12345},"fencing_token":12345,"deadline":"2026-01-01T00:00:00.000Z"}"#;

/// Calls a second of one thread with so many calls out.
pub fn rate(agent: &Agent, wait_ms: u32, in_flight: usize, count: usize) -> f64 {
    agent.forget();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let url = format!("http://127.0.0.1:{}/wait/{wait_ms}/v1/dots/FAST-1/runs", agent.port());
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    runtime.block_on(async {
        let callers: Vec<_> = (0..in_flight)
            .map(|_| {
                let (client, url, next) = (client.clone(), url.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return;
                        }
                        let call = Request::post(&url).header("content-type", "application/json");
                        let call = call.header("idempotency-key", (n + 1).to_string());
                        let call = call.body(Full::new(Bytes::from_static(BODY.as_bytes()))).expect("a request");
                        let answer = client.request(call).await.expect("an answer");
                        let _ = answer.into_body().collect().await;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("a caller");
        }
    });
    count as f64 / began.elapsed().as_secs_f64()
}

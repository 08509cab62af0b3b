//! Work that an agent has accepted: asked about, also by the next worker, and never sent again.

use serde_json::{Value, json};

use crate::harness::reference::Reference;
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

fn count(records: &[Value], method: &str) -> usize {
    records.iter().filter(|record| record["method"] == method).count()
}

/// With the reference agent, which forgets nothing while the server crashes.
#[test]
fn accepted_work_survives_the_worker_and_is_not_sent_again() {
    let agent = Reference::start();
    let bench = Bench::own(&[]);
    bench.exec(&format!(
        "UPDATE dot_wrapper.endpoint SET base_url = 'http://127.0.0.1:{0}';
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {0}, '{{127.0.0.1/32}}')",
        agent.port()
    ));
    let args = json!({"agent": "accepted", "ms": 4000, "result": {"nodes": 7}});
    let run = bench.ask(&Ask { args, ..Ask::new("DOT-1", "apply") });
    until("the agent is asked", || (count(&agent.requests(), "GET") >= 1).then_some(()));
    bench.kill(bench.worker());
    let asked = count(&agent.requests(), "GET");
    let ended = bench.until(&run, "succeeded");
    assert_eq!((&ended.0["result"], &ended.0["attempts"]), (&json!({"nodes": 7}), &json!(1)));
    let records = agent.requests();
    assert_eq!(count(&records, "POST"), 1, "{records:?}");
    assert!(count(&records, "GET") > asked, "the new worker has asked");
    assert_eq!(bench.events(&run), ["queued", "running", "accepted", "succeeded"]);
}

/// Nothing that a status URL says without an end of the contract ends the run as anything but doubt.
#[test]
fn accepted_work_that_nobody_knows_of_any_more_is_in_doubt() {
    let bench = Bench::shared();
    bench.agent.plan(|request| match request.method.as_str() {
        "POST" => Reply::Accepted,
        _ => Reply::Json(404, json!({"message": "no such run"})),
    });
    bench.exec("UPDATE dot_wrapper.policy SET retry_base_ms = 1 WHERE name = 'agent_api'");
    let apply = bench.until(&bench.apply("DOT-1"), "in_doubt");
    assert_eq!(apply.reason(), "http_404");
    assert_eq!(bench.until(&bench.verify("DOT-2"), "failed").reason(), "http_404");
    let posts = bench.agent.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(posts, 1 + 5, "the apply once, the verify as often as its policy allows");
}

/// The question carries the run and its trace, and no key that would make it a second delivery.
#[test]
fn accepted_work_is_asked_about_until_it_ends() {
    let bench = Bench::shared();
    bench.agent.plan(|request| match (request.method.as_str(), request.number) {
        ("POST", _) => Reply::Accepted,
        (_, 1) => Reply::Json(200, json!({"status": "running"})),
        (_, 2) => Reply::Json(503, json!({})),
        (_, 3) => Reply::Close,
        _ => Reply::ended("failed"),
    });
    let run = bench.until(&bench.apply("DOT-1"), "failed");
    assert_eq!(run.reason(), "agent_failed");
    let requests = bench.agent.requests();
    assert_eq!(requests.iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["POST", "GET", "GET", "GET", "GET"]);
    for question in &requests[1..] {
        assert_eq!(question.path, format!("/v1/runs/{}", run.id()));
        assert_eq!(question.header("idempotency-key"), "");
        assert_eq!(question.header("traceparent"), requests[0].header("traceparent"));
    }
}

//! D3: each request that an endpoint received matches exactly one attempt row, across crashes at every fail point and
//! whatever the endpoint does to the connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::harness::{Bench, Reply, Request, Run, figure, rounds, until};

/// Crashes the server once at a point, while a run comes by there. The run, if the caller was told of it.
fn crash_at(bench: &Bench, entries: &[&str]) -> Option<Run> {
    let points = bench.cluster.fail_points(entries);
    let mut session = bench.connect();
    let asked = crate::harness::run::Ask::new("DOT-1", "apply").on(&mut session).ok();
    points.wait_for_deaths();
    bench.forget_session();
    asked
}

/// The run as soon as it has ended; the server may still be about to crash.
#[track_caller]
fn ended(bench: &Bench, run: &Run) -> Run {
    let sql = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r
               WHERE run_id = $1 AND run_status NOT IN ('queued', 'running')";
    until("the run has ended", || {
        let mut session = bench.cluster.connect_as(&bench.name, "postgres").ok()?;
        session.query_opt(sql, &[&run.id()]).ok()?.map(|row| Run(row.get(0)))
    })
}

/// How often an attempt was received, of those that have a row; fails when a request has none.
#[track_caller]
fn received(bench: &Bench, run: &Run) -> Vec<usize> {
    let mut attempts: BTreeMap<i64, usize> = bench
        .all("SELECT attempt::bigint FROM dot_wrapper.dot_run_attempt WHERE run_id = $1", &[&run.id()])
        .into_iter()
        .map(|attempt: i64| (attempt, 0))
        .collect();
    for request in bench.agent.requests().iter().filter(|r| r.method == "POST" && r.run_id() == Some(run.id())) {
        let attempt = request.body["attempt"].as_i64().expect("an attempt");
        let count = attempts.get_mut(&attempt);
        *count.unwrap_or_else(|| panic!("attempt {attempt} was sent and has no row: {request:?}")) += 1;
    }
    attempts.into_values().collect()
}

#[test]
fn d3_one_to_one_across_crashes_at_every_fail_point() {
    // Where it crashes, what the agent does, and how often each attempt is received: at least, at most.
    let cases: [(&[&str], Reply, usize, usize); 9] = [
        (&["claim_gate=abort once"], Reply::succeeded(), 1, 1),
        (&["claim_before_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["claim_after_commit=abort once"], Reply::succeeded(), 0, 0),
        (&["submitted=abort once"], Reply::succeeded(), 0, 1),
        (&["report_received=abort once"], Reply::succeeded(), 1, 1),
        (&["accepted_recorded=abort once"], Reply::Accepted, 1, 1),
        (&["settle_before_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["settle_after_commit=abort once"], Reply::succeeded(), 1, 1),
        (&["recover_before_commit=abort once", "claim_after_commit=abort once"], Reply::succeeded(), 0, 0),
    ];
    let bench = Bench::own(&[]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
    let (times, mut crashes, mut matched) = (rounds(2, 50), 0, 0);
    for (entries, reply, least, most) in cases {
        for _ in 0..times {
            let reply = reply.clone();
            bench.agent.plan(move |request| if request.method == "GET" { Reply::succeeded() } else { reply.clone() });
            let run = crash_at(&bench, entries).expect("a run was admitted");
            let ended = ended(&bench, &run);
            let received = received(&bench, &ended);
            assert_eq!(received.len(), 1, "attempts, {entries:?}");
            assert!((least..=most).contains(&received[0]), "{received:?} {entries:?} {ended:?}");
            crashes += entries.len();
            matched += 1;
        }
    }
    for _ in 0..times {
        assert!(crash_at(&bench, &["request_before_return=abort once"]).is_none(), "the caller was told of it");
        crashes += 1;
    }
    let known: i64 = bench.one("SELECT count(*) FROM dot_run", &[]);
    assert_eq!(known, matched, "a run whose caller crashed has left a row");
    let ids: Vec<Uuid> = bench.all("SELECT run_id FROM dot_wrapper.dot_run_attempt", &[]);
    assert!(bench.agent.requests().iter().all(|request| request.run_id().is_some_and(|id| ids.contains(&id))));
    figure(
        "D3-crashes",
        &format!("{crashes} crashes at 10 fail points, {matched} runs, each request has its attempt row"),
    );
}

/// The other two things that a point can do, without which tests of promises could not be certain.
#[test]
fn d3_fail_points_wait_and_fail() {
    let bench = Bench::own(&[]);
    let points =
        bench.cluster.fail_points(&["claim_before_commit=wait(DOT-1)", "settle_before_commit=error(DOT-2) once"]);
    let waits = bench.apply("DOT-1");
    points.wait_for(1);
    assert_eq!(bench.run(waits.id()).status(), "queued");
    let behind = bench.apply("DOT-2");
    assert_eq!(bench.agent.count(), 0);
    drop(points);
    bench.until(&waits, "succeeded");
    bench.until(&behind, "succeeded");
    let points = bench.cluster.fail_points(&["settle_before_commit=error(DOT-2) once", "claim_gate=wait(DOT-1)"]);
    bench.until(&bench.apply("DOT-2"), "succeeded");
    assert_eq!(points.reached(0), 2, "the second try came through");
    let stuck = bench.apply("DOT-1");
    until("it waits", || (points.reached(1) > 0).then_some(()));
    let worker = bench.worker();
    assert!(bench.one::<bool>("SELECT pg_terminate_backend($1)", &[&worker]), "a wait can be interrupted");
    until("there is a new worker", || bench.worker_now().filter(|pid| *pid != worker));
    assert_eq!(bench.run(stuck.id()).status(), "queued");
}

/// What the raw endpoint does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Closes at once, without reading.
    AfterAccept,
    /// Reads all, is silent for a moment, and closes.
    AfterIdle,
    /// Reads a part of the head and closes, which resets the connection.
    AfterPart,
    /// Sends the caller elsewhere, to the same server.
    Redirects,
    /// Answers, and leaves the connection open for more.
    StaysOpen,
}

const MANNERS: [Manner; 5] =
    [Manner::AfterAccept, Manner::AfterIdle, Manner::AfterPart, Manner::Redirects, Manner::StaysOpen];

/// What it has seen: connections, and the requests that came as a whole.
#[derive(Default)]
struct Seen {
    connections: usize,
    whole: Vec<(Uuid, i64)>,
}

fn meet(mut stream: TcpStream, manner: &Mutex<Manner>, seen: &Mutex<Seen>) {
    seen.lock().unwrap().connections += 1;
    let first = *manner.lock().unwrap();
    match first {
        Manner::AfterAccept => return,
        Manner::AfterPart => return drop(stream.read_exact(&mut [0; 10])),
        Manner::AfterIdle | Manner::Redirects | Manner::StaysOpen => {}
    }
    while let Ok(request) = Request::read(&mut stream) {
        let attempt = request.body["attempt"].as_i64().unwrap_or_default();
        seen.lock().unwrap().whole.push((request.run_id().unwrap_or_default(), attempt));
        // A connection that was kept may carry requests of the next manner.
        let now = *manner.lock().unwrap();
        let answer = match now {
            Manner::Redirects => "HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
            Manner::StaysOpen => {
                "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{\"status\":\"succeeded\"}"
            }
            _ => return std::thread::sleep(Duration::from_millis(20)),
        };
        let _ = stream.write_all(answer.as_bytes());
    }
}

#[test]
fn d3_one_to_one_whatever_the_endpoint_does_to_the_connection() {
    let bench = Bench::shared();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().unwrap().port();
    let manner = Arc::new(Mutex::new(MANNERS[0]));
    let seen = Arc::new(Mutex::new(Seen::default()));
    std::thread::spawn({
        let (manner, seen) = (Arc::clone(&manner), Arc::clone(&seen));
        move || {
            for stream in listener.incoming().flatten() {
                let (manner, seen) = (Arc::clone(&manner), Arc::clone(&seen));
                std::thread::spawn(move || meet(stream, &manner, &seen));
            }
        }
    });
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.endpoint (name, base_url, breaker_failures) VALUES ('raw', 'http://127.0.0.1:{port}', 0);
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint, lease, max_attempts, retry_base_ms)
             VALUES ('tool', 'DOT-1', 'raw', 'none', 2, 1)"
    ));
    let (times, mut before) = (rounds(3, 50), 0);
    for one in MANNERS {
        *manner.lock().unwrap() = one;
        for _ in 0..times {
            let run = ended(&bench, &bench.apply("DOT-1"));
            let attempts = run.0["attempts"].as_i64().unwrap();
            assert!(attempts >= 1 && (run.status() == "succeeded") == (one == Manner::StaysOpen), "{one:?} {run:?}");
        }
        bench.drain();
        let (seen, attempts) = (
            seen.lock().unwrap(),
            "SELECT count(*) FROM dot_wrapper.dot_run_attempt WHERE run_id IN
            (SELECT run_id FROM dot_wrapper.dot_run WHERE code = 'DOT-1')",
        );
        let attempts: i64 = bench.one(attempts, &[]);
        // Only what was answered in full lets a connection carry another request.
        let keeps = matches!(one, Manner::Redirects | Manner::StaysOpen);
        assert!(seen.connections as i64 == attempts || keeps, "connections and attempts up to {one:?}");
        assert!(seen.connections as i64 <= attempts, "a connection without an attempt, {one:?}");
        let unread = matches!(one, Manner::AfterAccept | Manner::AfterPart);
        assert_eq!(seen.whole.len() - before, if unread { 0 } else { times }, "requests of {one:?}");
        before = seen.whole.len();
    }
    let seen = seen.lock().unwrap();
    let mut known: Vec<Uuid> = bench.all("SELECT run_id FROM dot_wrapper.dot_run_attempt", &[]);
    known.sort_unstable();
    let mut once: Vec<_> = seen.whole.iter().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seen.whole.len(), "a request came twice");
    assert!(seen.whole.iter().all(|(run, _)| known.binary_search(run).is_ok()), "a request without an attempt");
    let line =
        format!("{} connections, {} whole requests, each of one attempt, none twice", seen.connections, once.len());
    figure("D3-endpoint", &line);
}

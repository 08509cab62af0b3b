//! The handle: every call that went in has one end, whatever happens to the thread.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use uuid::Uuid;

use super::server::{Server, json, wait_for_close};
use super::{Call, Config, Rig, assert_end, call};
use crate::domain::answer::{Reach, Verdict};
use crate::domain::doubt::Finding;
use crate::engine::departure::Permission;
use crate::engine::reports::Reports;
use crate::engine::thread::watched;
use crate::engine::ticket::Ticket;
use crate::engine::{Engine, Errand, Report, Waker};

const OK: &str = r#"{"status":"succeeded"}"#;

#[test]
fn many_calls_end_once_each() {
    let server = Server::saying(json("200 OK", "", OK));
    let rig = Rig::new();
    for number in 0..100 {
        let mut call = call(server.port);
        call.run_id = Uuid::from_u128(number);
        rig.engine.submit(call);
    }
    assert_eq!(rig.engine.in_flight(), 100);
    let mut seen = HashSet::new();
    while seen.len() < 100 {
        match rig.engine.try_recv() {
            Some(Report::Ended { run_id, answer, .. }) => {
                assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
                assert!(seen.insert(run_id));
            }
            Some(other) => panic!("{other:?}"),
            None => rig.sleep(),
        }
    }
    assert_eq!(rig.engine.in_flight(), 0);
    assert!(rig.engine.try_recv().is_none());
    assert_eq!(server.connections(), 100);
}

#[test]
fn a_slow_call_does_not_hold_up_another() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Server::start(move |_, _, stream| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
        let _ = stream.write_all(json("200 OK", "", OK).as_bytes());
    });
    let fast = Server::saying(json("200 OK", "", r#"{"status":"failed"}"#));
    let rig = Rig::new();
    rig.engine.submit(call(slow.port));
    let mut second = call(fast.port);
    second.attempt = 2;
    assert_eq!(rig.run(second).verdict, Verdict::Failed);
    assert_eq!(rig.engine.in_flight(), 1);
    release.send(()).unwrap();
    assert_eq!(rig.end().verdict, Verdict::Succeeded);
}

fn asked_by_key(mut call: Call) -> Call {
    call.errand = Errand::Inquire(call.request.http().unwrap().url.clone());
    call
}

#[test]
fn a_panic_in_a_call_is_a_report() {
    let (waker, wakeup) = Waker::pair().unwrap();
    let (channel, incoming) = mpsc::channel();
    let reports = Reports::new(channel, waker);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let permission = Arc::new(Permission::none());
    let panicking = |call: Call| {
        let ticket = Ticket::of(&call, &permission);
        let work = async { panic!("a defect, in a test") };
        // As a task, like in the engine: the runtime catches the panic.
        assert!(runtime.block_on(runtime.spawn(watched(ticket, work, reports.clone()))).is_err());
        incoming.try_recv().unwrap()
    };
    for (errand, reach) in
        [(Errand::Deliver, Reach::NotSent), (Errand::Follow(call(1).request.http().unwrap().url.clone()), Reach::Sent)]
    {
        let Report::Ended { run_id, attempt, answer, .. } = panicking(Call { errand, ..call(1) }) else {
            panic!("an end")
        };
        assert_eq!((run_id, attempt), (call(1).run_id, call(1).attempt));
        assert_end(&answer, reach, Verdict::None, "engine_panic");
    }
    let Report::Learned { finding: Finding::NoAnswer { message, .. }, .. } = panicking(asked_by_key(call(1))) else {
        panic!("an end")
    };
    assert!(message.contains("defect"), "{message}");
    assert!(incoming.try_recv().is_err(), "one report each");
    assert!(wakeup.as_raw_fd() >= 0);
}

#[test]
fn a_thread_that_never_runs_loses_no_report() {
    let (waker, _wakeup) = Waker::pair().unwrap();
    let engine = Engine::start(Config::default(), waker, |body| {
        drop(body);
        std::thread::Builder::new().spawn(|| {})
    })
    .unwrap();
    assert!(!engine.is_alive());
    engine.submit(call(1));
    let mut followed = call(1);
    followed.attempt = 2;
    followed.errand = Errand::Follow(followed.request.http().unwrap().url.clone());
    engine.submit(followed);
    for reach in [Reach::NotSent, Reach::Sent] {
        let Some(Report::Ended { answer, .. }) = engine.try_recv() else { panic!("an end") };
        assert_end(&answer, reach, Verdict::None, "engine_down");
    }
    engine.submit(asked_by_key(call(1)));
    assert!(matches!(engine.try_recv(), Some(Report::Learned { finding: Finding::NoAnswer { .. }, .. })));
    assert_eq!((engine.in_flight(), engine.unsent()), (0, 0));
    assert!(engine.try_recv().is_none());
}

#[test]
fn a_call_that_died_with_the_thread_is_known_to_have_been_sent_or_not() {
    let (waker, _wakeup) = Waker::pair().unwrap();
    let (hold, held) = mpsc::channel();
    let engine = Engine::start(Config::default(), waker, |body| {
        hold.send(body).unwrap();
        std::thread::Builder::new().spawn(|| {})
    })
    .unwrap();
    let body = held.recv().unwrap();
    engine.submit(call(1));
    assert!(engine.is_alive() && engine.try_recv().is_none());
    drop(body);
    let Some(Report::Ended { answer, .. }) = engine.try_recv() else { panic!("an end") };
    assert_end(&answer, Reach::NotSent, Verdict::None, "engine_panic");
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn an_end_of_the_thread_wakes_the_owner() {
    let Rig { engine, runtime, bell, .. } = Rig::new();
    assert!(engine.shutdown(Duration::from_secs(20)).is_empty());
    runtime.block_on(async { timeout(Duration::from_secs(20), bell.readable()).await.unwrap().unwrap() });
}

#[test]
fn shutdown_drops_the_calls_and_keeps_what_was_reported() {
    let (arrived, seen) = mpsc::channel();
    let (closed, gone) = mpsc::channel();
    let slow = Server::start(move |_, _, stream| {
        arrived.send(()).unwrap();
        wait_for_close(stream);
        closed.send(()).unwrap();
    });
    let rig = Rig::new();
    rig.engine.submit(call(slow.port));
    seen.recv_timeout(Duration::from_secs(20)).unwrap();
    let mut refused = call(1);
    refused.attempt = 2;
    rig.engine.submit(refused);
    // Its wake, and not its report, is taken.
    rig.sleep();
    let started = Instant::now();
    let reports = rig.engine.shutdown(Duration::from_secs(20));
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(matches!(&reports[..], [Report::Ended { attempt: 2, .. }]), "{reports:?}");
    gone.recv_timeout(Duration::from_secs(20)).unwrap();
}

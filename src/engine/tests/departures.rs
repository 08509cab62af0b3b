//! Whether a delivery may begin to send, whether it has, and what calling it off makes of it.

use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::{Server, json, wait_for_close};
use super::tls::{ca_file, held, over_tls, trusting};
use super::{Call, Config, Errand, Finding, Report, Rig, TempDir, assert_end, call, http};
use crate::domain::answer::{Reach, Verdict};

const OK: &str = r#"{"status":"succeeded"}"#;
const LONG: Duration = Duration::from_secs(20);

/// A server that reports every byte that came in, once the connection is over.
fn listening() -> (Server, Receiver<Vec<u8>>) {
    let (heard, bytes) = mpsc::channel();
    let server = Server::connections_to(move |stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        heard.send(all).unwrap();
    });
    (server, bytes)
}

fn with_body(port: u16, size: usize) -> Call {
    let mut call = call(port);
    http(&mut call).body["args"] = "x".repeat(size).into();
    call
}

fn refused(rig: &Rig) {
    rig.engine.allow_until(Instant::now());
}

#[test]
fn without_a_permission_not_one_byte_leaves() {
    let (server, bytes) = listening();
    for size in [1, 100_000, 4_000_000] {
        let rig = Rig::new();
        refused(&rig);
        let answer = rig.run(with_body(server.port, size));
        assert_end(&answer, Reach::NotSent, Verdict::None, "withheld");
        assert!(answer.message.contains("not seen open"), "{}", answer.message);
        assert_eq!(bytes.recv_timeout(LONG).unwrap(), b"", "a connection without a byte");
    }
    assert_eq!(server.connections(), 3, "withheld is not tried again");
}

#[test]
fn a_fresh_engine_has_no_permission_and_a_new_one_counts_at_once() {
    let server = Server::saying(json("200 OK", "", OK));
    let (waker, wakeup) = crate::engine::Waker::pair().unwrap();
    let engine =
        crate::engine::Engine::start(Config::default(), waker, |body| std::thread::Builder::new().spawn(body)).unwrap();
    let ended = |call| {
        engine.submit(call);
        loop {
            match engine.try_recv() {
                Some(Report::Ended { answer, .. }) => return answer.reason,
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        }
    };
    assert_eq!(ended(call(server.port)), "withheld");
    engine.allow_until(Instant::now() + LONG);
    assert_eq!(ended(call(server.port)), "ok");
    drop(wakeup);
}

#[test]
fn a_head_that_would_be_written_early_is_not_sent_at_all() {
    let server = Server::saying(json("200 OK", "", OK));
    let mut call = call(server.port);
    http(&mut call).headers.push(("x-long", "x".repeat(500_000)));
    assert_end(&Rig::new().run(call), Reach::NotSent, Verdict::None, "request_unusable");
    assert_eq!(server.connections(), 0);
    // The longest that can be: hyper keeps all of it until it has asked for the body.
    let (server, bytes) = listening();
    let mut call = super::call(server.port);
    http(&mut call).headers.push(("x-long", "x".repeat(250_000)));
    let rig = Rig::new();
    refused(&rig);
    assert_end(&rig.run(call), Reach::NotSent, Verdict::None, "withheld");
    assert_eq!(bytes.recv_timeout(LONG).unwrap(), b"");
}

/// A TLS server whose handshakes wait for a word each, and that says when one has come.
struct Held {
    server: Server,
    heard: Arc<Mutex<Vec<u8>>>,
    arrived: Receiver<()>,
    release: Sender<()>,
    dir: TempDir,
}

impl Held {
    fn new() -> Held {
        let (came, arrived) = mpsc::channel();
        let (release, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let (server, heard) = held(move || {
            came.send(()).unwrap();
            let _ = wait.lock().unwrap().recv_timeout(LONG);
        });
        Held { server, heard, arrived, release, dir: ca_file() }
    }

    fn rig(&self) -> Rig {
        Rig::with(trusting(&self.dir))
    }

    fn call(&self) -> Call {
        over_tls("localhost", self.server.port)
    }

    fn plain(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

#[test]
fn the_permission_is_looked_at_after_the_connection_is_made() {
    let held = Held::new();
    let rig = held.rig();
    rig.engine.submit(held.call());
    held.arrived.recv_timeout(LONG).unwrap();
    assert_eq!((rig.engine.unsent(), rig.engine.in_flight()), (1, 1), "its permission has to be kept up");
    refused(&rig);
    held.release.send(()).unwrap();
    assert_end(&rig.end(), Reach::NotSent, Verdict::None, "withheld");
    assert_eq!((held.plain(), rig.engine.unsent()), (Vec::new(), 0));
    // The other way round: one that is given late enough is enough.
    rig.engine.submit(held.call());
    held.arrived.recv_timeout(LONG).unwrap();
    rig.engine.allow_until(Instant::now() + LONG);
    held.release.send(()).unwrap();
    assert_end(&rig.end(), Reach::Answered, Verdict::Succeeded, "ok");
}

#[test]
fn what_has_begun_to_send_is_not_unsent_and_goes_on_without_a_permission() {
    let (release, wait) = mpsc::channel::<()>();
    let (came, arrived) = mpsc::channel();
    let wait = Mutex::new(wait);
    let server = Server::start(move |_, _, stream| {
        came.send(()).unwrap();
        let _ = wait.lock().unwrap().recv_timeout(LONG);
        let _ = stream.write_all(json("200 OK", "", OK).as_bytes());
    });
    let rig = Rig::new();
    rig.engine.submit(call(server.port));
    arrived.recv_timeout(LONG).unwrap();
    assert_eq!((rig.engine.unsent(), rig.engine.in_flight()), (0, 1));
    refused(&rig);
    release.send(()).unwrap();
    assert_end(&rig.end(), Reach::Answered, Verdict::Succeeded, "ok");
}

#[test]
fn an_end_that_nobody_took_yet_is_not_unsent() {
    let rig = Rig::new();
    rig.engine.submit(call(1));
    rig.sleep();
    assert_eq!((rig.engine.unsent(), rig.engine.in_flight()), (0, 1));
    assert_end(&rig.end(), Reach::NotSent, Verdict::None, "connect_failed");
}

#[test]
fn calling_off_before_the_first_byte_says_that_nothing_was_sent() {
    let held = Held::new();
    let rig = held.rig();
    let call = held.call();
    let (run_id, attempt) = (call.run_id, call.attempt);
    // Before the engine has even looked at it, and in the middle of the handshake.
    rig.engine.submit(call.clone());
    rig.engine.cancel(run_id, attempt);
    assert_end(&rig.end(), Reach::NotSent, Verdict::None, "cancelled");
    while held.arrived.try_recv().is_ok() {}
    rig.engine.submit(Call { attempt: 2, ..call });
    held.arrived.recv_timeout(LONG).unwrap();
    rig.engine.cancel(run_id, 2);
    assert_end(&rig.end(), Reach::NotSent, Verdict::None, "cancelled");
    assert_eq!((rig.engine.in_flight(), rig.engine.unsent()), (0, 0));
    assert!(rig.engine.try_recv().is_none());
    drop(held.release);
    assert!(held.heard.lock().unwrap().is_empty());
}

/// Calls off a call that has come as far as `arrived` says, and waits until the server sees the connection end.
fn called_off(server: &Server, arrived: &Receiver<()>, gone: &Receiver<()>, errand: Errand, size: usize) {
    let rig = Rig::new();
    let call = Call { errand, ..with_body(server.port, size) };
    let (run_id, attempt) = (call.run_id, call.attempt);
    rig.engine.submit(call);
    arrived.recv_timeout(LONG).unwrap();
    let started = Instant::now();
    rig.engine.cancel(run_id, attempt);
    assert_end(&rig.end(), Reach::Sent, Verdict::None, "cancelled");
    gone.recv_timeout(LONG).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn calling_off_after_it_closes_the_connection_at_once_and_says_that_it_was_sent() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{";
    for (errand, answer) in [(Errand::Deliver, ""), (Errand::Deliver, head), (follow("/s"), "")] {
        let ((came, arrived), (closed, gone)) = (mpsc::channel(), mpsc::channel());
        let server = Server::start(move |_, _, stream| {
            let _ = stream.write_all(answer.as_bytes());
            came.send(()).unwrap();
            wait_for_close(stream);
            closed.send(()).unwrap();
        });
        let errand = at(errand, server.port);
        called_off(&server, &arrived, &gone, errand, 1);
    }
    // While the request is still being written: more of it than any socket holds.
    let ((came, arrived), (closed, gone)) = (mpsc::channel(), mpsc::channel());
    let server = Server::connections_to(move |stream| {
        let _ = stream.read(&mut [0]);
        came.send(()).unwrap();
        wait_for_close(stream);
        closed.send(()).unwrap();
    });
    called_off(&server, &arrived, &gone, Errand::Deliver, 30_000_000);
}

fn follow(path: &str) -> Errand {
    Errand::Follow(format!("http://127.0.0.1{path}").parse().unwrap())
}

fn at(mut errand: Errand, port: u16) -> Errand {
    if let Errand::Follow(url) | Errand::Inquire(url) = &mut errand {
        url.set_port(Some(port)).unwrap();
    }
    errand
}

#[test]
fn a_question_that_is_called_off_has_one_end_too_and_a_stranger_has_none() {
    let (came, arrived) = mpsc::channel();
    let server = Server::start(move |_, _, stream| {
        came.send(()).unwrap();
        wait_for_close(stream);
    });
    let rig = Rig::new();
    let mut call = call(server.port);
    call.errand = Errand::Inquire(call.request.http().unwrap().url.join("/s").unwrap());
    rig.engine.submit(call.clone());
    arrived.recv_timeout(LONG).unwrap();
    rig.engine.cancel(call.run_id, 99);
    rig.engine.cancel(uuid::Uuid::from_u128(4711), call.attempt);
    rig.engine.cancel(call.run_id, call.attempt);
    rig.engine.cancel(call.run_id, call.attempt);
    rig.sleep();
    let Some(Report::Learned { finding: Finding::NoAnswer { message, .. }, .. }) = rig.engine.try_recv() else {
        panic!("an end")
    };
    assert!(message.contains("called off"), "{message}");
    rig.engine.cancel(call.run_id, call.attempt);
    assert_eq!(rig.engine.in_flight(), 0);
    assert!(rig.engine.try_recv().is_none());
}

#[test]
fn calling_off_and_ending_race_to_exactly_one_end() {
    let server = Server::saying(json("200 OK", "", OK));
    let rig = Rig::new();
    let (mut cancelled, mut unsent, mut sent, mut ok) = (0, 0, 0, 0);
    for attempt in 1..=300 {
        rig.engine.submit(Call { attempt, ..call(server.port) });
        // From before it is taken up to after it is over.
        let spin = Duration::from_micros(u64::try_from(attempt).unwrap() * 10);
        let started = Instant::now();
        while started.elapsed() < spin {
            std::hint::spin_loop();
        }
        rig.engine.cancel(call(server.port).run_id, attempt);
        let answer = rig.end();
        match (answer.reason.as_str(), answer.reach) {
            ("ok", Reach::Answered) => ok += 1,
            ("cancelled", Reach::Sent) => (cancelled, sent) = (cancelled + 1, sent + 1),
            ("cancelled", Reach::NotSent) => (cancelled, unsent) = (cancelled + 1, unsent + 1),
            other => panic!("{other:?}"),
        }
        assert!(rig.engine.try_recv().is_none() && rig.engine.in_flight() == 0);
    }
    assert_eq!(ok + cancelled, 300);
    // A run that is reported as not sent was never seen by the agent.
    assert!(server.requests().len() <= ok + sent, "{} requests, {ok} ok, {sent} sent", server.requests().len());
    println!("figure: 300 calls called off at 300 offsets: {ok} ended, {sent} sent, {unsent} unsent; one end each");
}

/// Sockets of this machine that somebody still holds and that are connected to a port.
fn held_connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // local, remote, state, queues, timer, retransmissions, uid, timeout, inode: 0 when no process has it.
    table.lines().skip(1).map(fields).filter(|entry| entry[2].ends_with(&remote) && entry[9] != "0").count()
}

#[test]
fn a_peer_that_does_not_read_holds_no_connection_for_long_after_the_end() {
    // hyper wants to say goodbye over TLS, which takes room in the socket; the kernel gives up after half a minute.
    if std::env::var_os("DOT_TEST_FULL").is_none() {
        return;
    }
    let (came, arrived) = mpsc::channel();
    // Until the end of the test's process.
    let (dir, port) = super::tls::mute(came, || {
        loop {
            std::thread::park();
        }
    });
    for ending in ["cancelled", "timeout"] {
        let rig = Rig::with(trusting(&dir));
        let mut call = over_tls("localhost", port);
        http(&mut call).body["args"] = "x".repeat(12_000_000).into();
        if ending == "timeout" {
            call.limits.total = Duration::from_secs(6);
        }
        let (run_id, attempt) = (call.run_id, call.attempt);
        rig.engine.submit(call);
        arrived.recv_timeout(LONG).unwrap();
        if ending == "cancelled" {
            super::until(|| rig.engine.unsent() == 0);
            rig.engine.cancel(run_id, attempt);
        }
        assert_end(&rig.end(), Reach::Sent, Verdict::None, ending);
        super::until(|| held_connections_to(port) == 0);
    }
}

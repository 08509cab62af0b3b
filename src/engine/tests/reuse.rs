//! Connections that are used again: that they are, and that none of what can happen to one costs a delivery its meaning.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json as value;

use super::server::{Server, json, read, wait_for_close};
use super::tls::{ca_file, keeping, over_tls, trusting};
use super::{Call, Config, Rig, assert_end, call, http, rule, until};
use crate::domain::answer::{Reach, Verdict};
use crate::domain::egress::Rules;

const LONG: Duration = Duration::from_secs(20);
/// Longer than the first connection has to rest before it is used again.
const TRIAL: Duration = Duration::from_millis(120);

/// A connection that is over: how many requests it carried, and what came after the last one.
type End = (usize, Vec<u8>);

/// An agent that keeps its connections.
struct Keeper {
    server: Server,
    /// One number for each request: how many its connection had carried before.
    nth: Arc<Mutex<Vec<usize>>>,
    ends: Receiver<End>,
}

/// What the agent does after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Stay,
    Close,
}

impl Keeper {
    /// `answer` gets the number of the request on its connection and the request's `args`.
    fn new(answer: impl Fn(usize, &str, &mut TcpStream) -> Then + Send + Sync + 'static) -> Keeper {
        let (nth, (ended, ends)) = (Arc::new(Mutex::new(Vec::new())), mpsc::channel());
        let all = Arc::clone(&nth);
        let server = Server::connections_to(move |stream| {
            let (mut carried, mut heard) = (0, Heard::default());
            while let Some(seen) = read(heard.over(stream)) {
                all.lock().unwrap().push(carried);
                let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
                let then = answer(carried, &body["args"].to_string(), stream);
                (carried, heard) = (carried + 1, Heard::default());
                if then == Then::Close {
                    break;
                }
            }
            let _ = ended.send((carried, heard.0));
        });
        Keeper { server, nth, ends }
    }

    /// Answers each request with its own `args` as the result.
    fn plain() -> Keeper {
        Keeper::new(|_, args, stream| {
            let _ = stream.write_all(echo(args).as_bytes());
            Then::Stay
        })
    }

    fn last(&self) -> usize {
        *self.nth.lock().unwrap().last().unwrap()
    }

    /// Calls until one goes over a connection that was used before.
    fn warm(&self, rig: &Rig) {
        until(|| {
            sleep(TRIAL);
            ok(rig, numbered(self.server.port, 0), 0);
            self.last() > 0
        });
    }
}

/// What was read, as it came.
#[derive(Default)]
struct Heard(Vec<u8>);

impl Heard {
    fn over<'a>(&'a mut self, stream: &'a TcpStream) -> impl Read + 'a {
        struct Both<'a>(&'a mut Vec<u8>, &'a TcpStream);
        impl Read for Both<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let n = self.1.read(buffer)?;
                self.0.extend_from_slice(&buffer[..n]);
                Ok(n)
            }
        }
        Both(&mut self.0, stream)
    }
}

fn echo(args: &str) -> String {
    json("200 OK", "", &format!(r#"{{"status":"succeeded","result":{args}}}"#))
}

/// A call whose answer is to be its number.
fn numbered(port: u16, n: usize) -> Call {
    let mut call = call(port);
    http(&mut call).body["args"] = value!(n);
    call
}

#[track_caller]
fn ok(rig: &Rig, call: Call, n: usize) {
    let answer = rig.run(call);
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!(answer.result, Some(value!(n)), "the answer to another request: {answer:?}");
}

#[test]
fn an_agent_that_keeps_connections_gets_many_requests_on_one() {
    let (keeper, rig) = (Keeper::plain(), Rig::new());
    keeper.warm(&rig);
    until(|| {
        ok(&rig, numbered(keeper.server.port, 7), 7);
        keeper.last() >= 20
    });
}

#[test]
fn calls_at_the_same_time_have_connections_of_their_own_and_each_its_own_answer() {
    let (keeper, rig) = (Keeper::plain(), Rig::new());
    keeper.warm(&rig);
    for round in 0..20 {
        for n in 1..=20 {
            rig.engine.submit(Call { attempt: n, ..numbered(keeper.server.port, usize::try_from(n).unwrap()) });
        }
        for _ in 0..20 {
            let (attempt, answer) = rig.ended();
            assert_eq!(answer.result, Some(value!(attempt)), "round {round}: {answer:?}");
        }
    }
    let all = keeper.nth.lock().unwrap().clone();
    assert!(all.iter().filter(|nth| **nth > 0).count() > 200, "{all:?}");
}

#[test]
fn what_is_withheld_leaves_no_byte_on_a_connection_that_was_used_before() {
    let (keeper, rig) = (Keeper::plain(), Rig::new());
    until(|| {
        rig.engine.allow_until(Instant::now() + LONG);
        keeper.warm(&rig);
        while keeper.ends.try_recv().is_ok() {}
        rig.engine.allow_until(Instant::now());
        let answer = rig.run(numbered(keeper.server.port, 1));
        assert_end(&answer, Reach::NotSent, Verdict::None, "withheld");
        let (carried, after) = keeper.ends.recv_timeout(LONG).unwrap();
        assert_eq!(after, b"", "head or body");
        // Where the machine was slow, it was a new connection, and proves nothing.
        carried > 0
    });
}

#[test]
fn an_agent_that_closes_without_a_word_is_never_trusted() {
    let server = Server::saying(json("200 OK", "", r#"{"status":"succeeded"}"#));
    let rig = Rig::new();
    for n in 0..200 {
        if n % 50 == 0 {
            sleep(TRIAL);
        }
        assert_end(&rig.run(call(server.port)), Reach::Answered, Verdict::Succeeded, "ok");
    }
    assert_eq!((server.requests().len(), server.connections()), (200, 200));
}

#[test]
fn an_agent_that_says_close_gets_no_second_request() {
    let close = |args: &str| echo(args).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let old = |args: &str| echo(args).replacen("1.1", "1.0", 1);
    let endless = |args: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", body(args));
    let speaks: [fn(&str) -> String; 3] = [close, old, endless];
    for (which, speak) in speaks.into_iter().enumerate() {
        // It says so and stays: it is for us to close.
        let keeper = Keeper::new(move |_, args, stream| {
            let _ = stream.write_all(speak(args).as_bytes());
            if which == 2 { Then::Close } else { Then::Stay }
        });
        let rig = Rig::new();
        for n in 0..3 {
            ok(&rig, numbered(keeper.server.port, n), n);
            sleep(TRIAL);
        }
        assert_eq!(*keeper.nth.lock().unwrap(), [0, 0, 0], "{which}");
    }
}

fn body(args: &str) -> String {
    format!(r#"{{"status":"succeeded","result":{args}}}"#)
}

/// An agent that sends more than its answer when the second request of a connection comes: at once, or when it is told.
fn talkative(later: bool) -> (Keeper, Sender<()>, Receiver<()>) {
    let ((tell, told), (did, done)) = (mpsc::channel::<()>(), mpsc::channel());
    let told = Mutex::new(told);
    let keeper = Keeper::new(move |nth, args, stream| {
        let more = echo("4711");
        if nth == 0 || args != "1" {
            let _ = stream.write_all(echo(args).as_bytes());
        } else if later {
            // Else the kernel keeps it back until the next request acknowledges the answer.
            stream.set_nodelay(true).unwrap();
            let _ = stream.write_all(echo(args).as_bytes());
            let _ = told.lock().unwrap().recv_timeout(LONG);
            let _ = stream.write_all(more.as_bytes());
            did.send(()).unwrap();
        } else {
            let _ = stream.write_all((echo(args) + &more).as_bytes());
        }
        Then::Stay
    });
    (keeper, tell, done)
}

/// True when something has arrived from a port of this machine that nobody has read.
fn unread_from(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    table
        .lines()
        .skip(1)
        .map(fields)
        .any(|entry| entry[2].ends_with(&format!(":{port:04X}")) && !entry[4].ends_with(":00000000"))
}

#[test]
fn what_an_agent_sends_behind_its_answer_is_never_the_next_answer() {
    for later in [false, true] {
        let (keeper, tell, done) = talkative(later);
        let rig = Rig::new();
        until(|| {
            keeper.warm(&rig);
            ok(&rig, numbered(keeper.server.port, 1), 1);
            let hit = keeper.last() > 0;
            if hit && later {
                tell.send(()).unwrap();
                done.recv_timeout(LONG).unwrap();
                until(|| unread_from(keeper.server.port));
            }
            ok(&rig, numbered(keeper.server.port, 2), 2);
            assert!(!hit || keeper.last() == 0, "the connection was not used again");
            hit
        });
    }
}

#[test]
fn a_request_that_dies_on_a_used_connection_is_sent_once_and_unknown() {
    // Closes; or keeps the connection and says nothing.
    for silent in [false, true] {
        let keeper = Keeper::new(move |nth, args, stream| match args {
            "1" if nth > 0 && silent => {
                wait_for_close(stream);
                Then::Close
            }
            "1" if nth > 0 => Then::Close,
            _ => {
                let _ = stream.write_all(echo(args).as_bytes());
                Then::Stay
            }
        });
        let rig = Rig::new();
        let mut asked = 0;
        until(|| {
            keeper.warm(&rig);
            asked = keeper.nth.lock().unwrap().len();
            let mut call = numbered(keeper.server.port, 1);
            call.limits.total = Duration::from_millis(if silent { 500 } else { 60_000 });
            let answer = rig.run(call);
            let hit = keeper.last() > 0;
            if hit {
                assert_end(&answer, Reach::Sent, Verdict::None, if silent { "timeout" } else { "connection_lost" });
            }
            hit
        });
        assert_eq!(keeper.nth.lock().unwrap().len(), asked + 1, "no hidden repetition");
        ok(&rig, numbered(keeper.server.port, 2), 2);
        assert_eq!(keeper.last(), 0, "on a new connection");
    }
}

#[test]
fn an_agent_that_restarts_between_two_calls_costs_nothing() {
    let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let all = Arc::clone(&held);
    let keeper = Keeper::new(move |_, args, stream| {
        all.lock().unwrap().push(stream.try_clone().unwrap());
        let _ = stream.write_all(echo(args).as_bytes());
        Then::Stay
    });
    let rig = Rig::new();
    for n in 0..3 {
        keeper.warm(&rig);
        for stream in held.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        ok(&rig, numbered(keeper.server.port, n), n);
        assert_eq!(keeper.last(), 0, "on a new connection");
        // What was found ended is remembered; another engine has not seen it.
        rig.engine.reconfigure(Config::default());
    }
}

#[test]
fn connections_that_nobody_needs_are_closed_soon() {
    let (keeper, rig) = (Keeper::plain(), Rig::new());
    keeper.warm(&rig);
    while keeper.ends.try_recv().is_ok() {}
    let (carried, after) = keeper.ends.recv_timeout(LONG).unwrap();
    assert!(carried > 1 && after.is_empty(), "{carried}");
}

#[test]
fn another_rule_or_configuration_never_uses_a_connection_of_the_old_one() {
    let (keeper, rig) = (Keeper::plain(), Rig::new());
    keeper.warm(&rig);
    let mut call = numbered(keeper.server.port, 1);
    let mut other = rule("http", "127.0.0.1", keeper.server.port, "/", &["127.0.0.1/32"]);
    other.id = 2;
    call.egress = Arc::new(Rules(vec![other]));
    ok(&rig, call, 1);
    assert_eq!(keeper.last(), 0);
    keeper.warm(&rig);
    rig.engine.reconfigure(Config::default());
    ok(&rig, numbered(keeper.server.port, 2), 2);
    assert_eq!(keeper.last(), 0);
}

#[test]
fn a_connection_over_tls_is_used_again_and_what_comes_behind_an_answer_ends_it() {
    let most = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&most);
    let server = keeping(move |stream| {
        let (mut carried, mut buffer) = (0_usize, [0; 8192]);
        while let Ok(1..) = stream.read(&mut buffer) {
            carried += 1;
            let mut most = seen.lock().unwrap();
            *most = carried.max(*most);
            // The fifth answer has another one behind it, in the same record.
            let text = if carried == 5 { echo("1") + &echo("4711") } else { echo("1") };
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.flush();
        }
    });
    let dir = ca_file();
    let rig = Rig::with(trusting(&dir));
    until(|| {
        sleep(TRIAL);
        for _ in 0..7 {
            ok(&rig, over_tls("localhost", server.port), 1);
        }
        *most.lock().unwrap() >= 5
    });
    assert_eq!(*most.lock().unwrap(), 5, "nothing after the one that said too much");
}

//! A3: how far a delivery got is told right wherever it is cut. The server knows how much of the request it has seen, and
//! that is held against what the engine says: nothing seen where it says "not sent", and nothing but a whole answer where
//! it says "answered".

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use super::server::{Server, json};
use super::tls::{ca_file, trusting};
use super::{Call, Rig, call, call_at, http, rule};
use crate::domain::answer::{Reach, Verdict};

const EACH: usize = 25;
const BODY: &str = r#"{"status":"succeeded","result":{"n":1,"text":"a long enough body to be cut at many places"}}"#;

/// Where the other side gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Dns,
    Connect,
    Tls,
    Reading,
    ByteZero,
    MidHeader,
    MidBody,
    AfterBody,
}

use Cut::{AfterBody, ByteZero, Connect, Dns, MidBody, MidHeader, Reading, Tls};

const ALL: [Cut; 8] = [Dns, Connect, Tls, Reading, ByteZero, MidHeader, MidBody, AfterBody];

impl Cut {
    /// What the engine has to say.
    fn want(self) -> (Reach, Verdict, &'static str) {
        match self {
            Dns => (Reach::NotSent, Verdict::None, "dns_failed"),
            Connect => (Reach::NotSent, Verdict::None, "connect_failed"),
            Tls => (Reach::NotSent, Verdict::None, "tls_failed"),
            Reading | ByteZero | MidHeader => (Reach::Sent, Verdict::None, "connection_lost"),
            MidBody => (Reach::Sent, Verdict::None, "answer_incomplete"),
            AfterBody => (Reach::Answered, Verdict::Succeeded, "ok"),
        }
    }

    /// The answer, up to where it is cut, in the n-th of `EACH` places.
    fn answer(self, n: usize) -> Vec<u8> {
        let whole = json("200 OK", "", BODY).into_bytes();
        let head = whole.len() - BODY.len();
        let place = |from: usize, to: usize| from + (to - from) * n / EACH;
        let end = match self {
            MidHeader => place(1, head),
            MidBody => place(head, whole.len()),
            AfterBody => whole.len(),
            _ => 0,
        };
        whole[..end].to_vec()
    }
}

/// A server that gives up, every other time with a reset, and what it has seen of requests.
fn giving_up(cut: Cut, n: usize) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_server = Arc::clone(&seen);
    let server = Server::connections_to(move |stream| match cut {
        // Some of the client's greeting, and perhaps some of its own.
        Tls => {
            some(stream, 1 + n * 7);
            let hello = [0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9];
            let _ = stream.write_all(&hello[..n.min(20)]);
        }
        // Some of the request.
        Reading => of_server.lock().unwrap().extend(some(stream, 1 + n * 12_000)),
        _ => {
            let unread = if cut == AfterBody { 0 } else { n % 2 };
            of_server.lock().unwrap().extend(request(stream, unread));
            let _ = stream.write_all(&cut.answer(n));
        }
    });
    (server, seen)
}

fn some(stream: &mut TcpStream, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let n = stream.read(&mut bytes).unwrap_or(0);
    bytes.truncate(n);
    bytes
}

/// A request to the end of its body. What is left unread makes a reset of the close.
fn request(stream: &mut TcpStream, unread: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match some(stream, 1) {
            // Who only counts connections leaves at once.
            byte if byte.is_empty() => return bytes,
            byte => bytes.extend(byte),
        }
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse::<usize>().unwrap() - unread];
    stream.read_exact(&mut body).unwrap();
    if unread > 0 {
        let _ = stream.peek(&mut [0]);
    }
    [bytes, body].concat()
}

fn cut_call(cut: Cut, port: u16) -> Call {
    let at = |scheme: &str, host: &str| {
        call_at(&format!("{scheme}://{host}:{port}"), None, vec![rule(scheme, host, port, "/", &["127.0.0.0/8"])])
    };
    match cut {
        Dns => at("http", "no-such-host.invalid"),
        Tls => at("https", "127.0.0.1"),
        Reading => {
            let mut call = call(port);
            http(&mut call).body["args"] = "x".repeat(400_000).into();
            call
        }
        _ => call(port),
    }
}

#[test]
fn promise_a3_wherever_it_is_cut_it_is_told_how_far_it_got() {
    let dir = ca_file();
    let rig = Rig::with(trusting(&dir));
    let mut right = 0;
    for cut in ALL {
        for n in 0..EACH {
            let (server, seen) = giving_up(cut, n);
            // Nobody listens at port 1.
            let answer = rig.run(cut_call(cut, if cut == Connect { 1 } else { server.port }));
            let got = (answer.reach, answer.verdict, answer.reason.as_str());
            assert_eq!(got, cut.want(), "{cut:?} {n}: {}", answer.message);
            let seen = seen.lock().unwrap().clone();
            match answer.reach {
                Reach::NotSent => assert_eq!(seen, b"", "{cut:?} {n}"),
                Reach::Sent | Reach::Answered => assert!(seen.starts_with(b"P"), "{cut:?} {n}: it saw nothing"),
            }
            let connections = if matches!(cut, Dns | Connect) { 0 } else { 1 };
            assert_eq!(server.connections(), connections, "{cut:?} {n}: one delivery, one connection");
            right += 1;
        }
    }
    println!("A3: {right} of {} cuts told right, and in agreement with what the server saw", ALL.len() * EACH);
    assert_eq!(right, 200);
}

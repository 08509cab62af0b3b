//! What a fault of the other side becomes, and that none of them makes the engine send twice, hang or swell.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::server::{Server, wait_for_close};
use super::{CAP, Rig, assert_end, call, call_at, rule, short};
use crate::domain::answer::{Answer, Reach, Verdict};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const SHORT: Duration = Duration::from_millis(400);

/// Sends once; the delivery ends as sent, after one connection.
#[track_caller]
fn unknown(server: &Server, call: super::Call, reason: &str) -> Answer {
    let total = call.limits.total;
    let started = Instant::now();
    let answer = Rig::new().run(call);
    assert_end(&answer, Reach::Sent, Verdict::None, reason);
    assert!(started.elapsed() < total + Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(server.connections(), 1, "no hidden retry");
    answer
}

#[test]
fn no_answer_is_a_timeout() {
    let server = Server::start(|_, _, stream| wait_for_close(stream));
    unknown(&server, short(server.port, SHORT), "timeout");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_that_closes_is_not_asked_again() {
    for cut in ["", "HTTP/1.1 200 OK\r\nContent-Ty"] {
        let server = Server::saying(cut);
        unknown(&server, call(server.port), "connection_lost");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_server_that_closes_before_it_reads_is_not_asked_again() {
    // Something has arrived; it is not read.
    let server = Server::connections_to(|stream| drop(stream.peek(&mut [0])));
    let answer = unknown(&server, call(server.port), "connection_lost");
    assert_eq!(answer.http_status, None);
}

#[test]
fn a_body_that_is_cut_off_leaves_the_outcome_unknown() {
    for (framing, body) in [
        ("Content-Length: 500\r\n\r\n", r#"{"status":"succ"#),
        ("Content-Length: 500\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n", "8\r\n{\"status\r\n"),
        ("Connection: close\r\n\r\n", r#"{"status":"succeeded","result":{"a":"#),
        ("Connection: close\r\n\r\n", ""),
    ] {
        let server = Server::saying(format!("{HEAD}{framing}{body}"));
        let answer = unknown(&server, call(server.port), "answer_incomplete");
        assert_eq!(answer.http_status, Some(200));
    }
}

#[test]
fn a_body_that_stops_is_given_up_after_the_idle_time() {
    let server = Server::start(|_, _, stream| {
        let _ = stream.write_all(format!("{HEAD}Content-Length: 500\r\n\r\n{{").as_bytes());
        wait_for_close(stream);
    });
    let mut call = call(server.port);
    call.limits.idle = SHORT;
    let answer = unknown(&server, call, "answer_incomplete");
    assert!(answer.elapsed < Duration::from_secs(5));
    assert_eq!(answer.bytes, 1);
}

#[test]
fn a_slow_agent_is_not_idle() {
    let server = Server::start(|_, _, stream| {
        sleep(Duration::from_millis(300));
        let _ = stream.write_all(super::server::json("200 OK", "", r#"{"status":"succeeded"}"#).as_bytes());
    });
    let mut call = call(server.port);
    call.limits.idle = Duration::from_millis(50);
    assert_end(&Rig::new().run(call), Reach::Answered, Verdict::Succeeded, "ok");
}

/// A server that sends the head and then the piece, again and again, until the client has had enough.
fn endless(head: String, piece: &'static [u8], pause: Duration) -> (Server, Arc<AtomicU64>, mpsc::Receiver<()>) {
    let sent = Arc::new(AtomicU64::new(0));
    let (done, ended) = mpsc::channel();
    let counter = Arc::clone(&sent);
    let server = Server::start(move |_, _, stream| {
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(piece).is_ok() {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            sleep(pause);
        }
        let _ = done.send(());
    });
    (server, sent, ended)
}

#[test]
fn a_drip_ends_at_the_deadline() {
    let (server, _, _) = endless(format!("{HEAD}Content-Length: 5000\r\n\r\n"), b" ", Duration::from_millis(10));
    unknown(&server, short(server.port, SHORT), "timeout");
    let (server, _, _) = endless("HTTP/1.1 200 OK\r\nX: ".into(), b"a", Duration::from_millis(10));
    unknown(&server, short(server.port, SHORT), "timeout");
    let (server, _, _) = endless(String::new(), b"HTTP/1.1 103 Early\r\n\r\n", Duration::from_millis(1));
    unknown(&server, short(server.port, SHORT), "timeout");
}

#[test]
fn a_flood_of_headers_is_cut_off() {
    let (server, sent, ended) = endless("HTTP/1.1 200 OK\r\n".into(), &[b'a'; 4096], Duration::ZERO);
    unknown(&server, call(server.port), "connection_lost");
    ended.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(sent.load(Ordering::Relaxed) < 32 << 20);
    let (server, _, _) = endless("HTTP/1.1 200 OK\r\n".into(), b"a: b\r\n", Duration::ZERO);
    unknown(&server, call(server.port), "connection_lost");
}

#[test]
fn a_flood_of_interim_answers_is_cut_off() {
    let piece: &'static [u8] = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(4096).leak();
    let (server, sent, ended) = endless(String::new(), piece, Duration::ZERO);
    let answer = unknown(&server, call(server.port), "connection_lost");
    assert!(answer.message.contains("too much came before an answer"), "{}", answer.message);
    ended.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(sent.load(Ordering::Relaxed) < 32 << 20);
}

#[test]
fn a_body_without_end_is_read_up_to_the_cap() {
    const PIECE: &[u8] = b"10000\r\n";
    let chunk: &'static [u8] = [PIECE, &[b' '; 0x10000], b"\r\n"].concat().leak();
    let (server, sent, ended) = endless(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"), chunk, Duration::ZERO);
    let answer = Rig::new().run(call(server.port));
    assert_end(&answer, Reach::Answered, Verdict::None, "answer_too_large");
    assert_eq!(answer.bytes, CAP);
    ended.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(sent.load(Ordering::Relaxed) < 32 << 20, "the connection was closed, not drained");
}

#[test]
fn a_body_that_announces_too_much_is_not_read() {
    let server = Server::start(|_, _, stream| {
        let _ = stream.write_all(format!("{HEAD}Content-Length: 10737418240\r\n\r\n").as_bytes());
        wait_for_close(stream);
    });
    let answer = Rig::new().run(call(server.port));
    assert_end(&answer, Reach::Answered, Verdict::None, "answer_too_large");
    assert_eq!(answer.bytes, 0);
}

#[test]
fn an_error_status_counts_even_when_its_body_hangs() {
    for status in ["503", "409"] {
        let server = Server::start(move |_, _, stream| {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            wait_for_close(stream);
        });
        let answer = Rig::new().run(short(server.port, SHORT));
        assert_end(&answer, Reach::Answered, Verdict::None, &format!("http_{status}"));
    }
}

#[test]
fn a_port_that_nobody_serves_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let answer = Rig::new().run(call(port));
    assert_end(&answer, Reach::NotSent, Verdict::None, "connect_failed");
    assert!(answer.message.contains("refused"), "{}", answer.message);
}

#[test]
fn a_handshake_that_hangs_or_fails_is_not_sent() {
    let of = |port| {
        let rules = vec![rule("https", "127.0.0.1", port, "/", &["127.0.0.0/8"])];
        call_at(&format!("https://127.0.0.1:{port}"), None, rules)
    };
    let server = Server::connections_to(wait_for_close);
    let mut call = of(server.port);
    call.limits.connect = SHORT;
    assert_end(&Rig::new().run(call), Reach::NotSent, Verdict::None, "connect_timeout");
    // Also when the connect timeout is longer than the whole.
    let mut call = of(server.port);
    call.limits.total = SHORT;
    assert_end(&Rig::new().run(call), Reach::NotSent, Verdict::None, "connect_timeout");
    let server = Server::connections_to(|stream| {
        let _ = stream.read(&mut [0; 16]);
        let _ = stream.write_all(b"HTTP/1.1 400 This is no TLS\r\n\r\n");
    });
    assert_end(&Rig::new().run(of(server.port)), Reach::NotSent, Verdict::None, "tls_failed");
}

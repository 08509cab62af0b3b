//! Certificates: one that is right is accepted, any other is refused before a byte of the request leaves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::network::in_child;
use super::server::{Server, json};
use super::{Call, Config, Rig, TempDir, assert_end, call, call_at, rule};
use crate::domain::answer::{Reach, Verdict};

const OK: &str = r#"{"status":"succeeded"}"#;

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("pki/", $name)) as &[u8]
    };
}

/// A TLS server with a chain of certificates; remembers what it could decrypt.
fn serve(certificate: &[u8]) -> (Server, Arc<Mutex<Vec<u8>>>) {
    serve_after(certificate, || {})
}

/// A TLS server with the good certificate. The handshake waits until `ready` returns.
pub fn held(ready: impl Fn() + Send + Sync + 'static) -> (Server, Arc<Mutex<Vec<u8>>>) {
    serve_after(pem!("good.pem"), ready)
}

fn server_config(chain: &[u8]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem!("leaf.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

fn serve_after(certificate: &[u8], ready: impl Fn() + Send + Sync + 'static) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let (config, plain) = (server_config(certificate), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&plain);
    let server = Server::connections_to(move |stream: &mut TcpStream| {
        ready();
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut buffer = [0; 4096];
        if let Ok(n) = stream.read(&mut buffer) {
            heard.lock().unwrap().extend_from_slice(&buffer[..n]);
            let _ = stream.write_all(json("200 OK", "", OK).as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (server, plain)
}

/// A TLS server that keeps connections: `each` gets the decrypted stream once, and answers as long as it likes.
pub fn keeping(each: impl Fn(&mut dyn ReadWrite) + Send + Sync + 'static) -> Server {
    let config = server_config(pem!("good.pem"));
    Server::connections_to(move |stream: &mut TcpStream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        each(&mut StreamOwned::new(connection, stream));
    })
}

/// Both directions.
pub trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// A TLS server that shakes hands and then reads nothing until `done` returns; the folder of its root, and its port.
pub fn mute(came: Sender<()>, done: impl Fn() + Send + Sync + 'static) -> (TempDir, u16) {
    let config = server_config(pem!("good.pem"));
    let server = Server::connections_to(move |stream: &mut TcpStream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(stream).unwrap();
        }
        came.send(()).unwrap();
        done();
    });
    (ca_file(), server.port)
}

pub fn over_tls(host: &str, port: u16) -> Call {
    call_at(&format!("https://{host}:{port}"), None, vec![rule("https", host, port, "/", &["127.0.0.0/8"])])
}

pub fn ca_file() -> TempDir {
    TempDir::holding("ca.pem", pem!("ca.pem"))
}

pub fn trusting(dir: &TempDir) -> Config {
    Config { ca_file: Some(dir.0.join("ca.pem")), ..Config::default() }
}

#[test]
fn a_root_in_the_ca_file_is_trusted() {
    let (server, heard) = serve(pem!("good.pem"));
    for host in ["localhost", "127.0.0.1"] {
        let dir = ca_file();
        let answer = Rig::with(trusting(&dir)).run(over_tls(host, server.port));
        assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    }
    assert!(heard.lock().unwrap().starts_with(b"POST /v1/dots/DOT-KG-017/runs"));
}

/// The chains that must be refused, and a word of why.
const BAD: [(&[u8], &str); 9] = [
    (pem!("expired.pem"), "expired"),
    (pem!("not_yet_valid.pem"), "not valid yet"),
    (pem!("self_signed.pem"), "UnknownIssuer"),
    (pem!("unknown_root.pem"), "UnknownIssuer"),
    (pem!("wrong_host.pem"), "not valid for name"),
    (pem!("no_name.pem"), "not valid for name"),
    (pem!("wrong_purpose.pem"), "extended key usage"),
    (pem!("weak_key.pem"), "ignature"),
    (pem!("sha1.pem"), "ignature"),
];

/// A server that answers a greeting with these bytes, and remembers all that it hears.
fn saying_back(bytes: &'static [u8]) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    let server = Server::connections_to(move |stream: &mut TcpStream| {
        let mut buffer = [0; 4096];
        let mut answer = bytes;
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            all.lock().unwrap().extend_from_slice(&buffer[..n]);
            let _ = stream.write_all(std::mem::take(&mut answer));
        }
    });
    (server, heard)
}

/// The greeting of a server that speaks TLS 1.1 (3.2 on the wire) and nothing newer: ECDHE-RSA-AES128-SHA.
const TLS_1_1: [u8; 47] = {
    let mut hello = [7; 47];
    let head = [0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    let mut n = 0;
    while n < head.len() {
        hello[n] = head[n];
        n += 1;
    }
    // After 32 bytes of chance: no session, the suite, no compression.
    [hello[43], hello[44], hello[45], hello[46]] = [0, 0xc0, 0x13, 0];
    hello
};

#[test]
fn promise_n4_what_is_not_right_is_refused_and_the_secret_is_not_heard() {
    const SECRET: &str = "s3cr3t-of-the-agent";
    let with_secret = |port| {
        let rules = vec![rule("https", "localhost", port, "/", &["127.0.0.0/8"])];
        call_at(&format!("https://localhost:{port}"), Some("agent_token"), rules)
    };
    let dir = ca_file();
    std::fs::write(dir.0.join("agent_token"), SECRET).unwrap();
    let config = Config { secrets_dir: Some(dir.0.clone()), ..trusting(&dir) };
    let mut refused = 0;
    let (good, heard) = serve(pem!("good.pem"));
    assert_end(&Rig::with(config.clone()).run(with_secret(good.port)), Reach::Answered, Verdict::Succeeded, "ok");
    assert!(String::from_utf8_lossy(&heard.lock().unwrap()).contains(SECRET), "the right one hears it");
    let certificates = BAD.iter().map(|(chain, why)| (serve(chain), *why));
    let plain = saying_back(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let old = saying_back(&TLS_1_1);
    for ((server, heard), why) in certificates.chain([(plain, "corrupt"), (old, "Tls12Or13")]) {
        let answer = Rig::with(config.clone()).run(with_secret(server.port));
        assert_end(&answer, Reach::NotSent, Verdict::None, "tls_failed");
        assert!(answer.message.contains(why), "{why}: {}", answer.message);
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(!heard.contains(SECRET) && !heard.contains("POST"), "{why}: {heard}");
        refused += 1;
    }
    println!("N4: {refused} of 11 bad peers refused, the good one accepted, the secret heard by the good one alone");
    assert_eq!(refused, 11);
}

#[test]
fn an_unknown_root_is_refused_and_reconfiguring_adds_it() {
    let (server, _) = serve(pem!("good.pem"));
    let rig = Rig::new();
    let answer = rig.run(over_tls("localhost", server.port));
    assert_eq!(answer.reach, Reach::NotSent);
    assert!(["tls_failed", "tls_unusable"].contains(&answer.reason.as_str()), "{answer:?}");
    let dir = ca_file();
    rig.engine.reconfigure(trusting(&dir));
    assert_end(&rig.run(over_tls("localhost", server.port)), Reach::Answered, Verdict::Succeeded, "ok");
}

#[test]
fn a_bad_ca_file_stops_https_and_not_http() {
    let (server, heard) = serve(pem!("good.pem"));
    let plain = Server::saying(json("200 OK", "", OK));
    for dir in [TempDir::new(), TempDir::holding("ca.pem", b"no certificate")] {
        let rig = Rig::with(trusting(&dir));
        let answer = rig.run(over_tls("localhost", server.port));
        assert_end(&answer, Reach::NotSent, Verdict::None, "tls_unusable");
        assert_end(&rig.run(call(plain.port)), Reach::Answered, Verdict::Succeeded, "ok");
    }
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn a_system_without_roots_can_still_speak_http() {
    let nowhere = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent"), ("DOT_TEST_NO_ROOTS", "1")];
    in_child("tls::child_without_roots", &nowhere);
}

#[test]
fn child_without_roots() {
    if std::env::var_os("DOT_TEST_NO_ROOTS").is_none() {
        return;
    }
    let (server, _) = serve(pem!("good.pem"));
    let plain = Server::saying(json("200 OK", "", OK));
    let rig = Rig::new();
    let answer = rig.run(over_tls("localhost", server.port));
    assert_end(&answer, Reach::NotSent, Verdict::None, "tls_unusable");
    assert_end(&rig.run(call(plain.port)), Reach::Answered, Verdict::Succeeded, "ok");
    assert_end(
        &Rig::with(trusting(&ca_file())).run(over_tls("localhost", server.port)),
        Reach::Answered,
        Verdict::Succeeded,
        "ok",
    );
}

//! A server that answers with exactly the bytes that a test wants, and remembers who came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    /// The values of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Default)]
struct Log {
    accepted: Mutex<Vec<SocketAddr>>,
    grew: Condvar,
    requests: Mutex<Vec<Seen>>,
}

/// A listening server. Its threads end with the test process.
pub struct Server {
    pub port: u16,
    address: SocketAddr,
    log: Arc<Log>,
}

impl Server {
    /// Answers every request with `handler`, which gets the number of the request, from 0. The connection closes after.
    pub fn start(handler: impl Fn(usize, &Seen, &mut TcpStream) + Send + Sync + 'static) -> Server {
        Server::raw(move |stream, log| {
            if let Some(seen) = read(&*stream) {
                let number = {
                    let mut requests = log.lock().unwrap();
                    requests.push(seen.clone());
                    requests.len() - 1
                };
                handler(number, &seen, stream);
            }
        })
    }

    /// Gives every connection to `handler` before a byte is read.
    pub fn connections_to(handler: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Server {
        Server::raw(move |stream, _| handler(stream))
    }

    /// Answers every request with the same bytes.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> Server {
        let bytes = bytes.into();
        Server::start(move |_, _, stream| {
            let _ = stream.write_all(&bytes);
        })
    }

    /// Answers every request with the same bytes, at an address of this machine of its own.
    pub fn at(address: impl Into<SocketAddr>, bytes: impl Into<Vec<u8>>) -> std::io::Result<Server> {
        let (listener, bytes) = (TcpListener::bind(address.into())?, bytes.into());
        Ok(Server::listening(listener, move |stream, log| {
            if let Some(seen) = read(&*stream) {
                log.lock().unwrap().push(seen);
                let _ = stream.write_all(&bytes);
            }
        }))
    }

    fn raw(handler: impl Fn(&mut TcpStream, &Mutex<Vec<Seen>>) + Send + Sync + 'static) -> Server {
        Server::listening(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
    }

    fn listening(
        listener: TcpListener,
        handler: impl Fn(&mut TcpStream, &Mutex<Vec<Seen>>) + Send + Sync + 'static,
    ) -> Server {
        let address = listener.local_addr().unwrap();
        let port = address.port();
        let log = Arc::new(Log::default());
        let (of_thread, handler) = (Arc::clone(&log), Arc::new(handler));
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                of_thread.accepted.lock().unwrap().push(peer);
                of_thread.grew.notify_all();
                let (log, handler) = (Arc::clone(&of_thread), Arc::clone(&handler));
                thread::spawn(move || handler(&mut stream, &log.requests));
            }
        });
        Server { port, address, log }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.log.requests.lock().unwrap().clone()
    }

    /// How many connections were made. Connects itself to know that all earlier ones were counted: a listener hands them
    /// out in order. To be asked once.
    pub fn connections(&self) -> usize {
        let probe = TcpStream::connect(self.address).unwrap();
        let own = probe.local_addr().unwrap();
        let accepted = self.log.accepted.lock().unwrap();
        let missing = |accepted: &mut Vec<SocketAddr>| !accepted.contains(&own);
        let (accepted, late) = self.log.grew.wait_timeout_while(accepted, Duration::from_secs(20), missing).unwrap();
        assert!(!late.timed_out());
        accepted.len() - 1
    }
}

/// Reads one request; `None` when the peer leaves first.
pub fn read(stream: impl Read) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut next = || {
        let mut text = String::new();
        reader.read_line(&mut text).ok().filter(|n| *n > 0)?;
        Some(text.trim_end().to_owned())
    };
    let line = next()?;
    let mut headers = Vec::new();
    loop {
        let text = next()?;
        let Some((name, value)) = text.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { line, headers, body: String::from_utf8(body).unwrap() })
}

/// A whole answer with a JSON body.
pub fn json(status: &str, extra: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{extra}\r\n{body}",
        body.len()
    )
}

/// Waits until the peer closes or resets the connection.
pub fn wait_for_close(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer), Ok(n) if n > 0) {}
}

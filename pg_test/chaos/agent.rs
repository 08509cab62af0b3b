//! The agent of the storm: a listener that writes every request into its book before it does anything with it.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::book::{Book, Course, Received};
use super::deeds::Deed;
use super::harness::{Reply, Request};

/// Longer than any delivery is waited for.
const HANG: Duration = Duration::from_millis(2500);

/// A listening agent, for as long as the process lives.
pub struct Agent {
    book: Arc<Mutex<Book>>,
    /// Its port.
    pub port: u16,
}

impl Agent {
    /// Listens on a free port.
    pub fn start() -> Agent {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let book = Arc::new(Mutex::new(Book::default()));
        std::thread::spawn({
            let book = Arc::clone(&book);
            move || {
                for stream in listener.incoming().flatten() {
                    let book = Arc::clone(&book);
                    std::thread::spawn(move || converse(stream, &book));
                }
            }
        });
        Agent { book, port }
    }

    /// The record.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(mut stream: TcpStream, book: &Mutex<Book>) {
    if lock(book).is_down() {
        lock(book).cut_off += 1;
        return;
    }
    let Ok(request) = Request::read(&mut stream) else {
        lock(book).cut_off += 1;
        return;
    };
    if request.method == "GET" {
        let answer = answer_question(&request, book);
        let _ = answer.write(&request, &mut stream);
    } else {
        let received = lock(book).receive(&request.body, request.header("idempotency-key"));
        match received {
            Some(received) => {
                deliver(&received, &request, &mut stream, book);
                if received.deed == Deed::Reset {
                    return; // without the polite end below
                }
            }
            None => drop(Reply::Json(400, json!({"message": "not of the contract"})).write(&request, &mut stream)),
        }
    }
    // A close with unread input would reset the connection and take the answer with it.
    let _ = stream.shutdown(Shutdown::Write);
}

fn answer_question(request: &Request, book: &Mutex<Book>) -> Reply {
    let verdict = request.run_id().and_then(|run| lock(book).asked(run));
    match verdict {
        Some("running") => Reply::Accepted,
        Some(verdict) => Reply::ended(verdict),
        None => Reply::Json(404, json!({"status": "unknown"})),
    }
}

fn deliver(received: &Received, request: &Request, stream: &mut TcpStream, book: &Mutex<Book>) {
    match received.course {
        Course::Fenced => {
            lock(book).said(received.run, "refused");
            let _ =
                Reply::Json(409, json!({"status": "refused", "message": "a newer token came"})).write(request, stream);
        }
        Course::Working => drop(Reply::Accepted.write(request, stream)),
        Course::Done | Course::Repeated => act(received, request, stream, book),
    }
}

/// As the deed says. What is said is written down before it is sent.
fn act(received: &Received, request: &Request, stream: &mut TcpStream, book: &Mutex<Book>) {
    let repeated = received.course == Course::Repeated;
    let tell = |stream: &mut TcpStream, otherwise: &'static str| {
        let verdict = kept_verdict(book, received.run).filter(|_| repeated).unwrap_or(otherwise);
        lock(book).said(received.run, verdict);
        let _ = Reply::ended(verdict).write(request, stream);
    };
    match received.deed {
        Deed::Succeed => tell(stream, "succeeded"),
        Deed::Slow => {
            std::thread::sleep(Duration::from_millis(if repeated { 10 } else { 250 }));
            tell(stream, "succeeded");
        }
        Deed::Accept => drop(Reply::Accepted.write(request, stream)),
        Deed::Fail => tell(stream, "failed"),
        Deed::Refuse if repeated => tell(stream, "refused"),
        Deed::Refuse => {
            lock(book).said(received.run, "refused");
            let _ = Reply::Json(422, json!({"status": "refused", "message": "no"})).write(request, stream);
        }
        Deed::Busy => error(stream, 503, "Retry-After: 0\r\n"),
        Deed::TooMany => error(stream, 429, "Retry-After: 1\r\n"),
        Deed::Error => error(stream, 500, ""),
        Deed::DropUndone | Deed::DropDone => {}
        Deed::Reset => reset(stream),
        Deed::Cut => drop(stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{\"status\": \"succ",
        )),
        Deed::Garbage => drop(
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<p>hello</p>"),
        ),
        Deed::Hang => std::thread::sleep(HANG),
    }
}

fn kept_verdict(book: &Mutex<Book>, run: Uuid) -> Option<&'static str> {
    lock(book).runs.get(&run).and_then(|kept| kept.verdict)
}

fn error(stream: &mut TcpStream, status: u16, head: &str) {
    let body = r#"{"message": "not now"}"#;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{head}\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes());
}

/// The next close of the connection resets it.
fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open, and the kernel copies the option, whose size is given.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}

//! The HTTP server that both sides call: in this process, so that one clock sees the commit and the arrival.
//!
//! `POST /wait/MS/anything` is answered after MS milliseconds, 0: at once; `POST /size/KB/anything` with a result of so many
//! kilobytes. Connections are kept alive. Lives here: the
//! server and what it remembers. Does not live here: what is asked of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};

use crate::process::thread_ms;

/// What every call is answered with: a success by the contract of docs/agent_api.md.
const ANSWER: &[u8] = br#"{"status":"succeeded","result":{"done":true}}"#;

/// One key's calls.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When the first one arrived: its head was read.
    pub first: Instant,
    /// How many there were.
    pub times: u32,
}

#[derive(Default)]
struct State {
    seen: Mutex<HashMap<u128, Seen>>,
    arrived: Condvar,
    count: AtomicU64,
    out: AtomicU64,
    most_out: AtomicU64,
}

impl State {
    fn seen(&self) -> MutexGuard<'_, HashMap<u128, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listening server, on a thread of its own; it ends with the process.
pub struct Agent {
    state: Arc<State>,
    port: u16,
    /// Its thread's folder in /proc.
    thread: PathBuf,
}

impl Agent {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Agent {
        let state = Arc::new(State::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { bind() }).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (say, said) = std::sync::mpsc::channel();
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let _ = say.send(std::fs::canonicalize("/proc/thread-self").unwrap_or_default());
                runtime.block_on(listen(listener, state));
            }
        });
        Agent { state, port, thread: said.recv().expect("a thread") }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What its thread has used of the processors so far, in milliseconds.
    pub fn cpu_ms(&self) -> f64 {
        thread_ms(&self.thread)
    }

    /// Calls so far, since [`Agent::forget`].
    pub fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    /// The most calls that were out at the same time, since [`Agent::forget`].
    pub fn most_out(&self) -> u64 {
        self.state.most_out.load(Ordering::Relaxed)
    }

    /// Forgets what it has seen.
    pub fn forget(&self) {
        self.state.seen().clear();
        self.state.count.store(0, Ordering::Relaxed);
        self.state.most_out.store(0, Ordering::Relaxed);
    }

    /// Every key with its calls.
    pub fn seen(&self) -> HashMap<u128, Seen> {
        self.state.seen().clone()
    }

    /// When the first call of a key arrived; waits for it. `None` when it has not come for so long.
    pub fn arrival(&self, key: u128, patience: Duration) -> Option<Instant> {
        let missing = |seen: &mut HashMap<u128, Seen>| !seen.contains_key(&key);
        let waited = self.state.arrived.wait_timeout_while(self.state.seen(), patience, missing);
        let (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        seen.get(&key).map(|seen| seen.first)
    }

    /// Waits until there were so many calls; panics when none has come for half a minute.
    pub fn until_count(&self, count: u64) {
        let (mut last, mut since) = (self.count(), Instant::now());
        while self.count() < count {
            std::thread::sleep(Duration::from_millis(2));
            if self.count() != last {
                (last, since) = (self.count(), Instant::now());
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{last} of {count} calls, and no more are coming");
        }
    }
}

/// The key of a call: a run's UUID, or a job's number.
pub fn key(text: &str) -> u128 {
    text.parse().or_else(|_| text.parse::<uuid::Uuid>().map(|id| id.as_u128())).unwrap_or_default()
}

/// With room for a thousand clients that connect at once: those for whom there is none try again a second later.
fn bind() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4096)
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &state));
            // A client that goes away is no business of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>, Infallible> {
    let first = Instant::now();
    let key = request.headers().get("idempotency-key").and_then(|value| value.to_str().ok()).map_or(0, key);
    state.seen().entry(key).or_insert(Seen { first, times: 0 }).times += 1;
    state.arrived.notify_all();
    state.count.fetch_add(1, Ordering::Relaxed);
    let out = state.out.fetch_add(1, Ordering::Relaxed) + 1;
    state.most_out.fetch_max(out, Ordering::Relaxed);
    let path = request.uri().path();
    let wait = path.strip_prefix("/wait/").and_then(|rest| rest.split('/').next()?.parse().ok());
    let size = path.strip_prefix("/size/").and_then(|rest| rest.split('/').next()?.parse().ok());
    let _ = request.into_body().collect().await;
    if let Some(ms) = wait.filter(|ms| *ms > 0) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    state.out.fetch_sub(1, Ordering::Relaxed);
    let body = size.map_or(Bytes::from_static(ANSWER), |kilobytes| long_answer(key, kilobytes));
    let answer = Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::new(body)).expect("a response"))
}

/// A success with a result that does not compress to nothing.
fn long_answer(key: u128, kilobytes: usize) -> Bytes {
    let mut text = String::from(r#"{"status":"succeeded","result":{"text":""#);
    let mut noise = key as u64 | 1;
    while text.len() < kilobytes * 1024 {
        // Marsaglia's xorshift.
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        text.push_str(&format!("{noise:016x}"));
    }
    Bytes::from(text + "\"}}")
}

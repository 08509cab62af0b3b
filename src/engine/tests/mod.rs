//! The engine against a server that misbehaves byte by byte. Lives here: what the tests share. No PostgreSQL, no network
//! beyond this machine, and no waiting that stands for synchronisation.

mod answers;
mod cuts;
mod departures;
mod docs;
mod faults;
mod inquiries;
mod lifecycle;
mod network;
mod polling;
mod rebinding;
mod reuse;
mod scripts;
mod secrets;
mod server;
mod stopped;
mod targets;
mod tls;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::{Call, Config, Engine, Errand, Limits, Report, Waker, Wakeup};
use crate::domain::answer::{Answer, Reach, Verdict};
use crate::domain::doubt::Finding;
use crate::domain::egress::{Rule, Rules};
use crate::domain::mode::Mode;
use crate::domain::order::Order;
use crate::domain::render::{Endpoint, Facts, Request, request};

/// The largest answer in tests, in bytes.
const CAP: u64 = 64 * 1024;

/// An engine and its owner.
struct Rig {
    engine: Engine,
    runtime: Runtime,
    wakeup: Wakeup,
    /// The wakeup's descriptor once more, as something that the runtime can wait for.
    bell: UnixStream,
    accepted: RefCell<Vec<Url>>,
    retry_after: RefCell<Option<Duration>>,
}

impl Rig {
    fn new() -> Self {
        Rig::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let (waker, wakeup) = Waker::pair().unwrap();
        let engine = Engine::start(config, waker, |body| std::thread::Builder::new().spawn(body)).unwrap();
        engine.allow_until(Instant::now() + Duration::from_secs(3600));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let bell = runtime.block_on(async {
            let same = wakeup.as_fd().try_clone_to_owned().unwrap();
            UnixStream::from_std(same.into()).unwrap()
        });
        Rig { engine, runtime, wakeup, bell, accepted: RefCell::default(), retry_after: RefCell::default() }
    }

    /// Makes one call and waits for its end.
    fn run(&self, call: Call) -> Answer {
        self.engine.submit(call);
        self.end()
    }

    /// Waits for the end of one call, as the worker does: descriptor, drain, reports.
    fn end(&self) -> Answer {
        self.ended().1
    }

    /// The same, with the attempt that ended.
    fn ended(&self) -> (i32, Answer) {
        loop {
            match self.engine.try_recv() {
                Some(Report::Accepted { status_url, .. }) => self.accepted.borrow_mut().push(status_url),
                Some(Report::Ended { attempt, answer, retry_after, .. }) => {
                    *self.retry_after.borrow_mut() = retry_after;
                    return (attempt, answer);
                }
                Some(Report::Learned { finding, .. }) => panic!("{finding:?}"),
                None => self.sleep(),
            }
        }
    }

    /// Asks by key at a URL relative to the request's, and waits for what is learned.
    fn inquire(&self, mut call: Call, at: &str) -> Finding {
        call.errand = Errand::Inquire(call.request.http().unwrap().url.join(at).unwrap());
        self.engine.submit(call);
        loop {
            match self.engine.try_recv() {
                Some(Report::Learned { finding, .. }) => return finding,
                Some(other) => panic!("{other:?}"),
                None => self.sleep(),
            }
        }
    }

    /// Waits for a wake and takes it.
    fn sleep(&self) {
        let woken = async { timeout(Duration::from_secs(90), self.bell.readable()).await.expect("no report").unwrap() };
        self.runtime.block_on(woken);
        self.wakeup.drain();
        // The runtime believes in a wake until it sees for itself that there is none. No byte is taken here: it may be a
        // later one, which was not drained.
        let seen: std::io::Result<()> = self.bell.try_io(Interest::READABLE, || Err(ErrorKind::WouldBlock.into()));
        debug_assert!(seen.is_err());
    }
}

/// The request of a call, to be changed.
fn http(call: &mut Call) -> &mut Request {
    match &mut call.request {
        Order::Http(request) => request,
        Order::Script(command) => panic!("{command:?}"),
    }
}

/// Looks until it is so.
fn until(mut look: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !look() {
        assert!(Instant::now() < end, "it took too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory of its own that goes with the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("dot_wrapper_{}", Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    /// With one file in it.
    fn holding(name: &str, content: &[u8]) -> Self {
        let dir = TempDir::new();
        std::fs::write(dir.0.join(name), content).unwrap();
        dir
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rule(scheme: &str, host: &str, port: u16, path: &str, cidrs: &[&str]) -> Rule {
    Rule {
        id: 1,
        scheme: scheme.into(),
        host: host.into(),
        port,
        path_prefix: path.into(),
        cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
    }
}

/// An apply of `DOT-KG-017` at a base URL, under the rules given.
fn call_at(base: &str, secret: Option<&str>, rules: Vec<Rule>) -> Call {
    let endpoint = Endpoint {
        name: "kg".into(),
        base_url: base.into(),
        path: "/v1/dots/{code}/runs".into(),
        auth_header: "Authorization".into(),
        auth_scheme: "Bearer".into(),
        auth_secret: secret.map(Into::into),
        status_path: None,
        max_in_flight: None,
        rate_per_s: None,
        rate_burst: 1,
        breaker_failures: 5,
        breaker_pause_s: 30,
    };
    let facts = Facts {
        code: "DOT-KG-017",
        mode: Mode::Apply,
        run_id: Uuid::from_u128(7),
        process_run_id: Uuid::from_u128(9),
        attempt: 1,
        args: &json!({"scope": "all"}),
        fencing_token: Some(5),
        deadline: Some("2026-11-22T10:00:00Z"),
    };
    Call {
        run_id: facts.run_id,
        attempt: facts.attempt,
        errand: Errand::Deliver,
        request: Order::Http(request(&endpoint, &facts).unwrap()),
        limits: Limits {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(60),
            max_response_bytes: CAP,
        },
        egress: Arc::new(Rules(rules)),
    }
}

/// The same at a port of this machine, by address, allowed.
fn call(port: u16) -> Call {
    let rules = vec![rule("http", "127.0.0.1", port, "/", &["127.0.0.0/8"])];
    call_at(&format!("http://127.0.0.1:{port}"), None, rules)
}

/// The same with a short life.
fn short(port: u16, total: Duration) -> Call {
    let mut call = call(port);
    call.limits.total = total;
    call
}

#[track_caller]
fn assert_end(answer: &Answer, reach: Reach, verdict: Verdict, reason: &str) {
    assert_eq!((answer.reach, answer.verdict, answer.reason.as_str()), (reach, verdict, reason), "{answer:?}");
    assert!(answer.message.chars().count() <= 300 && !answer.message.contains('\n'), "{}", answer.message);
}

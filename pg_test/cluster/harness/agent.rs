//! An agent inside the test: it records every request before it does anything, and then does what it was told to,
//! down to the byte. What goes over the wire is `wire`'s business.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait::DEADLINE;
use super::wire::{Reply, Request};

/// The tool whose runs prove that the worker has looked: they always succeed, and are not shown among the requests.
pub const CANARY: &str = "DOT-CANARY";

type Plan = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A listening agent; dropping it ends its connections.
pub struct Agent {
    shared: Arc<Shared>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    plan: Mutex<Arc<Plan>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// What became of held requests, by their number.
    released: HashMap<usize, Reply>,
    streams: Vec<TcpStream>,
    closing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Listens on a free port, and lets every run succeed.
    pub fn start() -> Agent {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let plan: Plan = Box::new(|_| Reply::succeeded());
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), plan: Mutex::new(Arc::new(plan)) });
        let listening = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listener, &shared)
        });
        Agent { shared, address, listening: Some(listening) }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on every request gets this.
    pub fn reply(&self, reply: Reply) {
        self.plan(move |_| reply.clone());
    }

    /// From now on every request gets what this says, on the thread of its connection, once it is recorded.
    pub fn plan(&self, plan: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Box::new(plan));
    }

    /// All requests so far, without canaries.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.shared.state().requests.len()
    }

    /// How many connections there were, whatever came of them; canaries' too.
    pub fn connections(&self) -> usize {
        self.shared.state().streams.len()
    }

    /// The requests, as soon as there are so many of them.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Request> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.shared.state();
        while state.requests.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {count} requests came: {:?}", state.requests.len(), state.requests);
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.requests.clone()
    }

    /// Answers a held request.
    pub fn release(&self, request: &Request, reply: Reply) {
        self.shared.state().released.insert(request.number, reply);
        self.shared.changed.notify_all();
    }

    /// Ends all connections and listens no more.
    pub fn close(&self) {
        let mut state = self.shared.state();
        state.closing = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        let mut state = shared.state();
        if state.closing {
            return;
        }
        state.streams.extend(stream.try_clone());
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || converse(stream, &shared));
    }
}

/// One connection, which carries one request.
fn converse(mut stream: TcpStream, shared: &Shared) {
    let Ok(mut request) = Request::read(&mut stream) else { return };
    let reply = if request.field("dot_code") == CANARY {
        Reply::succeeded()
    } else {
        // Before it is recorded: who has seen a request may already be changing the plan for the next one.
        let plan = Arc::clone(&shared.plan.lock().unwrap_or_else(PoisonError::into_inner));
        record(&mut request, shared);
        match plan(&request) {
            Reply::Hold => held(shared, request.number),
            reply => reply,
        }
    };
    let _ = reply.write(&request, &mut stream);
    // A close with unread input would reset the connection and take the answer with it.
    let _ = stream.shutdown(Shutdown::Write);
}

fn record(request: &mut Request, shared: &Shared) {
    let mut state = shared.state();
    request.number = state.requests.len();
    state.requests.push(request.clone());
    drop(state);
    shared.changed.notify_all();
}

fn held(shared: &Shared, number: usize) -> Reply {
    let mut state = shared.state();
    loop {
        if state.closing {
            return Reply::Close;
        }
        if let Some(reply) = state.released.remove(&number) {
            return reply;
        }
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

//! The engine's thread and the handle that its single-threaded owner holds. Calls go in, reports come out; for every
//! call that went in exactly one `Ended` or `Learned` comes out, also when it panics or the thread dies.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::client::Clients;
use super::departure::Permission;
use super::exchange::Shared;
use super::reports::Reports;
use super::resolve::Names;
use super::secrets::Secrets;
use super::ticket::Ticket;
use super::waker::Waker;
use super::{Call, Config, Report, agent_api, reason, script};
use crate::domain::order::Order;

/// What the engine's thread runs.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// Helper threads for DNS and files, at most; a name server that hangs must not eat the machine.
const MAX_HELPERS: usize = 64;

/// The handle. Not for sharing between threads.
#[derive(Debug)]
pub struct Engine {
    commands: UnboundedSender<Command>,
    incoming: mpsc::Receiver<Report>,
    /// For reports that the engine's thread cannot make any more.
    reports: Reports,
    /// Never carries anything; disconnected once the thread is through.
    alive: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    secrets: Secrets,
    permission: Arc<Permission>,
    out: RefCell<HashMap<(Uuid, i32), Ticket>>,
}

#[derive(Debug)]
enum Command {
    Make(Box<Call>, Ticket),
    Configure(Arc<Shared>),
}

impl Engine {
    /// Starts the engine on a thread that `spawn` makes. The thread, and with it every helper that tokio starts from it,
    /// inherits the signal mask of the caller: block all signals around this call. Reads the `DOT_SECRET_*` variables.
    ///
    /// # Errors
    /// When the process is out of descriptors or threads.
    pub fn start(
        config: Config,
        waker: Waker,
        spawn: impl FnOnce(ThreadBody) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Engine> {
        let runtime =
            Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(MAX_HELPERS).build()?;
        let secrets = Secrets::new(None);
        let shared = share(&secrets, config);
        let (commands, inbox) = unbounded_channel();
        let (channel, incoming) = mpsc::channel();
        let (alive_in_thread, alive) = mpsc::channel();
        let reports = Reports::new(channel, waker.clone());
        let of_thread = reports.clone();
        let running = Running { runtime: Some(runtime), alive: Some(alive_in_thread), waker };
        let thread = spawn(Box::new(move || running.run(inbox, shared, of_thread)))?;
        let (permission, out) = (Arc::new(Permission::none()), RefCell::default());
        Ok(Engine { commands, incoming, reports, alive, thread, secrets, permission, out })
    }

    /// Says until when deliveries may begin to send: somebody has just seen the gates open. The last word counts, so that
    /// a time that is over takes the permission away. A fresh engine has none. A delivery that comes to its first byte
    /// without it ends as `withheld`, not sent; questions and what has begun go on.
    pub fn allow_until(&self, then: Instant) {
        self.permission.until(then);
    }

    /// Deliveries that were submitted and have neither begun to send nor ended: while there are any, the permission has
    /// to be renewed.
    pub fn unsent(&self) -> usize {
        self.permission.waiting()
    }

    /// Hands a call over. Its report comes even when the engine is dead.
    pub fn submit(&self, call: Call) {
        let ticket = Ticket::of(&call, &self.permission);
        self.out.borrow_mut().insert((call.run_id, call.attempt), ticket.clone());
        if self.commands.send(Command::Make(Box::new(call), ticket.clone())).is_err() {
            self.reports.send(ticket.ended(reason::ENGINE_DOWN, "the engine's thread has ended"));
        }
    }

    /// Calls a call off: its connection is closed at once, or its program stopped, and it ends as `cancelled`, sent or not sent; an `Inquire`
    /// ends without an answer. If it has just ended by itself, that end stands. A call that is not out is left alone.
    pub fn cancel(&self, run_id: Uuid, attempt: i32) {
        if let Some(ticket) = self.out.borrow().get(&(run_id, attempt)) {
            ticket.call_off();
        }
    }

    /// The next report, if there is one. Drain the wakeup first, then call this until it gives `None`.
    pub fn try_recv(&self) -> Option<Report> {
        let mut report = self.incoming.try_recv().ok();
        if report.is_none() && !self.is_alive() {
            // Asked once more: what a thread reported before it ended is in the channel.
            report = self.incoming.try_recv().ok().or_else(|| self.lost());
        }
        let report = report?;
        if let Report::Ended { run_id, attempt, .. } | Report::Learned { run_id, attempt, .. } = &report {
            self.out.borrow_mut().remove(&(*run_id, *attempt));
        }
        Some(report)
    }

    /// Calls that were submitted and whose end was not yet received.
    pub fn in_flight(&self) -> usize {
        self.out.borrow().len()
    }

    /// False once the thread has ended. Calls submitted from then on end as not sent; start another engine.
    pub fn is_alive(&self) -> bool {
        matches!(self.alive.try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    /// Sets a new configuration for the calls that are submitted from now on. CA file and roots are read anew.
    pub fn reconfigure(&self, config: Config) {
        // Without a thread there is nothing to configure.
        let _ = self.commands.send(Command::Configure(share(&self.secrets, config)));
    }

    /// Drops all calls that are under way, waits up to `grace` for the thread, and returns the reports that had come.
    /// A dropped call has no report: the recorded intent says what is known about it.
    pub fn shutdown(self, grace: Duration) -> Vec<Report> {
        drop(self.commands);
        if !matches!(self.alive.recv_timeout(grace), Err(mpsc::RecvTimeoutError::Timeout)) {
            // It is through its work; what it panicked with, if it did, has been printed.
            let _ = self.thread.join();
        }
        self.incoming.try_iter().collect()
    }

    /// The end of a call that died with the thread.
    fn lost(&self) -> Option<Report> {
        let out = self.out.borrow();
        let ticket = out.values().next()?;
        Some(ticket.ended(reason::ENGINE_PANIC, "the engine's thread ended unexpectedly"))
    }
}

fn share(secrets: &Secrets, config: Config) -> Arc<Shared> {
    let clients = Clients::new(config.ca_file, Names::default());
    Arc::new(Shared { clients, secrets: secrets.with_dir(config.secrets_dir), scripts: config.scripts })
}

/// What the thread holds until it is through, however it gets there.
struct Running {
    runtime: Option<Runtime>,
    alive: Option<mpsc::Sender<()>>,
    waker: Waker,
}

impl Running {
    fn run(self, inbox: UnboundedReceiver<Command>, shared: Arc<Shared>, reports: Reports) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(serve(inbox, shared, reports));
        }
    }
}

impl Drop for Running {
    /// Drops the deliveries without waiting for a helper that hangs in a system call, then tells the owner.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.alive.take();
        self.waker.wake();
    }
}

async fn serve(mut inbox: UnboundedReceiver<Command>, mut shared: Arc<Shared>, reports: Reports) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Configure(newer) => shared = newer,
            Command::Make(call, ticket) => {
                let (shared, of_call) = (Arc::clone(&shared), reports.clone());
                let departure = Arc::clone(&ticket.departure);
                if let Order::Script(command) = &call.request {
                    // Called off, it must end before it is reported: it hears of that itself.
                    let work = script::make(*call.clone(), command.clone(), ticket.clone(), shared);
                    tokio::spawn(watched(ticket.deaf(), work, reports.clone()));
                    continue;
                }
                let work = async move { agent_api::make(*call, departure, shared, &of_call).await };
                tokio::spawn(watched(ticket, work, reports.clone()));
            }
        }
    }
}

/// Makes a call so that its panic becomes a report, and that it can be called off.
pub(super) async fn watched(ticket: Ticket, work: impl Future<Output = Report> + Send, reports: Reports) {
    let witness = Witness { ticket, reports };
    let ticket = &witness.ticket;
    // What the call holds, its connection above all, goes with it, before it is reported.
    let ended = {
        tokio::select! {
            biased;
            report = work => report,
            () = ticket.called_off() => ticket.ended(reason::CANCELLED, "the call was called off"),
        }
    };
    // Also where nothing was asked for: from here on nothing can begin to send.
    ticket.departure.close();
    witness.reports.send(ended);
}

/// Reports the call whose panic it sees: the runtime catches it, and tells nobody.
struct Witness {
    ticket: Ticket,
    reports: Reports,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reports.send(self.ticket.ended(reason::ENGINE_PANIC, "a defect in the engine ended the call"));
        }
    }
}

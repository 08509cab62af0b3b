//! The engine's thread and the handle that its single-threaded owner holds. Calls go in, reports come out; for every
//! call that went in exactly one `Ended` comes out, also when a delivery panics or the thread dies.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::client::Clients;
use super::exchange::Shared;
use super::reports::Reports;
use super::secrets::Secrets;
use super::waker::Waker;
use super::{Call, Config, Outcome, Report, agent_api, reason};
use crate::domain::answer::{Answer, Reach};

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
    out: RefCell<HashSet<(Uuid, i32)>>,
}

#[derive(Debug)]
enum Command {
    Deliver(Box<Call>),
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
        Ok(Engine { commands, incoming, reports, alive, thread, secrets, out: RefCell::default() })
    }

    /// Hands a call over. Its report comes even when the engine is dead.
    pub fn submit(&self, call: Call) {
        let (run_id, attempt) = (call.run_id, call.attempt);
        let resumed = call.resume.is_some();
        self.out.borrow_mut().insert((run_id, attempt));
        if self.commands.send(Command::Deliver(Box::new(call))).is_err() {
            let reach = if resumed { Reach::Sent } else { Reach::NotSent };
            let answer = Answer::failure(reach, reason::ENGINE_DOWN, "the engine's thread has ended");
            self.reports.send(Report::Ended { run_id, attempt, answer, retry_after: None });
        }
    }

    /// The next report, if there is one. Drain the wakeup first, then call this until it gives `None`.
    pub fn try_recv(&self) -> Option<Report> {
        // Asked before the channel: what a thread reported before it ended is then in the channel.
        let dead = !self.is_alive();
        let report = self.incoming.try_recv().ok().or_else(|| if dead { self.lost() } else { None })?;
        if let Report::Ended { run_id, attempt, .. } = &report {
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

    /// The end of a call that died with the thread. It may have been sent.
    fn lost(&self) -> Option<Report> {
        let (run_id, attempt) = *self.out.borrow().iter().next()?;
        let answer = Answer::failure(Reach::Sent, reason::ENGINE_PANIC, "the engine's thread ended unexpectedly");
        Some(Report::Ended { run_id, attempt, answer, retry_after: None })
    }
}

fn share(secrets: &Secrets, config: Config) -> Arc<Shared> {
    Arc::new(Shared { clients: Clients::new(config.ca_file), secrets: secrets.with_dir(config.secrets_dir) })
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
            Command::Deliver(call) => {
                let (run_id, attempt) = (call.run_id, call.attempt);
                let (shared, of_delivery) = (Arc::clone(&shared), reports.clone());
                let delivery = async move { agent_api::deliver(*call, shared, &of_delivery).await };
                tokio::spawn(watched(run_id, attempt, delivery, reports.clone()));
            }
        }
    }
}

/// Runs a delivery as a task of its own, so that its panic becomes a report.
pub(super) async fn watched(
    run_id: Uuid,
    attempt: i32,
    delivery: impl Future<Output = Outcome> + Send + 'static,
    reports: Reports,
) {
    let outcome = tokio::spawn(delivery).await.unwrap_or_else(|_| {
        Answer::failure(Reach::Sent, reason::ENGINE_PANIC, "a defect in the engine ended the delivery").into()
    });
    reports.send(Report::Ended { run_id, attempt, answer: outcome.answer, retry_after: outcome.retry_after });
}

//! One call of a script, from the last look at its file to the moment when nothing of it is left. `docs/scripts.md` is the
//! contract.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{self, Receiver};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::body::after;
use super::exchange::{Shared, unsent};
use super::failure::Failure;
use super::program::{Ends, Program, Start};
use super::tail::Tail;
use super::ticket::Ticket;
use super::{Call, Errand, MESSAGE, Outcome, Report, mask, reason};
use crate::domain::answer::{Answer, Reach, Verdict};
use crate::domain::doubt::Finding;
use crate::domain::script::Command;
use crate::host;

/// From one wish that it ends to the next: the keeper's grace of 3 s, and what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the deadline to the moment when the keeper takes it that nobody will ask.
const OVERDUE: Duration = Duration::from_secs(2);
/// Looks at files that are under way, or that hang; the helper threads are for others too.
static LOOKS: Semaphore = Semaphore::const_new(16);
/// What was written before the end is read for so long at most; who still writes then is none of ours.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// "I changed nothing; try again later": EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: i32 = 75;

/// Makes the call. Ends when nothing of the program is left: some seconds after `limits.total`, but for processes that the kernel
/// does not let go of. Whoever took the run for over would repeat it beside them.
pub(super) async fn make(call: Call, command: Command, ticket: Ticket, shared: Arc<Shared>) -> Report {
    let (run_id, attempt) = (call.run_id, call.attempt);
    let started = Instant::now();
    let mut outcome = match call.errand {
        Errand::Deliver => deliver(&call, command, &ticket, &shared).await.unwrap_or_else(Outcome::from),
        Errand::Follow(_) | Errand::Inquire(_) => {
            let failure = Failure::unknown(reason::REQUEST_UNUSABLE, "a script cannot be asked what became of it");
            if matches!(call.errand, Errand::Inquire(_)) {
                let finding = Finding::NoAnswer { message: failure.message, retry_after: None };
                return Report::Learned { run_id, attempt, finding };
            }
            failure.into()
        }
    };
    outcome.answer.message = mask::line(&outcome.answer.message, None, MESSAGE);
    outcome.answer.elapsed = started.elapsed();
    Report::Ended { run_id, attempt, answer: outcome.answer, retry_after: outcome.retry_after }
}

async fn deliver(call: &Call, command: Command, ticket: &Ticket, shared: &Shared) -> Result<Outcome, Failure> {
    let mut called_off = pin!(ticket.called_off());
    let deadline = after(Instant::now(), call.limits.total);
    let cancelled = || Failure::unsent(reason::CANCELLED, "the call was called off");
    let path = tokio::select! {
        biased;
        () = &mut called_off => return Err(cancelled()),
        path = look(&command, shared, deadline) => path?,
    };
    let most = deadline.saturating_duration_since(Instant::now()) + OVERDUE;
    let program = Program { path, args: command.args, env: command.env, most, limits: command.limits };
    let start =
        shared.scripts.start.ok_or_else(|| Failure::unsent(reason::NOT_STARTED, "nobody starts programs here"))?;
    // The last question: from here on it may run.
    if ticket.departure.leave().is_err() {
        return Err(Failure::unsent(reason::WITHHELD, "").under(ticket.departure.close()));
    }
    let not_started = |error: io::Error| Failure::unsent(reason::NOT_STARTED, format!("{}: {error}", program.path));
    let mut process = Process::start(start, &program, call.limits.max_response_bytes).map_err(not_started)?;
    let stopped = tokio::select! {
        biased;
        () = process.end() => None,
        () = &mut called_off => Some((reason::CANCELLED, "the call was called off".to_owned())),
        () = sleep_until(deadline) => {
            let seconds = call.limits.total.as_secs_f64();
            Some((reason::TIMEOUT, format!("it did not end within {seconds} s and was stopped")))
        }
    };
    // A program that had ended, and whose leavings its keeper was just clearing away, was not stopped by us.
    let stopped = stopped.filter(|_| process.status().is_none());
    process.finish().await;
    let ended = process.status();
    let exit = match ended {
        Some(Word::NotExecuted(error)) => return Err(not_started(io::Error::from_raw_os_error(error))),
        Some(Word::Ended(status)) => Some(status),
        None => None,
    };
    let mut answer = verdict(exit, stopped);
    answer.bytes = process.bytes();
    answer.result = Some(mask::json(process.result(exit), None));
    Ok(answer.into())
}

/// Whether the file may still be started, and what it is.
async fn look(command: &Command, shared: &Shared, deadline: Instant) -> Result<String, Failure> {
    // A file system that hangs keeps its helpers, whose calls were given up long ago; it must not get all there are.
    let Ok(Ok(turn)) = timeout_at(deadline, LOOKS.acquire()).await else {
        return Err(Failure::unsent(reason::NOT_STARTED, "the file systems of other scripts do not answer"));
    };
    let (roots, user, path) = (shared.scripts.roots.clone(), shared.scripts.user, command.program.clone());
    let found = unsent(reason::NOT_STARTED, deadline, move || {
        let _until_it_is_done = turn;
        Ok(host::find(&roots, &path, user))
    })
    .await?;
    found.map(|program| program.real).map_err(|(_, refusal)| Failure::unsent(refusal.reason, refusal.message))
}

/// What its end says. An end that we brought about says nothing of what was done, but for the script's own word that it was
/// nothing.
fn verdict(exit: Option<i32>, stopped: Option<(&'static str, String)>) -> Answer {
    let code = exit.and_then(exited);
    let answer = |verdict, reason: String, message: String| Answer {
        verdict,
        ..Answer::failure(Reach::Answered, reason, message)
    };
    match (code, stopped) {
        (Some(TRY_AGAIN), stopped) => {
            let reason = stopped.map_or_else(|| format!("exit_{TRY_AGAIN}"), |(reason, _)| reason.to_owned());
            answer(Verdict::NotTaken, reason, "the script says that it changed nothing and is to be tried again".into())
        }
        (_, Some((reason, message))) => Answer::failure(Reach::Sent, reason, message),
        (Some(0), None) => answer(Verdict::Succeeded, reason::OK.into(), "the script succeeded".into()),
        (Some(code), None) => {
            answer(Verdict::Failed, format!("exit_{code}"), format!("the script ended with exit code {code}"))
        }
        (None, None) => match exit {
            Some(status) => {
                let signal = status & 0x7f;
                let message = format!("the script was killed by signal {signal}; what it did is not known");
                Answer::failure(Reach::Sent, format!("signal_{signal}"), message)
            }
            None => Answer::failure(
                Reach::Sent,
                reason::KEEPER_LOST,
                "the script's keeper ended without telling how it ended",
            ),
        },
    }
}

/// The exit code in a wait status; `None` for a signal.
fn exited(status: i32) -> Option<i32> {
    (status & 0x7f == 0).then_some((status >> 8) & 0xff)
}

/// What the life pipe said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    NotExecuted(i32),
    Ended(i32),
}

/// A program that runs. When it is dropped, it is stopped, and somebody takes leave of it.
struct Process {
    keeper: i32,
    stop: fn(i32),
    reap: fn(i32) -> bool,
    life: Receiver,
    has_ended: bool,
    told: Vec<u8>,
    stdout: Tail,
    stderr: Tail,
    streams: tokio::task::JoinSet<()>,
}

impl Process {
    /// Starts it, and keeps this much of each stream. All that can fail is done before: an error means that nothing was started.
    fn start(start: Start, program: &Program, most: u64) -> io::Result<Process> {
        let ((life, end), (stdout, out), (stderr, err)) = (pipe()?, pipe()?, pipe()?);
        let started = start(program, Ends { stdout: out, stderr: err, life: end })?;
        let mut process = Process {
            keeper: started.keeper,
            stop: started.stop,
            reap: started.reap,
            life,
            has_ended: false,
            told: Vec::new(),
            stdout: Tail::new(most),
            stderr: Tail::new(most),
            streams: tokio::task::JoinSet::new(),
        };
        process.streams.spawn(process.stdout.clone().follow(stdout));
        process.streams.spawn(process.stderr.clone().follow(stderr));
        Ok(process)
    }

    /// Waits until nothing of it is left, and all that it wrote is read. May be dropped and called again.
    async fn end(&mut self) {
        // An error is an end too.
        while let Ok(1..) = self.life.read_buf(&mut self.told).await {}
        let streams = &mut self.streams;
        let _ = timeout(LAST_WORDS, async { while streams.join_next().await.is_some() {} }).await;
        self.has_ended = true;
    }

    /// Waits until nothing of it is left, and asks for that until then.
    async fn finish(&mut self) {
        while !self.has_ended {
            (self.stop)(self.keeper);
            let _ = timeout(PATIENCE, self.end()).await;
        }
    }

    /// The first word, which is the one that counts: a program that was not executed ends too.
    fn status(&self) -> Option<Word> {
        let (word, number) = self.told.get(..5)?.split_first()?;
        let number = i32::from_le_bytes(number.try_into().ok()?);
        match word {
            b'E' => Some(Word::NotExecuted(number)),
            b'S' => Some(Word::Ended(number)),
            _ => None,
        }
    }

    fn bytes(&self) -> u64 {
        self.stdout.bytes().saturating_add(self.stderr.bytes())
    }

    fn result(&self, exit: Option<i32>) -> Value {
        let mut result = Map::new();
        let signal = exit.map(|status| status & 0x7f).filter(|signal| *signal != 0);
        result.insert("exit_code".into(), exit.and_then(exited).into());
        if let Some(signal) = signal {
            result.insert("signal".into(), signal.into());
        }
        self.stdout.put("stdout", &mut result);
        self.stderr.put("stderr", &mut result);
        result.into()
    }
}

/// The end that we listen at, and the one to write to, which waits for us as any program expects.
fn pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (write, read) = pipe::pipe()?;
    Ok((read, write.into_blocking_fd()?))
}

impl Drop for Process {
    /// The keeper closes its pipe an instant before it is gone, and one that was told to stop takes seconds.
    fn drop(&mut self) {
        let (keeper, stop, reap) = (self.keeper, self.stop, self.reap);
        if reap(keeper) {
            return;
        }
        if self.told.is_empty() {
            stop(keeper);
        }
        // Without a runtime the whole process is about to end, and the keeper with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut pause = Duration::from_millis(1);
                while !reap(keeper) {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_what_they_say() {
        let told = |exit, stopped: Option<&'static str>| {
            let answer = verdict(exit, stopped.map(|reason| (reason, String::new())));
            (answer.reach, answer.verdict, answer.reason)
        };
        let exit = |code: i32| Some(code << 8);
        for (status, stopped, reach, verdict, reason) in [
            (exit(0), None, Reach::Answered, Verdict::Succeeded, "ok"),
            (exit(1), None, Reach::Answered, Verdict::Failed, "exit_1"),
            (exit(255), None, Reach::Answered, Verdict::Failed, "exit_255"),
            (exit(75), None, Reach::Answered, Verdict::NotTaken, "exit_75"),
            (exit(75), Some("timeout"), Reach::Answered, Verdict::NotTaken, "timeout"),
            (exit(0), Some("timeout"), Reach::Sent, Verdict::None, "timeout"),
            (Some(9), Some("cancelled"), Reach::Sent, Verdict::None, "cancelled"),
            (Some(11), None, Reach::Sent, Verdict::None, "signal_11"),
            (Some(0x80 | 6), None, Reach::Sent, Verdict::None, "signal_6"),
            (None, None, Reach::Sent, Verdict::None, "keeper_lost"),
            (None, Some("timeout"), Reach::Sent, Verdict::None, "timeout"),
        ] {
            assert_eq!(told(status, stopped), (reach, verdict, reason.to_owned()));
        }
    }
}

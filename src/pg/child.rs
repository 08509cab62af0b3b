//! Starts a program that cannot outlive us: between it and this process stands a keeper of its own, which kills the program
//! with everything that came of it when it is told to, when its time is over, when the program ends, and when this process dies.
//!
//! ```text
//! worker (engine's thread) ── fork ── keeper: own session, subreaper, SIGTERM when the worker dies
//!        ^                              └── fork ── program: own group, SIGKILL when the keeper dies
//!        └── life pipe: the program's wait status, and then the end, when nothing of it is left
//! ```
//!
//! Lives here: the forks, with libc alone and nothing of PostgreSQL, so that it can be tested without a server. Does not live
//! here: whether a program may be started, and what its end means.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

mod keeper;
mod program;

#[cfg(test)]
mod tests;

/// No program may have more descriptors open.
const FILES: u64 = 1024;

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The file, absolute; not looked for in PATH.
    pub program: &'a str,
    /// Its arguments, without the zeroth.
    pub args: &'a [String],
    /// Its whole environment.
    pub env: &'a [(&'static str, String)],
    /// The keeper ends the program by itself after this time.
    pub most: Duration,
    /// Bytes of data for each process.
    pub memory: u64,
    /// Seconds of processor time for each process.
    pub cpu_s: u64,
    /// Bytes of the largest file.
    pub file: u64,
    /// Descriptors that the program may have open, 1024 at most.
    pub files: u64,
    /// Called in the keeper before anything else. Must be safe in the child of a process that has threads.
    pub detach: fn(),
}

/// The ends of pipes that the program and its keeper write to; all close on exec. Who starts it has the other ends.
#[derive(Debug)]
pub struct Ends {
    /// What the program says.
    pub stdout: OwnedFd,
    /// What it complains of.
    pub stderr: OwnedFd,
    /// `E` and an errno when the program could not be executed, `S` and its wait status when it has ended; at its end
    /// nothing is left of it. An end without a word: nobody knows.
    pub life: OwnedFd,
}

/// Everything that the children need, made before the fork: they may not allocate.
struct Prepared {
    program: CString,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    _texts: Vec<CString>,
    null: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    life: OwnedFd,
    parent: libc::pid_t,
    most_ms: i64,
    memory: u64,
    cpu_s: u64,
    file: u64,
    files: u64,
    detach: fn(),
}

/// Starts it, and gives its keeper: a child of this process, not to be used any more once it was reaped; see [`stop`]. The
/// calling thread must live as long as the program may: the kernel tells the keeper of that thread's end.
///
/// # Errors
/// When there is a NUL in its texts, or the system is out of descriptors or processes: nothing was started. That the program
/// cannot be executed comes through `life`.
pub fn start(spec: &Spec<'_>, ends: Ends) -> io::Result<i32> {
    let text = |text: String| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(spec.program.to_owned())?;
    let args = spec.args.iter().map(|arg| text(arg.clone())).collect::<io::Result<Vec<_>>>()?;
    let env = spec.env.iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<io::Result<Vec<_>>>()?;
    let argv = pointers(std::iter::once(&program).chain(&args));
    let envp = pointers(env.iter());
    let null = above(std::fs::File::open("/dev/null")?.into())?;
    // SAFETY: no memory is involved.
    let parent = unsafe { libc::getpid() };
    let prepared = Prepared {
        program,
        argv,
        envp,
        _texts: args.into_iter().chain(env).collect(),
        null,
        stdout: above(ends.stdout)?,
        stderr: above(ends.stderr)?,
        life: above(ends.life)?,
        parent,
        most_ms: i64::try_from(spec.most.as_millis()).unwrap_or(i64::MAX),
        memory: spec.memory,
        cpu_s: spec.cpu_s,
        file: spec.file,
        files: spec.files.min(FILES),
        detach: spec.detach,
    };
    // What the program writes to closes here, when `prepared` does.
    fork_keeper(&prepared)
}

/// Asks the keeper to end the program: SIGTERM to its group, and SIGKILL to all of it 3 s later. `keeper` is not reaped yet. One
/// that somebody has stopped goes on.
pub fn stop(keeper: i32) {
    if keeper > 0 {
        // SAFETY: no memory is involved.
        unsafe {
            libc::kill(keeper, libc::SIGTERM);
            libc::kill(keeper, libc::SIGCONT);
        }
    }
}

/// Takes leave of a keeper whose life pipe has ended; true when it is gone. Never waits.
pub fn reap(keeper: i32) -> bool {
    // SAFETY: a NULL status is allowed.
    let found = unsafe { libc::waitpid(keeper, ptr::null_mut(), libc::WNOHANG) };
    found != 0
}

fn fork_keeper(prepared: &Prepared) -> io::Result<i32> {
    // Handlers of the server must not run in the children, not for an instant.
    // SAFETY: the sets are plain data that the calls fill. After the fork the child calls `keeper::run`, which never returns
    // and uses nothing but async-signal-safe functions and memory that was made before.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::fork();
        if pid == 0 {
            keeper::run(prepared);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }
}

fn pointers<'a>(texts: impl Iterator<Item = &'a CString>) -> Vec<*const libc::c_char> {
    texts.map(|text| text.as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// The same descriptor out of the way of 0, 1 and 2, which the program gets.
fn above(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: the descriptor is open; the new one is ours.
    unsafe {
        match libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(io::Error::last_os_error()),
            higher => Ok(OwnedFd::from_raw_fd(higher)),
        }
    }
}

//! The keeper: a process that does nothing but see to it that a program, and whatever came of it, ends. Async-signal-safe
//! functions only: it is the child of a process with threads, and never becomes another program.
//!
//! It is a subreaper, so that whoever loses his parent below it becomes its child, whichever session he has fled to.

use std::os::fd::AsRawFd;
use std::ptr;

use super::{Prepared, program};

/// Seconds between the wish and the force.
const GRACE_S: i64 = 3;

/// Keeps the program until nothing of it is left. All signals are blocked.
///
/// # Safety
/// In the only thread of a process that was just forked.
pub(super) unsafe fn run(prepared: &Prepared) -> ! {
    // SAFETY: system calls with plain values; `detach` is safe here by its own contract.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"dot_wrapper kpr".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong);
        // Who died before that call told nobody.
        if libc::getppid() != prepared.parent {
            libc::_exit(1);
        }
        // Ignored, children would vanish with their status.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        (prepared.detach)();
        let me = libc::getpid();
        let leader = libc::fork();
        if leader == 0 {
            program::run(prepared, me);
        }
        let life = prepared.life.as_raw_fd();
        if leader < 0 {
            program::tell(life, b'E', *libc::__errno_location());
            libc::_exit(1);
        }
        // Both halves do it, so that it is done before either goes on.
        libc::setpgid(leader, leader);
        close_all_but(life);
        watch(leader, prepared);
        end(leader, life)
    }
}

/// Returns when the leader has ended, unreaped: until then its group's number cannot be another's.
unsafe fn watch(leader: libc::pid_t, prepared: &Prepared) {
    // SAFETY: the sets and structures are plain data that the calls fill; the pids are children of ours that are not reaped.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGCHLD);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        // Whoever asks for its end in time may himself be stopped; both are over once they have been seen to.
        let (mut overdue_at, mut force_at) = (now_ms().saturating_add(prepared.most_ms), i64::MAX);
        while !has_ended(leader) {
            let now = now_ms();
            if force_at <= now {
                force_at = i64::MAX;
                force(leader);
            }
            // Also looked at without a signal: what is not told in time is found.
            let wait = (force_at.min(overdue_at) - now).clamp(0, 10_000);
            let wait = libc::timespec { tv_sec: wait / 1000, tv_nsec: (wait % 1000) * 1_000_000 };
            let told = libc::sigtimedwait(&raw const signals, ptr::null_mut(), &raw const wait);
            if libc::getppid() != prepared.parent {
                // The worker is dead, and with it whoever could have recorded what is still done.
                force(leader);
            } else if force_at == i64::MAX && (told == libc::SIGTERM || overdue_at <= now_ms()) {
                overdue_at = i64::MAX;
                wish(leader);
                force_at = now_ms() + GRACE_S * 1000;
            }
        }
    }
}

/// Asks the group to end, and the leader wherever he is.
unsafe fn wish(leader: libc::pid_t) {
    // SAFETY: no memory is involved; the leader is a child of ours that is not reaped.
    unsafe {
        libc::kill(-leader, libc::SIGTERM);
        if libc::getpgid(leader) != leader {
            // It has joined another group of its session.
            libc::kill(leader, libc::SIGTERM);
        }
        // Who is stopped hears nothing.
        libc::kill(-leader, libc::SIGCONT);
    }
}

/// Kills the group, and the leader wherever he is. Who is elsewhere is killed when the leader has ended.
unsafe fn force(leader: libc::pid_t) {
    // SAFETY: no memory is involved; the leader is a child of ours that is not reaped.
    unsafe {
        libc::kill(-leader, libc::SIGKILL);
        libc::kill(leader, libc::SIGKILL);
    }
}

/// True when the leader has; takes leave of others that came to be our children and ended.
unsafe fn has_ended(leader: libc::pid_t) -> bool {
    // SAFETY: as in `watch`.
    unsafe {
        loop {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_ALL, 0, &raw mut info, peek) != 0 {
                return true;
            }
            match info.si_pid() {
                0 => return false,
                pid if pid == leader => return true,
                pid => libc::waitpid(pid, ptr::null_mut(), 0),
            };
        }
    }
}

/// Kills what is left, tells how the leader ended, and ends.
unsafe fn end(leader: libc::pid_t, life: i32) -> ! {
    // SAFETY: as in `watch`.
    unsafe {
        libc::kill(-leader, libc::SIGKILL);
        let mut status = 0;
        if libc::waitpid(leader, &raw mut status, 0) == leader {
            program::tell(life, b'S', status);
        }
        // Each round kills all children there are. Others can only become ours by the death of one that was below a child.
        loop {
            let flags = if kill_children() { 0 } else { libc::WNOHANG };
            if libc::waitpid(-1, ptr::null_mut(), flags) <= 0 {
                libc::_exit(0);
            }
        }
    }
}

/// False when the kernel does not say who they are.
unsafe fn kill_children() -> bool {
    // SAFETY: the buffer is as long as it says; whom the kernel lists are children of ours that are not reaped.
    unsafe {
        let list = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if list < 0 {
            return false;
        }
        let (mut buffer, mut pid) = ([0_u8; 512], 0_i32);
        loop {
            let length = libc::read(list, buffer.as_mut_ptr().cast(), buffer.len());
            let Ok(length @ 1..) = usize::try_from(length) else { break };
            for byte in buffer.iter().take(length) {
                if byte.is_ascii_digit() {
                    pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
                } else {
                    kill_one(pid);
                    pid = 0;
                }
            }
        }
        kill_one(pid);
        libc::close(list);
        true
    }
}

unsafe fn kill_one(pid: libc::pid_t) {
    if pid > 1 {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

unsafe fn close_all_but(kept: i32) {
    // SAFETY: no memory is involved; nothing of what is closed is used in this process.
    unsafe {
        let Ok(number) = libc::c_uint::try_from(kept) else { return };
        let below = libc::syscall(libc::SYS_close_range, 0 as libc::c_uint, number - 1, 0 as libc::c_uint);
        let beyond = libc::syscall(libc::SYS_close_range, number + 1, libc::c_uint::MAX, 0 as libc::c_uint);
        if below != 0 || beyond != 0 {
            // Before Linux 5.9.
            for fd in (0..program::open_max()).filter(|fd| *fd != kept) {
                libc::close(fd);
            }
        }
    }
}

/// Milliseconds of the monotonic clock.
unsafe fn now_ms() -> i64 {
    // SAFETY: the structure is plain data that the call fills.
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    }
}

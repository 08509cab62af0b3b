//! The program's half between fork and exec: what it may inherit, and what it may use. Async-signal-safe functions only.

use std::os::fd::AsRawFd;

use super::{FILES, Prepared};

/// Becomes the program, or says why not and ends. `keeper` is its parent.
///
/// # Safety
/// In the only thread of a process that was just forked.
pub(super) unsafe fn run(prepared: &Prepared, keeper: libc::pid_t) -> ! {
    // SAFETY: system calls with plain values, and with memory that `start` made; errors are looked at where they matter.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        if libc::getppid() != keeper {
            // Where the postmaster is process 1, it may be our parent by now, and take any other number for a crash of its own.
            libc::_exit(1);
        }
        // Nothing that is started may become somebody whom the keeper cannot kill.
        let (yes, no): (libc::c_ulong, libc::c_ulong) = (1, 0);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no);
        // By the kernel's own call: libc keeps two signals for itself, and leaves them as somebody once set them. All zeros is
        // the default action.
        let default = [0_u64; 4];
        for signal in 1..=64_i32 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8_usize);
        }
        write_file(c"/proc/self/oom_score_adj", b"0");
        libc::umask(0o022);
        let all_in_place = libc::chdir(c"/".as_ptr()) == 0
            && libc::dup2(prepared.null.as_raw_fd(), 0) == 0
            && libc::dup2(prepared.stdout.as_raw_fd(), 1) == 1
            && libc::dup2(prepared.stderr.as_raw_fd(), 2) == 2
            && close_on_exec()
            && limit(libc::RLIMIT_CORE, 0, 0)
            && limit(libc::RLIMIT_NOFILE, prepared.files, FILES)
            && limit(libc::RLIMIT_DATA, prepared.memory, prepared.memory)
            && limit(libc::RLIMIT_FSIZE, prepared.file, prepared.file)
            // SIGXCPU can be caught, the end five seconds later cannot.
            && limit(libc::RLIMIT_CPU, prepared.cpu_s, prepared.cpu_s.saturating_add(5));
        if all_in_place {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::execve(prepared.program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
        }
        tell(prepared.life.as_raw_fd(), b'E', *libc::__errno_location());
        libc::_exit(127)
    }
}

/// A word and a number for whoever reads the life pipe; short enough to be written in one piece.
///
/// # Safety
/// `life` is an open descriptor of this process.
pub(super) unsafe fn tell(life: i32, word: u8, number: i32) {
    let [a, b, c, d] = number.to_le_bytes();
    let told = [word, a, b, c, d];
    // SAFETY: the array is as long as it says. Where nobody listens any more, SIGPIPE is blocked or ends what has ended.
    unsafe { libc::write(life, told.as_ptr().cast(), told.len()) };
}

unsafe fn write_file(path: &std::ffi::CStr, bytes: &[u8]) {
    // SAFETY: path and bytes are what they say; a file that cannot be written stays as it is.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            libc::close(fd);
        }
    }
}

/// Never raises a limit that somebody has set lower.
unsafe fn limit(what: libc::__rlimit_resource_t, soft: u64, hard: u64) -> bool {
    // SAFETY: the structure is plain data that the first call fills.
    unsafe {
        let mut now: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(what, &raw mut now) != 0 {
            return false;
        }
        now.rlim_max = now.rlim_max.min(hard);
        now.rlim_cur = soft.min(now.rlim_max);
        libc::setrlimit(what, &raw const now) == 0
    }
}

/// Every descriptor but 0, 1 and 2 closes when the program begins; the life pipe stays until then.
unsafe fn close_on_exec() -> bool {
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: no memory is involved; the limit is plain data.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOEXEC) == 0 {
            return true;
        }
        // Before Linux 5.11.
        for fd in 3..open_max() {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        true
    }
}

/// No descriptor of this process is as high.
///
/// # Safety
/// None; it is a system call.
pub(super) unsafe fn open_max() -> i32 {
    // SAFETY: the structure is plain data that the call fills.
    unsafe {
        let mut now: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now);
        i32::try_from(now.rlim_cur).unwrap_or(i32::MAX).clamp(1024, 1 << 20)
    }
}

//! How the engine's thread wakes its owner: one byte in a socket pair, whose read end the owner waits on beside its
//! latch. What was reported is in the channel, not here.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The write end; cheap to clone, usable from any thread, never blocks.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    write: UnixStream,
    /// A byte is on its way that the owner has not taken: another one would say nothing new, and cost a system call.
    rung: AtomicBool,
}

/// The read end, for the single-threaded owner.
#[derive(Debug)]
pub struct Wakeup {
    read: UnixStream,
    bell: Arc<Bell>,
}

impl Waker {
    /// A connected pair. Both ends are nonblocking and close on exec.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Waker, Wakeup)> {
        let (write, read) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        let bell = Arc::new(Bell { write, rung: AtomicBool::new(false) });
        Ok((Waker(Arc::clone(&bell)), Wakeup { read, bell }))
    }

    /// Makes the read end readable. A full buffer means that it already is, a closed one that nobody listens.
    pub fn wake(&self) {
        if !self.0.rung.swap(true, Ordering::SeqCst) {
            let _ = (&self.0.write).write(&[1]);
        }
    }
}

impl Wakeup {
    /// Takes all bytes out, so that the descriptor is quiet until the next wake. Call it before reading reports.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 16];
        loop {
            match (&self.read).read(&mut buffer) {
                Ok(n) if n == buffer.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        // In this order. A wake before this line writes nothing, but what it announces is there by now and is found among
        // the reports; the other way round its byte could be taken out above, and no later wake would write one.
        self.bell.rung.store(false, Ordering::SeqCst);
    }
}

impl AsRawFd for Wakeup {
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn bytes(wakeup: &Wakeup) -> usize {
        let mut buffer = [0; 64];
        (&wakeup.read).read(&mut buffer).unwrap_or(0)
    }

    #[test]
    fn many_wakes_are_one_byte_until_it_is_taken() {
        let (waker, wakeup) = Waker::pair().unwrap();
        for _ in 0..3 {
            waker.wake();
            waker.clone().wake();
            assert_eq!(bytes(&wakeup), 1);
            wakeup.drain();
        }
        wakeup.drain();
        waker.wake();
        assert_eq!(bytes(&wakeup), 1);
    }

    #[test]
    fn no_report_is_missed_by_an_owner_that_sleeps_between_two_looks() {
        const REPORTS: usize = 100_000;
        let (waker, wakeup) = Waker::pair().unwrap();
        // Blocks in place of a poll: without a byte the owner would hang here, and the test with it.
        wakeup.read.set_nonblocking(false).unwrap();
        wakeup.read.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let (reports, incoming) = mpsc::channel();
        let engine = std::thread::spawn(move || {
            for n in 0..REPORTS {
                reports.send(n).unwrap();
                waker.wake();
            }
        });
        let mut seen = 0;
        while seen < REPORTS {
            let mut byte = [0];
            (&wakeup.read).read_exact(&mut byte).unwrap();
            wakeup.bell.rung.store(false, Ordering::SeqCst);
            seen += incoming.try_iter().count();
        }
        engine.join().unwrap();
    }
}

//! How the engine's thread wakes its owner: one byte in a socket pair, whose read end the owner waits on beside its
//! latch. What was reported is in the channel, not here.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The write end; cheap to clone, usable from any thread, never blocks.
#[derive(Clone, Debug)]
pub struct Waker(Arc<UnixStream>);

/// The read end, for the single-threaded owner.
#[derive(Debug)]
pub struct Wakeup(UnixStream);

impl Waker {
    /// A connected pair. Both ends are nonblocking and close on exec.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Waker, Wakeup)> {
        let (write, read) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        Ok((Waker(Arc::new(write)), Wakeup(read)))
    }

    /// Makes the read end readable. A full buffer means that it already is, a closed one that nobody listens.
    pub fn wake(&self) {
        let _ = (&*self.0).write(&[1]);
    }
}

impl Wakeup {
    /// Takes all bytes out, so that the descriptor is quiet until the next wake. Call it before reading reports.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 256];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl AsRawFd for Wakeup {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

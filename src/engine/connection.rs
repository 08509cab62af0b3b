//! One connection to an agent, over TCP or TLS, and one exchange on it. HTTP/1 itself is hyper's. There is no task behind a
//! connection: whoever waits for its answer drives it, and nobody drives one that rests.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::departure::Load;
use super::pool::Pool;

/// Bytes that may come before an answer's head is complete, with all 1xx answers before it: an endless stream of those is
/// parsed as fast as it comes, which would hold the engine's thread. hyper alone bounds the head itself.
const MAX_BEFORE: usize = 1024 * 1024;

/// What is looked at when bytes move.
#[derive(Debug)]
pub(super) struct Watch {
    /// The connection has rested: before anything else, see whether it did so in peace.
    rested: AtomicBool,
    /// Bytes that may still come.
    left: AtomicUsize,
}

/// A TCP connection under watch.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    watch: Arc<Watch>,
}

impl Wire {
    /// Nothing is suspected, and any number of bytes may come.
    pub(super) fn new(tcp: TcpStream) -> Self {
        let watch = Watch { rested: AtomicBool::new(false), left: AtomicUsize::new(usize::MAX) };
        Wire { tcp, watch: Arc::new(watch) }
    }

    /// Its watch.
    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Asks the kernel itself, not what the runtime was last told: a byte or an end that came unasked belongs to no
    /// request, and none may be sent after it.
    fn at_rest(&self) -> io::Result<()> {
        if !self.watch.rested.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        match SockRef::from(&self.tcp).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) => Err(io::Error::other("the agent sent more than its answer")),
        }
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let left = self.watch.left.load(Ordering::Relaxed);
        if left == usize::MAX {
            return Ok(());
        }
        let left = left.checked_sub(bytes).ok_or_else(|| io::Error::other("too much came before an answer"))?;
        self.watch.left.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.at_rest()?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        Poll::Ready(self.count(buf.filled().len() - before))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.at_rest()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.at_rest()?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// What HTTP is spoken over.
#[derive(Debug)]
pub(super) enum Stream {
    /// http.
    Plain(Wire),
    /// https, after the handshake.
    Tls(Box<TlsStream<Wire>>),
}

/// Does the same with either.
macro_rules! either {
    ($self:ident, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => $do,
            Stream::Tls($stream) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Where a connection rests after an answer.
pub(super) type Home = Arc<Pool<Box<Connection>>>;

/// Why a connection gave no answer's head.
#[derive(Debug)]
pub(super) enum Lost {
    /// It ended before hyper took the request up, which may go elsewhere.
    Before(Box<Request<Load>>),
    /// It ended with the request on it.
    Under(hyper::Error),
}

/// A connection that is made, with no request on it. Large, and handed around: it lives in a box.
pub(super) struct Connection {
    sender: http1::SendRequest<Load>,
    driver: http1::Connection<TokioIo<Stream>, Load>,
    watch: Arc<Watch>,
    remote: Option<SocketAddr>,
    made: Instant,
    end: End,
}

/// From then on a connection is not used again, so that names are looked up and certificates are seen anew, however busy an
/// agent is.
const OLDEST: Duration = Duration::from_secs(60);

/// How the driver stands; one that is through may not be driven again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// As either side had announced it.
    Closed,
    /// Something was wrong, perhaps that more came than an answer.
    Broken,
}

impl Connection {
    /// Begins to speak HTTP. Nothing is written.
    ///
    /// # Errors
    /// When hyper does not.
    pub(super) async fn over(
        stream: Stream,
        watch: Arc<Watch>,
        remote: Option<SocketAddr>,
    ) -> Result<Box<Connection>, hyper::Error> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Connection { sender, driver, watch, remote, made: Instant::now(), end: End::NotYet }))
    }

    /// Sends a request and waits for the answer's head. Dropped, it closes the connection. `home` is where the connection
    /// rests after the answer.
    ///
    /// # Errors
    /// Whether the request was begun.
    pub(super) async fn send(mut self: Box<Self>, request: Request<Load>, home: &Home) -> Result<Response, Lost> {
        let this = &mut *self;
        this.watch.left.store(MAX_BEFORE, Ordering::Relaxed);
        let mut answer = pin!(this.sender.try_send_request(request));
        let (driver, end) = (&mut this.driver, &mut this.end);
        let answer = poll_fn(|cx| {
            drive(driver, end, cx);
            answer.as_mut().poll(cx)
        });
        match answer.await {
            Ok(response) => {
                self.watch.left.store(usize::MAX, Ordering::Relaxed);
                let (head, body) = response.into_parts();
                let (status, remote) = (head.status.as_u16(), self.remote);
                let home = Arc::clone(home);
                Ok(Response { status, headers: head.headers, remote, body, connection: self, home })
            }
            Err(mut error) => Err(match error.take_message() {
                Some(untouched) => Lost::Before(Box::new(untouched)),
                None => Lost::Under(error.into_error()),
            }),
        }
    }

    /// True when the exchange is over and the next request may go this way: the answer was framed and read to its end,
    /// neither side has announced the end of the connection, nothing came behind the answer, and it is not too old.
    fn rests(&mut self) -> bool {
        drive(&mut self.driver, &mut self.end, &mut Context::from_waker(Waker::noop()));
        let rests = self.end == End::NotYet && self.sender.is_ready() && self.made.elapsed() < OLDEST;
        self.watch.rested.store(rests, Ordering::Relaxed);
        rests
    }
}

fn drive(driver: &mut http1::Connection<TokioIo<Stream>, Load>, end: &mut End, cx: &mut Context<'_>) {
    if *end == End::NotYet
        && let Poll::Ready(result) = Pin::new(driver).poll(cx)
    {
        *end = if result.is_ok() { End::Closed } else { End::Broken };
    }
}

/// An answer whose head came.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) remote: Option<SocketAddr>,
    body: Incoming,
    connection: Box<Connection>,
    home: Home,
}

impl Response {
    /// The length of the body, where the head tells it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        let (body, connection) = (&mut self.body, &mut self.connection);
        loop {
            let frame = poll_fn(|cx| {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                    return Poll::Ready(frame);
                }
                drive(&mut connection.driver, &mut connection.end, cx);
                Pin::new(&mut *body).poll_frame(cx)
            });
            match frame.await.transpose()?.map(http_body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                // Trailers say nothing.
                Some(Err(_)) => {}
            }
        }
    }

    /// Is done with the answer: puts the connection to rest, if it is fit for that, or closes it.
    pub(super) fn finish(self) {
        let Response { body, mut connection, home, .. } = self;
        drop(body);
        if connection.rests() {
            home.keep(connection, Instant::now());
        } else if connection.end == End::Broken {
            let now = Instant::now();
            home.doubt(now, now);
        }
    }
}

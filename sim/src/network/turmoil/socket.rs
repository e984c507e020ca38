//! Implements the runtime's network traits on the sockets of `turmoil`.

use super::TurmoilHost;
use crate::{network::Lease, trace::TracedIo};
use lameduck::runtime::{Address, Listener, NoIdlePoller, QuiesceOutcome, Reservation, Transport};
use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// A TCP connection of a [`TurmoilWorld`](super::TurmoilWorld).
///
/// A peek returns [`Unknown`](lameduck::runtime::Peek::Unknown). Reads have no readiness cache
/// here, so a peek could add nothing. A reset on drop happens only if bytes are unread.
#[derive(Debug)]
pub struct TurmoilStream {
    inner: TracedIo<TcpStream>,
    shutdown: Shutdown,
    /// The waker of the last read that was pending.
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    Open,
    Done,
}

impl TurmoilStream {
    pub(super) const fn new(inner: TracedIo<TcpStream>) -> Self {
        Self { inner, shutdown: Shutdown::Open, reader: None }
    }
}

impl Transport for TurmoilStream {
    /// The socket has one waker, which a read replaces. So the task that waits stays the one to be
    /// woken.
    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waker = self.reader.clone();
        let waker = waker.as_ref().unwrap_or(Waker::noop());
        Pin::new(&mut self.inner).poll_read(&mut Context::from_waker(waker), buf)
    }
}

impl AsyncRead for TurmoilStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.reader = polled.is_pending().then(|| cx.waker().clone());
        polled
    }
}

impl AsyncWrite for TurmoilStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// A second shutdown succeeds, as on Linux. `turmoil` would return an error.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.shutdown {
            Shutdown::Done => Poll::Ready(Ok(())),
            Shutdown::Open => {
                let result = Pin::new(&mut self.inner).poll_shutdown(cx);
                if result.is_ready() {
                    self.shutdown = Shutdown::Done;
                }
                result
            }
        }
    }
}

/// A port that does not listen yet: connects are refused.
#[derive(Debug)]
pub struct TurmoilReservation {
    host: TurmoilHost,
    lease: Lease,
    listeners: usize,
}

impl TurmoilReservation {
    pub(super) const fn new(host: TurmoilHost, lease: Lease, listeners: usize) -> Self {
        Self { host, lease, listeners }
    }
}

impl Reservation for TurmoilReservation {
    type Listener = TurmoilListener;

    fn local(&self) -> Address {
        Address::Tcp(self.lease.address())
    }

    async fn listen(self) -> io::Result<Vec<Self::Listener>> {
        let socket = Arc::new(TcpListener::bind(self.lease.address()).await?);
        let lease = Arc::new(self.lease);
        let listener = |_| TurmoilListener {
            accept: None,
            socket: Arc::clone(&socket),
            lease: Arc::clone(&lease),
            host: self.host.clone(),
        };
        Ok((0..self.listeners.max(1)).map(listener).collect())
    }
}

type Accept = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>;

/// A listener of a [`TurmoilWorld`](super::TurmoilWorld). Listeners on the same address share one
/// queue.
pub struct TurmoilListener {
    /// The accept in progress, kept between polls. It waits only for a new connection, so dropping
    /// it loses none.
    accept: Option<Accept>,
    socket: Arc<TcpListener>,
    lease: Arc<Lease>,
    host: TurmoilHost,
}

impl Listener for TurmoilListener {
    type Io = TurmoilStream;
    type IdlePoller = NoIdlePoller<TurmoilStream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let socket = &self.socket;
        let accept = self.accept.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.accept().await })
        });
        let (stream, peer) = match accept.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(accepted) => {
                self.accept = None;
                accepted?
            }
        };
        Poll::Ready(Ok((self.host.traced(stream), Address::Tcp(peer))))
    }

    fn local(&self) -> Address {
        Address::Tcp(self.lease.address())
    }

    /// There is no filter: new connections are queued until the listener is dropped. The number of
    /// handshakes in progress is unknown.
    fn quiesce(&mut self) -> QuiesceOutcome {
        QuiesceOutcome::Open(None)
    }
}

impl fmt::Debug for TurmoilListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilListener").field("host", &self.host.name).finish_non_exhaustive()
    }
}

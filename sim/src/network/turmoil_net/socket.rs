//! Sockets that know their host.
//!
//! The kernel acts for the host that is current on the thread. Every operation therefore sets its
//! host first, including the close in `Drop`. After the end of the world nothing can be closed; the
//! remaining sockets are forgotten.

use super::{
    fabric::{Fabric, RECEIVE_BUFFER},
    wakeup::Wakeup,
};
use crate::network::{Lease, SynFilter};
use bytes::BytesMut;
use lameduck::runtime::{Address, Listener, NoIdlePoller, Peek, Peer, QuiesceOutcome, Transport};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::{HostId, shim::tokio::net::TcpListener, shim::tokio::net::TcpStream};

/// The host of a socket.
#[derive(Clone, Debug)]
pub(super) struct HostHandle {
    pub(super) id: HostId,
    pub(super) ip: IpAddr,
    pub(super) fabric: Arc<Fabric>,
}

impl HostHandle {
    /// Runs `inspect`, which sends nothing.
    fn inspect<R>(&self, inspect: impl FnOnce() -> R) -> io::Result<R> {
        self.fabric.inspect(self.id, inspect).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Runs an operation that sends something only if it is ready. A pending operation does not
    /// wake the pump.
    fn attempt<R>(&self, operation: impl FnOnce() -> Poll<R>) -> io::Result<Poll<R>> {
        let polled = self.inspect(operation)?;
        if polled.is_ready() {
            self.fabric.wake_pump();
        }
        Ok(polled)
    }

    /// Runs a read into `all`. Only one that frees half of the kernel's buffer sends something: the
    /// new window.
    fn read(
        &self,
        all: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let polled = self.inspect(|| read(all))?;
        if all.filled().len() >= RECEIVE_BUFFER / 2 {
            self.fabric.wake_pump();
        }
        polled
    }

    pub(super) fn act<R>(&self, operation: impl FnOnce() -> R) -> io::Result<R> {
        self.fabric.on(self.id, operation).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// How a stream is closed on drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseMode {
    /// With a FIN, or an RST if bytes are unread.
    Close,
    /// With an RST.
    Reset,
}

/// A TCP connection of a [`TurmoilNetWorld`](super::TurmoilNetWorld).
pub struct TurmoilNetStream {
    /// `None` only during `Drop`.
    inner: Option<TcpStream>,
    host: HostHandle,
    local: SocketAddr,
    peer: SocketAddr,
    close_mode: CloseMode,
    /// Bytes that were read from the kernel, but not yet by the owner.
    ///
    /// The kernel announces an opened window only after a read of half its buffer. A reader of
    /// small pieces would starve its peer for ever, so each read takes all bytes.
    ahead: BytesMut,
    wakeup: Arc<Wakeup>,
}

impl TurmoilNetStream {
    pub(super) fn new(inner: TcpStream, host: HostHandle) -> io::Result<Self> {
        let ends = host.act(|| Ok::<_, io::Error>((inner.local_addr()?, inner.peer_addr()?)));
        match ends {
            Ok(Ok((local, peer))) => {
                let wakeup = Wakeup::new(host.fabric.readiness_delay());
                Ok(Self {
                    inner: Some(inner),
                    host,
                    local,
                    peer,
                    close_mode: CloseMode::Close,
                    ahead: BytesMut::new(),
                    wakeup,
                })
            }
            Ok(Err(error)) => {
                // Closing is an operation that needs the current host, too.
                host.act(|| drop(inner))?;
                Err(error)
            }
            Err(error) => {
                std::mem::forget(inner);
                Err(error)
            }
        }
    }

    /// Returns the local address.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns the peer's address.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Looks at the simulated kernel, whatever was read ahead.
    fn peek_kernel(&self) -> Peek {
        let Some(inner) = self.inner.as_ref() else { return Peek::Broken };
        let mut byte = [0];
        let found = self.host.inspect(|| {
            let mut buffer = ReadBuf::new(&mut byte);
            inner.poll_peek(&mut Context::from_waker(Waker::noop()), &mut buffer)
        });
        match found {
            Ok(Poll::Pending) => Peek::Empty,
            Ok(Poll::Ready(Ok(0))) => Peek::Ended,
            Ok(Poll::Ready(Ok(_))) => Peek::Data,
            Ok(Poll::Ready(Err(_))) | Err(_) => Peek::Broken,
        }
    }

    fn read_all(&mut self, cx: &mut Context<'_>, all: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        self.host.read(all, |all| Pin::new(inner).poll_read(cx, all))
    }

    fn poll<R>(
        &mut self,
        operation: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match self.host.attempt(|| operation(Pin::new(inner))) {
            Ok(result) => result,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl fmt::Debug for TurmoilNetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilNetStream")
            .field("local", &self.local)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for TurmoilNetStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if !self.wakeup.is_ready(cx.waker()) {
                return Poll::Pending;
            }
            let fabric = Arc::clone(&self.host.fabric);
            let mut scratch = fabric.scratch();
            let mut all = ReadBuf::new(&mut scratch);
            let events = Waker::from(Arc::clone(&self.wakeup));
            let read = self.read_all(&mut Context::from_waker(&events), &mut all);
            if read.is_pending() {
                self.wakeup.clear_ready(cx.waker());
            }
            ready!(read)?;
            let (now, later) = all.filled().split_at(buffer.remaining().min(all.filled().len()));
            buffer.put_slice(now);
            self.ahead.extend_from_slice(later);
        } else {
            let now = buffer.remaining().min(self.ahead.len());
            buffer.put_slice(&self.ahead.split_to(now));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TurmoilNetStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|inner| inner.poll_write(cx, bytes))
    }

    /// The kernel has all bytes that were written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|inner| inner.poll_shutdown(cx))
    }
}

impl Transport for TurmoilNetStream {
    fn peek(&self) -> Peek {
        if self.inner.is_some() && !self.ahead.is_empty() { Peek::Data } else { self.peek_kernel() }
    }

    /// A reset is noticed behind bytes that the host has not read.
    fn peer(&self) -> Peer {
        self.peek_kernel().into()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(inner) = self.inner.as_ref() else { return Poll::Pending };
        if !self.ahead.is_empty() {
            return Poll::Ready(());
        }
        if !self.wakeup.is_ready(cx.waker()) {
            return Poll::Pending;
        }
        let mut byte = [0];
        let events = Waker::from(Arc::clone(&self.wakeup));
        let found = self.host.inspect(|| {
            let mut buffer = ReadBuf::new(&mut byte);
            inner.poll_peek(&mut Context::from_waker(&events), &mut buffer)
        });
        if matches!(found, Ok(Poll::Pending)) {
            self.wakeup.clear_ready(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let fabric = Arc::clone(&self.host.fabric);
            let mut scratch = fabric.scratch();
            let mut all = ReadBuf::new(&mut scratch);
            let events = Waker::from(Arc::clone(&self.wakeup));
            let read = self.read_all(&mut Context::from_waker(&events), &mut all);
            if read.is_pending() {
                self.wakeup.clear();
            }
            ready!(read)?;
            self.ahead.extend_from_slice(all.filled());
        }
        let now = buf.remaining().min(self.ahead.len());
        buf.put_slice(&self.ahead.split_to(now));
        Poll::Ready(Ok(()))
    }

    fn discard_unread(&mut self) {
        self.ahead.clear();
        let fabric = Arc::clone(&self.host.fabric);
        let mut scratch = fabric.scratch();
        loop {
            let mut all = ReadBuf::new(&mut scratch);
            let cx = &mut Context::from_waker(Waker::noop());
            let read = self.read_all(cx, &mut all);
            if !matches!(read, Poll::Ready(Ok(()))) || all.filled().is_empty() {
                return;
            }
        }
    }

    fn unacknowledged(&self) -> Option<usize> {
        let table = self.host.inspect(|| turmoil_net::netstat(self.local.ip())).ok()?;
        let ours = |entry: &&turmoil_net::NetstatEntry| {
            entry.peer == Some(self.peer) && entry.local.port() == self.local.port()
        };
        table.entries.iter().find(ours).map(|entry| entry.send_q)
    }

    fn reset_on_drop(&mut self) {
        self.close_mode = CloseMode::Reset;
    }
}

impl Drop for TurmoilNetStream {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.close_mode == CloseMode::Reset || !self.ahead.is_empty() {
            self.host.fabric.reset(self.local, self.peer);
        } else {
            self.host.fabric.close(self.local, self.peer);
        }
        close(&self.host, inner);
    }
}

/// Drops a socket with its host as the current host.
pub(super) fn close<T>(host: &HostHandle, socket: T) {
    let mut socket = Some(socket);
    if host.act(|| drop(socket.take())).is_err() {
        std::mem::forget(socket);
    }
}

/// A listener of a [`TurmoilNetWorld`](super::TurmoilNetWorld). Listeners on the same address share
/// one queue.
pub struct TurmoilNetListener {
    socket: Arc<ListeningSocket>,
    filter: SynFilter,
}

struct ListeningSocket {
    /// `None` only during `Drop`.
    inner: Mutex<Option<TcpListener>>,
    host: HostHandle,
    lease: Lease,
}

impl ListeningSocket {
    fn reachable_at(&self) -> SocketAddr {
        SocketAddr::new(self.host.ip, self.lease.address().port())
    }
}

impl TurmoilNetListener {
    pub(super) fn share(
        inner: TcpListener,
        host: HostHandle,
        lease: Lease,
        listeners: usize,
        filter: SynFilter,
    ) -> Vec<Self> {
        let socket = Arc::new(ListeningSocket { inner: Mutex::new(Some(inner)), host, lease });
        (0..listeners.max(1)).map(|_| Self { socket: Arc::clone(&socket), filter }).collect()
    }
}

impl fmt::Debug for TurmoilNetListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilNetListener")
            .field("local", &self.socket.lease.address())
            .finish_non_exhaustive()
    }
}

impl Listener for TurmoilNetListener {
    type Io = TurmoilNetStream;
    type IdlePoller = NoIdlePoller<TurmoilNetStream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let inner = self.socket.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = inner.as_ref() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match self.socket.host.inspect(|| inner.poll_accept(cx))? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok((stream, peer))) => {
                let stream = TurmoilNetStream::new(stream, self.socket.host.clone())?;
                Poll::Ready(Ok((stream, Address::Tcp(peer))))
            }
        }
    }

    fn local(&self) -> Address {
        Address::Tcp(self.socket.lease.address())
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        match self.filter {
            SynFilter::Available => {
                self.socket.host.fabric.seal(self.socket.reachable_at());
                QuiesceOutcome::Sealed
            }
            SynFilter::Missing => QuiesceOutcome::Open(None),
        }
    }

    /// Counts the connections whose SYN arrived and whose ACK has not. This kernel knows them, as
    /// Linux does.
    fn handshakes(&self) -> Option<usize> {
        let local = self.socket.reachable_at();
        let table = self.socket.host.inspect(|| turmoil_net::netstat(local.ip())).ok()?;
        let under_way = |entry: &&turmoil_net::NetstatEntry| {
            entry.state == Some(turmoil_net::NetstatState::SynReceived)
                && entry.local.port() == local.port()
        };
        Some(table.entries.iter().filter(under_way).count())
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inner) = inner {
            self.host.fabric.retire(self.reachable_at(), self.host.id, inner);
        }
        self.host.fabric.unseal(self.reachable_at());
    }
}

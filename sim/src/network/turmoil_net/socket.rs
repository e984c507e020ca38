//! Sockets that know whose they are.
//!
//! The kernel serves whichever host is current on the thread, so every operation names its host first, the closing in `Drop`
//! included. Once the world is over nothing can be closed any more, and what is left is forgotten.

use super::{bell::Bell, fabric::Fabric};
use crate::network::{Lease, SynFilter};
use bytes::BytesMut;
use lameduck::env::{Address, Backlog, Listener, Look, NoLot, Transport};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::{HostId, shim::tokio::net::TcpListener, shim::tokio::net::TcpStream};

/// A host, for a socket's purposes.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    pub(super) fabric: Arc<Fabric>,
}

impl Seat {
    /// A look that sends nothing.
    fn look<R>(&self, look: impl FnOnce() -> R) -> io::Result<R> {
        self.fabric.look(self.host, look).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What sends something only if it does not have to wait: who waits costs the pump no turn.
    fn attempt<R>(&self, operation: impl FnOnce() -> Poll<R>) -> io::Result<Poll<R>> {
        let polled = self.look(operation)?;
        if polled.is_ready() {
            self.fabric.stir();
        }
        Ok(polled)
    }

    pub(super) fn act<R>(&self, operation: impl FnOnce() -> R) -> io::Result<R> {
        self.fabric.on(self.host, operation).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// What happens when a stream is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// FIN; RST, if bytes were left unread.
    Close,
    /// RST.
    Reset,
}

/// A TCP connection of a [`TurmoilNetWorld`](super::TurmoilNetWorld).
pub struct TurmoilNetStream {
    /// Taken in `Drop` only.
    inner: Option<TcpStream>,
    seat: Seat,
    local: SocketAddr,
    peer: SocketAddr,
    farewell: Farewell,
    /// Read from the kernel, not yet by the owner.
    ///
    /// The kernel announces a window that opened only after a read of half its buffer. Readers of small pieces would starve
    /// their peer for ever, so each read takes all there is.
    ahead: BytesMut,
    bell: Arc<Bell>,
}

impl TurmoilNetStream {
    pub(super) fn new(inner: TcpStream, seat: Seat) -> io::Result<Self> {
        let ends = seat.act(|| Ok::<_, io::Error>((inner.local_addr()?, inner.peer_addr()?)));
        match ends {
            Ok(Ok((local, peer))) => {
                let bell = Bell::new(seat.fabric.tower());
                Ok(Self { inner: Some(inner), seat, local, peer, farewell: Farewell::Close, ahead: BytesMut::new(), bell })
            }
            Ok(Err(error)) => {
                // Closing is an operation, too.
                seat.act(|| drop(inner))?;
                Err(error)
            }
            Err(error) => {
                std::mem::forget(inner);
                Err(error)
            }
        }
    }

    /// This end's address.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other end's address.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn poll<R>(&mut self, operation: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match self.seat.attempt(|| operation(Pin::new(inner))) {
            Ok(result) => result,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl fmt::Debug for TurmoilNetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilNetStream").field("local", &self.local).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for TurmoilNetStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if !self.bell.is_rung(cx.waker()) {
                return Poll::Pending;
            }
            let fabric = Arc::clone(&self.seat.fabric);
            let mut scratch = fabric.scratch();
            let mut all = ReadBuf::new(&mut scratch);
            let events = Waker::from(Arc::clone(&self.bell));
            let read = self.poll(|inner| inner.poll_read(&mut Context::from_waker(&events), &mut all));
            if read.is_pending() {
                self.bell.muffle(cx.waker());
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
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|inner| inner.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|inner| inner.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|inner| inner.poll_shutdown(cx))
    }
}

impl Transport for TurmoilNetStream {
    fn look(&self) -> Look {
        let Some(inner) = self.inner.as_ref() else { return Look::Broken };
        if !self.ahead.is_empty() {
            return Look::Data;
        }
        let mut byte = [0];
        let found = self.seat.look(|| {
            let mut buffer = ReadBuf::new(&mut byte);
            inner.poll_peek(&mut Context::from_waker(Waker::noop()), &mut buffer)
        });
        match found {
            Ok(Poll::Pending) => Look::Empty,
            Ok(Poll::Ready(Ok(0))) => Look::Ended,
            Ok(Poll::Ready(Ok(_))) => Look::Data,
            Ok(Poll::Ready(Err(_))) | Err(_) => Look::Broken,
        }
    }

    fn unacknowledged(&self) -> Option<usize> {
        let table = self.seat.look(|| turmoil_net::netstat(self.local.ip())).ok()?;
        let ours =
            |entry: &&turmoil_net::NetstatEntry| entry.peer == Some(self.peer) && entry.local.port() == self.local.port();
        table.entries.iter().find(ours).map(|entry| entry.send_q)
    }

    fn reset_on_drop(&mut self) {
        self.farewell = Farewell::Reset;
    }
}

impl Drop for TurmoilNetStream {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.farewell == Farewell::Reset || !self.ahead.is_empty() {
            self.seat.fabric.reset(self.local, self.peer);
        }
        close(&self.seat, inner);
    }
}

/// Drops a socket in its host's name.
pub(super) fn close<T>(seat: &Seat, socket: T) {
    let mut socket = Some(socket);
    if seat.act(|| drop(socket.take())).is_err() {
        std::mem::forget(socket);
    }
}

/// A listener of a [`TurmoilNetWorld`](super::TurmoilNetWorld). Those that share an address share one queue.
pub struct TurmoilNetListener {
    socket: Arc<ListeningSocket>,
    filter: SynFilter,
}

struct ListeningSocket {
    /// Taken in `Drop` only.
    inner: Mutex<Option<TcpListener>>,
    seat: Seat,
    lease: Lease,
}

impl ListeningSocket {
    fn reachable_at(&self) -> SocketAddr {
        SocketAddr::new(self.seat.ip, self.lease.address().port())
    }
}

impl TurmoilNetListener {
    pub(super) fn share(inner: TcpListener, seat: Seat, lease: Lease, listeners: usize, filter: SynFilter) -> Vec<Self> {
        let socket = Arc::new(ListeningSocket { inner: Mutex::new(Some(inner)), seat, lease });
        (0..listeners.max(1)).map(|_| Self { socket: Arc::clone(&socket), filter }).collect()
    }
}

impl fmt::Debug for TurmoilNetListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilNetListener").field("local", &self.socket.lease.address()).finish_non_exhaustive()
    }
}

impl Listener for TurmoilNetListener {
    type Io = TurmoilNetStream;
    type Lot = NoLot<TurmoilNetStream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let inner = self.socket.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = inner.as_ref() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match self.socket.seat.attempt(|| inner.poll_accept(cx))? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok((stream, peer))) => {
                let stream = TurmoilNetStream::new(stream, self.socket.seat.clone())?;
                Poll::Ready(Ok((stream, Address::Tcp(peer))))
            }
        }
    }

    fn local(&self) -> Address {
        Address::Tcp(self.socket.lease.address())
    }

    fn quiesce(&mut self) -> Backlog {
        match self.filter {
            SynFilter::Available => {
                self.socket.seat.fabric.seal(self.socket.reachable_at());
                Backlog::Sealed
            }
            SynFilter::Missing => Backlog::Open(None),
        }
    }

    /// Whose SYN arrived, and whose ACK did not yet. The kernel here knows as well as the one of Linux.
    fn handshakes(&self) -> Option<usize> {
        let local = self.socket.reachable_at();
        let table = self.socket.seat.look(|| turmoil_net::netstat(local.ip())).ok()?;
        let under_way = |entry: &&turmoil_net::NetstatEntry| {
            entry.state == Some(turmoil_net::NetstatState::SynReceived) && entry.local.port() == local.port()
        };
        Some(table.entries.iter().filter(under_way).count())
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inner) = inner {
            self.seat.fabric.retire(self.reachable_at(), self.seat.host, inner);
        }
        self.seat.fabric.unseal(self.reachable_at());
    }
}

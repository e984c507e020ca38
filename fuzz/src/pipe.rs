//! A network of in-memory pipes: the host's listener receives one end of each pipe from a channel.

use bytes::Bytes;
use lameduck::runtime::{
    Address, IdlePoller, ListenAddress, Listener, Network, QuiesceOutcome, Reservation, ServerRole,
    Transport,
};
use lameduck_sim::network::{PolledIdlePoller, PolledStream};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Opens pipes to the main server. The internal server gets no connections.
#[derive(Clone, Debug)]
pub(crate) struct Pipes {
    connect: UnboundedSender<DuplexStream>,
    accept: Arc<Mutex<Option<UnboundedReceiver<DuplexStream>>>>,
}

impl Pipes {
    pub(crate) fn new() -> Self {
        let (connect, accept) = unbounded_channel();
        Self { connect, accept: Arc::new(Mutex::new(Some(accept))) }
    }

    /// Opens a new connection; returns `None` once the listener is closed.
    pub(crate) fn connect(&self, capacity: usize) -> Option<DuplexStream> {
        let (near, far) = tokio::io::duplex(capacity);
        self.connect.send(far).ok().map(|()| near)
    }
}

impl Network for Pipes {
    type Listener = PipeListener;
    type Reservation = PipeReservation;

    fn reserve(
        &self,
        _: &ListenAddress,
        role: ServerRole,
        _: usize,
    ) -> io::Result<PipeReservation> {
        let accept = match role {
            ServerRole::Main => self.accept.lock().unwrap_or_else(PoisonError::into_inner).take(),
            ServerRole::Internal => None,
        };
        Ok(PipeReservation(accept))
    }
}

#[derive(Debug)]
pub(crate) struct PipeReservation(Option<UnboundedReceiver<DuplexStream>>);

impl Reservation for PipeReservation {
    type Listener = PipeListener;

    fn local(&self) -> Address {
        Address::Unix(None)
    }

    async fn listen(self) -> io::Result<Vec<PipeListener>> {
        Ok(vec![PipeListener(self.0)])
    }
}

#[derive(Debug)]
pub(crate) struct PipeListener(Option<UnboundedReceiver<DuplexStream>>);

impl Listener for PipeListener {
    type Io = Pipe;
    type IdlePoller = PipePoller;

    fn idle_poller(&self) -> Option<PipePoller> {
        self.0.as_ref().map(|_| PipePoller(PolledIdlePoller::new()))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Pipe, Address)>> {
        let Some(accept) = &mut self.0 else { return Poll::Pending };
        match accept.poll_recv(cx) {
            Poll::Ready(Some(io)) => {
                Poll::Ready(Ok((Pipe { io, may_write: true }, Address::Unix(None))))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local(&self) -> Address {
        Address::Unix(None)
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        if let Some(accept) = &mut self.0 {
            accept.close();
        }
        QuiesceOutcome::Sealed
    }

    fn handshakes(&self) -> Option<usize> {
        Some(0)
    }
}

/// The host's end of a pipe. As with a socket, the first write after the idle set returns
/// `Pending`.
#[derive(Debug)]
pub(crate) struct Pipe {
    io: DuplexStream,
    may_write: bool,
}

impl Transport for Pipe {}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.may_write, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The idle poller for pipes.
#[derive(Debug)]
pub(crate) struct PipePoller(PolledIdlePoller<Pipe>);

impl IdlePoller for PipePoller {
    type Io = Pipe;
    type Idle = PolledStream<Pipe>;

    fn insert(&mut self, io: Pipe, key: usize) -> Result<PolledStream<Pipe>, Pipe> {
        self.0.insert(io, key)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.0.poll_ready(cx, found)
    }

    fn remove(&mut self, idle: PolledStream<Pipe>) -> io::Result<(Pipe, Bytes)> {
        let (mut pipe, read) = self.0.remove(idle)?;
        pipe.may_write = false;
        Ok((pipe, read))
    }
}

//! A network of in-memory pipes: the host's own end is a listener that pipes are handed to.

use lameduck::env::{Address, Audience, Backlog, ListenAddress, Listener, Network, NoLot, Reservation};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::DuplexStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Pipes to the main server; nobody asks the internal one.
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

    /// A new connection; `None` once the listener is closed.
    pub(crate) fn connect(&self, capacity: usize) -> Option<DuplexStream> {
        let (near, far) = tokio::io::duplex(capacity);
        self.connect.send(far).ok().map(|()| near)
    }
}

impl Network for Pipes {
    type Listener = PipeListener;
    type Reservation = PipeReservation;

    fn reserve(&self, _: &ListenAddress, audience: Audience, _: usize) -> io::Result<PipeReservation> {
        let accept = match audience {
            Audience::World => self.accept.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Audience::Operators => None,
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
    type Io = DuplexStream;
    type Lot = NoLot<DuplexStream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, Address)>> {
        let Some(accept) = &mut self.0 else { return Poll::Pending };
        match accept.poll_recv(cx) {
            Poll::Ready(Some(pipe)) => Poll::Ready(Ok((pipe, Address::Unix(None)))),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local(&self) -> Address {
        Address::Unix(None)
    }

    fn quiesce(&mut self) -> Backlog {
        if let Some(accept) = &mut self.0 {
            accept.close();
        }
        Backlog::Sealed
    }

    fn handshakes(&self) -> Option<usize> {
        Some(0)
    }
}

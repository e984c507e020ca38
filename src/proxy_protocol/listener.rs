//! The listeners of an address whose connections may begin with a PROXY header.

use super::stream::ProxiedStream;
use crate::runtime::{Address, IdlePoller, Listener, ProxyHeader, QuiesceOutcome, Reservation};
use bytes::Bytes;
use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

/// A reserved address whose connections may begin with a PROXY header.
#[derive(Debug)]
pub(crate) struct ProxyReservation<R> {
    reservation: R,
    header: ProxyHeader,
}

impl<R> ProxyReservation<R> {
    pub(crate) const fn new(reservation: R, header: ProxyHeader) -> Self {
        Self { reservation, header }
    }
}

impl<R: Reservation> Reservation for ProxyReservation<R> {
    type Listener = ProxyListener<R::Listener>;

    fn local(&self) -> Address {
        self.reservation.local()
    }

    async fn listen(self) -> io::Result<Vec<Self::Listener>> {
        let Self { reservation, header } = self;
        let listeners = reservation.listen().await?.into_iter();
        Ok(listeners.map(|listener| ProxyListener { listener, header }).collect())
    }
}

#[derive(Debug)]
pub(crate) struct ProxyListener<L> {
    listener: L,
    header: ProxyHeader,
}

impl<L: Listener> Listener for ProxyListener<L> {
    type Io = ProxiedStream<L::Io>;
    type IdlePoller = ProxyIdlePoller<L::IdlePoller>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let (io, peer) = ready!(self.listener.poll_accept(cx))?;
        let stream = match self.header {
            ProxyHeader::Required => ProxiedStream::new(io),
            ProxyHeader::Refused => ProxiedStream::without_header(io),
        };
        Poll::Ready(Ok((stream, peer)))
    }

    fn local(&self) -> Address {
        self.listener.local()
    }

    fn is_port_shared(&self) -> bool {
        self.listener.is_port_shared()
    }

    fn is_inherited(&self) -> bool {
        self.listener.is_inherited()
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        self.listener.quiesce()
    }

    fn idle_poller(&self) -> Option<Self::IdlePoller> {
        self.listener.idle_poller().map(ProxyIdlePoller)
    }

    fn handshakes(&self) -> Option<usize> {
        self.listener.handshakes()
    }
}

/// Polls the sockets of idle connections. Once its header was read, nothing distinguishes a
/// connection from another.
pub(crate) struct ProxyIdlePoller<P>(P);

impl<P: IdlePoller> IdlePoller for ProxyIdlePoller<P> {
    type Io = ProxiedStream<P::Io>;
    type Idle = P::Idle;

    fn insert(&mut self, io: Self::Io, key: usize) -> Result<Self::Idle, Self::Io> {
        self.0.insert(io.into_io(), key).map_err(ProxiedStream::without_header)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.0.poll_ready(cx, found)
    }

    fn query_shut(&mut self) -> bool {
        self.0.query_shut()
    }

    fn unacknowledged(&self, idle: &Self::Idle) -> Option<usize> {
        self.0.unacknowledged(idle)
    }

    fn remove(&mut self, idle: Self::Idle) -> io::Result<(Self::Io, Bytes)> {
        self.0.remove(idle).map(|(io, read)| (ProxiedStream::without_header(io), read))
    }
}

impl<P> fmt::Debug for ProxyIdlePoller<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyIdlePoller").finish_non_exhaustive()
    }
}

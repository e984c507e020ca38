//! A network on whose addresses a PROXY header may be required.

use super::stream::ProxiedStream;
use crate::runtime::{
    Address, IdlePoller, ListenAddress, Listener, Network, QuiesceOutcome, Reservation, ServerRole,
};
use bytes::Bytes;
use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

/// Adds PROXY headers to a network. A connection has one only where
/// [`require_proxy_header`](Reservation::require_proxy_header) was called.
#[derive(Debug)]
pub(crate) struct ProxyNetwork<N>(N);

impl<N> ProxyNetwork<N> {
    pub(crate) const fn new(network: N) -> Self {
        Self(network)
    }
}

/// Whether the connections of an address begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Required,
    /// A header is not HTTP, and gets a 400 or an alert.
    Refused,
}

impl<N: Network> Network for ProxyNetwork<N> {
    type Listener = ProxyListener<N::Listener>;
    type Reservation = ProxyReservation<N::Reservation>;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation> {
        let reservation = self.0.reserve(address, role, listeners)?;
        Ok(ProxyReservation { reservation, header: Header::Refused })
    }
}

#[derive(Debug)]
pub(crate) struct ProxyReservation<R> {
    reservation: R,
    header: Header,
}

impl<R: Reservation> Reservation for ProxyReservation<R> {
    type Listener = ProxyListener<R::Listener>;

    fn local(&self) -> Address {
        self.reservation.local()
    }

    fn require_proxy_header(&mut self) -> io::Result<()> {
        self.header = Header::Required;
        Ok(())
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
    header: Header,
}

impl<L: Listener> Listener for ProxyListener<L> {
    type Io = ProxiedStream<L::Io>;
    type IdlePoller = ProxyIdlePoller<L::IdlePoller>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let (io, peer) = ready!(self.listener.poll_accept(cx))?;
        let stream = match self.header {
            Header::Required => ProxiedStream::new(io),
            Header::Refused => ProxiedStream::without_header(io),
        };
        Poll::Ready(Ok((stream, peer)))
    }

    fn local(&self) -> Address {
        self.listener.local()
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

//! The listeners of an address whose connections may speak TLS.

use super::{plain_or_tls::Stream, stream::TlsStream};
use crate::runtime::{Address, IdlePoller, Listener, QuiesceOutcome, Reservation};
use bytes::Bytes;
use rustls::ServerConfig;
use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::Semaphore;

/// Handshake steps of one listener that run before other tasks of its worker have their turn. A
/// step is up to a millisecond of computation (RSA), so a burst of handshakes would otherwise delay
/// every request by its length.
const HANDSHAKE_STEPS: usize = 1;

/// A reserved address, with the configuration if its connections speak TLS.
#[derive(Debug)]
pub(crate) struct TlsReservation<R> {
    reservation: R,
    config: Option<Arc<ServerConfig>>,
}

impl<R: Reservation> TlsReservation<R> {
    /// Unix sockets have no TLS.
    pub(crate) fn new(reservation: R, config: Option<Arc<ServerConfig>>) -> Self {
        let has_tls = matches!(reservation.local(), Address::Tcp(_));
        Self { reservation, config: config.filter(|_| has_tls) }
    }
}

impl<R: Reservation> Reservation for TlsReservation<R> {
    type Listener = TlsListener<R::Listener>;

    fn local(&self) -> Address {
        self.reservation.local()
    }

    async fn listen(self) -> io::Result<Vec<Self::Listener>> {
        let Self { reservation, config } = self;
        let tls = || {
            let config = config.clone()?;
            Some(ListenerTls { config, turns: Arc::new(Semaphore::new(HANDSHAKE_STEPS)) })
        };
        let listeners = reservation.listen().await?;
        let listeners = listeners.into_iter();
        Ok(listeners.map(|listener| TlsListener { listener, tls: tls() }).collect())
    }
}

/// A listener whose connections speak TLS if it has the configuration.
#[derive(Debug)]
pub(crate) struct TlsListener<L> {
    listener: L,
    tls: Option<ListenerTls>,
}

#[derive(Debug)]
struct ListenerTls {
    config: Arc<ServerConfig>,
    turns: Arc<Semaphore>,
}

impl<L: Listener> Listener for TlsListener<L> {
    type Io = Stream<L::Io>;
    type IdlePoller = TlsIdlePoller<L::IdlePoller>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        let (io, peer) = ready!(self.listener.poll_accept(cx))?;
        let Some(tls) = &self.tls else { return Poll::Ready(Ok((Stream::Plain(io), peer))) };
        let stream = TlsStream::new(io, tls.config.clone(), tls.turns.clone());
        Poll::Ready(stream.map(|stream| (Stream::Tls(stream), peer)).map_err(io::Error::other))
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
        self.listener.idle_poller().map(TlsIdlePoller)
    }

    fn handshakes(&self) -> Option<usize> {
        self.listener.handshakes()
    }
}

/// Polls the sockets of idle connections. Their sessions are kept with them, without buffers.
pub(crate) struct TlsIdlePoller<P>(P);

impl<P: IdlePoller> IdlePoller for TlsIdlePoller<P> {
    type Io = Stream<P::Io>;
    type Idle = Stream<P::Idle>;

    fn insert(&mut self, io: Self::Io, key: usize) -> Result<Self::Idle, Self::Io> {
        match io {
            Stream::Plain(io) => self.0.insert(io, key).map(Stream::Plain).map_err(Stream::Plain),
            // The poller sees the socket alone: bytes that the session holds would be forgotten.
            Stream::Tls(stream) if !stream.is_quiet() => Err(Stream::Tls(stream)),
            Stream::Tls(stream) => {
                stream.swap_io(|io| self.0.insert(io, key)).map(Stream::Tls).map_err(Stream::Tls)
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.0.poll_ready(cx, found)
    }

    fn query_shut(&mut self) -> bool {
        self.0.query_shut()
    }

    fn unacknowledged(&self, idle: &Self::Idle) -> Option<usize> {
        match idle {
            Stream::Plain(io) => self.0.unacknowledged(io),
            Stream::Tls(stream) => stream.unacknowledged_by(|io| self.0.unacknowledged(io)),
        }
    }

    fn remove(&mut self, idle: Self::Idle) -> io::Result<(Self::Io, Bytes)> {
        match idle {
            Stream::Plain(io) => self.0.remove(io).map(|(io, read)| (Stream::Plain(io), read)),
            Stream::Tls(stream) => {
                let (mut stream, read) = stream.with_io(|io| self.0.remove(io))?;
                stream.receive(&read);
                Ok((Stream::Tls(stream), Bytes::new()))
            }
        }
    }
}

impl<P> fmt::Debug for TlsIdlePoller<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdlePoller").finish_non_exhaustive()
    }
}

//! Listeners: how they are created, and how they end.

use super::{Address, IdlePoller, ListenAddress, Transport};
use std::{
    fmt,
    future::Future,
    io,
    task::{Context, Poll},
};

/// Reserves addresses to listen on.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// The listeners of this network.
    type Listener: Listener;
    /// An address that is reserved but does not listen yet.
    type Reservation: Reservation<Listener = Self::Listener>;

    /// Reserves `address` for this role and for `listeners` listeners that share it, without
    /// listening yet. A connect is refused until [`Reservation::listen`].
    ///
    /// # Errors
    /// The system's error, such as `AddrInUse`.
    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation>;
}

/// The server that uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerRole {
    /// The main server, for clients.
    Main,
    /// The internal server, for probes and operators. It must be reachable when nothing else is
    /// (P16).
    Internal,
}

/// Whether the connections of an address begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    Required,
    /// A header is not HTTP, and gets a 400 or an alert.
    Refused,
}

/// An address that is reserved but does not listen yet. Dropping it releases the address.
pub trait Reservation: fmt::Debug + Send + 'static {
    /// The listeners that it turns into.
    type Listener: Listener;

    /// The address it is bound to; with port 0, the port that the system chose.
    fn local(&self) -> Address;

    /// Starts to listen. Returns the number of listeners that was given to [`Network::reserve`].
    ///
    /// # Errors
    /// The system's error.
    fn listen(self) -> impl Future<Output = io::Result<Vec<Self::Listener>>> + Send;
}

/// A listening socket.
pub trait Listener: fmt::Debug + Send + 'static {
    /// Its connections.
    type Io: Transport;
    /// The poller for its idle connections; [`NoIdlePoller`](super::NoIdlePoller) if each keeps its
    /// task.
    type IdlePoller: IdlePoller<Io = Self::Io>;

    /// Accepts the next connection. The caller handles errors: some concern one connection, some
    /// the whole process (such as no free descriptors). How long to back off is the caller's
    /// policy, too.
    ///
    /// # Errors
    /// The system's error.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>>;

    /// The address it listens on.
    fn local(&self) -> Address;

    /// Whether other processes may listen on the same port. Their new clients may be kept out while
    /// this listener is quiesced and not dropped, so that is kept short.
    fn is_port_shared(&self) -> bool {
        false
    }

    /// Whether the queue belongs to a successor process. It is left to that one: the listener is
    /// dropped, and not quiesced.
    fn is_inherited(&self) -> bool {
        false
    }

    /// Keeps new connections out without losing queued ones, if this listener can. Called once.
    /// Afterwards connections are accepted as the result demands, and the listener is dropped.
    fn quiesce(&mut self) -> QuiesceOutcome;

    /// Creates a poller for idle connections on the current runtime. `None`, the default, if each
    /// keeps its task.
    fn idle_poller(&self) -> Option<Self::IdlePoller> {
        None
    }

    /// The number of clients that are about to enter the queue: their handshake with this address
    /// has begun and is not complete. Handshakes with other listeners of the same address are
    /// included. Called after [`quiesce`](Self::quiesce), a few times at most; it must not wait.
    ///
    /// Completed handshakes must be in the queue already: after `Some(0)` from a sealed listener no
    /// connection enters it any more. `None` if the number is unknown.
    fn handshakes(&self) -> Option<usize> {
        None
    }
}

/// How to proceed with the queue of a quiesced listener.
#[derive(Debug)]
pub enum QuiesceOutcome {
    /// No new connection enters. Let the pending [handshakes](Listener::handshakes) complete, then
    /// accept until the queue is empty.
    Sealed,
    /// New connections still enter, because that could not be prevented; holds the system's error,
    /// if any. Accept until the queue is empty.
    Open(Option<io::Error>),
}

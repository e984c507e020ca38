//! Where listeners come from, and how they end.

use super::{Address, ListenAddress, Transport};
use std::{
    fmt,
    future::Future,
    io,
    task::{Context, Poll},
};

/// Hands out ports.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// What its ports turn into.
    type Listener: Listener;
    /// A port that is ours but does not listen yet.
    type Reservation: Reservation<Listener = Self::Listener>;

    /// Makes `address` ours, for `listeners` listeners that share it, without listening yet: a connect is refused until
    /// [`Reservation::listen`].
    ///
    /// # Errors
    /// The system's, such as `AddrInUse`.
    fn reserve(&self, address: &ListenAddress, listeners: usize) -> io::Result<Self::Reservation>;

    /// The same for the internal server's one listener, which must answer when the main side has used up what the process may
    /// have (P16). By default it is like any other.
    ///
    /// # Errors
    /// The system's, such as `AddrInUse`.
    fn reserve_internal(&self, address: &ListenAddress) -> io::Result<Self::Reservation> {
        self.reserve(address, 1)
    }
}

/// A port that is ours but does not listen yet. Dropping it gives it back.
pub trait Reservation: fmt::Debug + Send + 'static {
    /// What it turns into.
    type Listener: Listener;

    /// The address it is bound to; with port 0, the port that the system chose.
    fn local(&self) -> Address;

    /// Listens: as many listeners as were asked for.
    ///
    /// # Errors
    /// The system's.
    fn listen(self) -> impl Future<Output = io::Result<Vec<Self::Listener>>> + Send;
}

/// A listening socket.
pub trait Listener: fmt::Debug + Send + 'static {
    /// Its connections.
    type Io: Transport;

    /// The next connection. Errors are the caller's to judge: some concern one connection, some the whole process (out of
    /// descriptors), and how long to back off is policy.
    ///
    /// # Errors
    /// The system's.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>>;

    /// The address it listens on.
    fn local(&self) -> Address;

    /// Keeps newcomers out without losing who already came, as far as this listener can. Called once; afterwards connections
    /// are accepted as the answer says, and the listener is dropped.
    fn quiesce(&mut self) -> Backlog;
}

/// What to do with the queue of a listener that was quiesced.
#[derive(Debug)]
pub enum Backlog {
    /// No newcomer enters any more. Give handshakes under way about a round trip, then accept until it is empty.
    Sealed,
    /// Newcomers still enter, because this could not be prevented (the system's reason is inside). Accept until it is empty.
    Open(Option<io::Error>),
    /// It belongs to a successor. Leave it.
    Inherited,
}

//! Where listeners come from, and how they end.

use super::{Address, IdlePoller, ListenAddress, Transport};
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

    /// Makes `address` ours, for this audience and for `listeners` listeners that share it, without listening yet: a connect is refused until
    /// [`Reservation::listen`].
    ///
    /// # Errors
    /// The system's, such as `AddrInUse`.
    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation>;
}

/// Who a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerRole {
    /// The main server's clients.
    Main,
    /// Probes and operators: the internal server, which must be reached when nothing else can be (P16).
    Internal,
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
    /// Where they wait while they are idle; [`NoIdlePoller`](super::NoIdlePoller) if each keeps its task.
    type IdlePoller: IdlePoller<Io = Self::Io>;

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
    fn quiesce(&mut self) -> QuiesceOutcome;

    /// A place for idle connections, on the runtime that it is called on. `None` if each keeps its task. Default: `None`.
    fn idle_poller(&self) -> Option<Self::IdlePoller> {
        None
    }

    /// How many clients are about to enter the queue: their handshake with this address has begun and is not complete. Asked
    /// after [`quiesce`](Self::quiesce), a few times at most; it must not wait. Those of other listeners at the same address
    /// are counted, too.
    ///
    /// Those that are complete must be in the queue: after `Some(0)` of a sealed listener nobody enters it any more. `None`
    /// if it cannot tell.
    fn handshakes(&self) -> Option<usize> {
        None
    }
}

/// What to do with the queue of a listener that was quiesced.
#[derive(Debug)]
pub enum QuiesceOutcome {
    /// No newcomer enters any more. Let the [handshakes](Listener::handshakes) under way complete, then accept until it is empty.
    Sealed,
    /// Newcomers still enter, because this could not be prevented (the system's reason is inside). Accept until it is empty.
    Open(Option<io::Error>),
    /// It belongs to a successor. Leave it.
    Inherited,
}

//! Polls idle connections that have no task each.

use super::Transport;
use bytes::Bytes;
use std::{
    convert::Infallible,
    fmt, io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Polls the idle connections of one worker with a single wake-up. Each costs only its descriptor.
pub trait IdlePoller: Send + 'static {
    /// An active connection: its reads and writes register wakers.
    type Io: Transport;
    /// The same connection while it is idle. Its reads and writes do what is possible at once and
    /// register no waker. Dropping it closes the connection and removes it from the poller.
    type Idle: Transport;

    /// Adds a connection under its owner's `key`.
    ///
    /// # Errors
    /// Returns the connection if it cannot wait here.
    fn insert(&mut self, io: Self::Io, key: usize) -> Result<Self::Idle, Self::Io>;

    /// Adds to `found` the keys of connections with something to read, an end of stream included.
    /// Ready if there are any. They are found again until their input is read.
    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()>;

    /// Queries the kernel once about all connections whose sending sides are shut by now, so that
    /// `unacknowledged` need not query it for each of them. Returns whether the kernel reported
    /// them.
    fn query_shut(&mut self) -> bool {
        false
    }

    /// Bytes written to `idle` that its peer had not acknowledged at the last successful
    /// `query_shut`, if known. Its sending side was shut before that.
    fn unacknowledged(&self, idle: &Self::Idle) -> Option<usize> {
        idle.unacknowledged()
    }

    /// Makes a connection active again. Returns it with the bytes that the poller has read from it.
    ///
    /// # Errors
    /// The system's error; the connection is then closed.
    fn remove(&mut self, idle: Self::Idle) -> io::Result<(Self::Io, Bytes)>;
}

/// The poller of a listener that has none. It has no values.
pub struct NoIdlePoller<T>(Infallible, PhantomData<fn() -> T>);

/// The idle connection of [`NoIdlePoller`]. It has no values.
pub struct Never(Infallible);

impl<T: Transport> IdlePoller for NoIdlePoller<T> {
    type Io = T;
    type Idle = Never;

    fn insert(&mut self, _: T, _: usize) -> Result<Never, T> {
        match self.0 {}
    }

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &mut Vec<usize>) -> Poll<()> {
        match self.0 {}
    }

    fn remove(&mut self, idle: Never) -> io::Result<(T, Bytes)> {
        match idle.0 {}
    }
}

impl Transport for Never {}

impl AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for Never {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl<T> fmt::Debug for NoIdlePoller<T> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl fmt::Debug for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

//! Where idle connections wait without a task each.

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

/// A place where the idle connections of one worker wait together: one wake-up for all of them, and of each no more than its
/// descriptor.
pub trait IdlePoller: Send + 'static {
    /// A connection that is awake: its reads and writes arrange wake-ups.
    type Io: Transport;
    /// The same, parked deep: its reads and writes do what can be done at once, and arrange nothing. Dropped, it is closed, and out of
    /// the lot.
    type Idle: Transport;

    /// Takes in a connection that its owner knows by `key`.
    ///
    /// # Errors
    /// The connection, if it cannot wait here.
    fn insert(&mut self, io: Self::Io, key: usize) -> Result<Self::Idle, Self::Io>;

    /// Adds the keys of connections that have something to read, an end included. Ready if there are any; they are found again
    /// until it is read.
    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()>;

    /// Wakes a connection, with what the lot has read of it.
    ///
    /// # Errors
    /// The system's; the connection is closed then.
    fn remove(&mut self, idle: Self::Idle) -> io::Result<(Self::Io, Bytes)>;
}

/// There is no such place.
pub struct NoIdlePoller<T>(Infallible, PhantomData<fn() -> T>);

/// Nobody is there.
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

//! A byte stream that adds its traffic to the trace.

use super::{Direction, Trace};
use lameduck::runtime::{Peek, Peer, Transport};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything through, and adds each byte read or written to the trace's hash, with its
/// time.
#[derive(Debug)]
pub struct TracedIo<T> {
    inner: T,
    actor: Arc<str>,
    trace: Trace,
}

impl<T> TracedIo<T> {
    /// Wraps `inner`, the end of the connection that belongs to `actor`.
    pub fn new(inner: T, actor: impl Into<Arc<str>>, trace: Trace) -> Self {
        Self { inner, actor: actor.into(), trace }
    }

    /// Returns the wrapped stream.
    #[must_use]
    pub const fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TracedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.trace.wire(&self.actor, Direction::Received, &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TracedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.trace.wire(&self.actor, Direction::Sent, &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: Transport> Transport for TracedIo<T> {
    fn peek(&self) -> Peek {
        self.inner.peek()
    }

    fn peer(&self) -> Peer {
        self.inner.peer()
    }

    fn discard_unread(&mut self) {
        self.inner.discard_unread();
    }

    fn unacknowledged(&self) -> Option<usize> {
        self.inner.unacknowledged()
    }

    fn reset_on_drop(&mut self) {
        self.inner.reset_on_drop();
    }
}

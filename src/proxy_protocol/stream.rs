//! A connection that begins with a PROXY header.

use super::header::HeaderReader;
use crate::runtime::{Address, Negotiated, Opening, Peek, Peer, Transport};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport whose header is read before anything else. After that it adds nothing.
pub(crate) struct ProxiedStream<T> {
    io: T,
    /// `None` once it was read. Boxed, so that no idle connection takes memory for it.
    header: Option<Box<HeaderReader>>,
}

impl<T> ProxiedStream<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, header: Some(Box::default()) }
    }

    pub(super) const fn without_header(io: T) -> Self {
        Self { io, header: None }
    }

    pub(super) fn into_io(self) -> T {
        self.io
    }
}

impl<T: Transport> AsyncRead for ProxiedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: Transport> AsyncWrite for ProxiedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<T: Transport> Transport for ProxiedStream<T> {
    const BUFFERS_WRITES: bool = T::BUFFERS_WRITES;

    fn peek(&self) -> Peek {
        self.io.peek()
    }

    fn peer(&self) -> Peer {
        self.io.peer()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_readable(cx)
    }

    fn unacknowledged(&self) -> Option<usize> {
        self.io.unacknowledged()
    }

    fn discard_unread(&mut self) {
        self.io.discard_unread();
    }

    fn reset_on_drop(&mut self) {
        self.io.reset_on_drop();
    }

    fn opening(&self) -> Opening {
        self.header.as_ref().map_or_else(|| self.io.opening(), |header| header.opening())
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        let Some(header) = &mut self.header else { return self.io.poll_open(cx) };
        let announced = ready!(header.poll_read(&mut self.io, cx))?;
        self.header = None;
        Poll::Ready(Ok(announced.client()))
    }

    fn has_handshake(&self) -> bool {
        self.io.has_handshake()
    }

    fn negotiated(&self) -> Negotiated {
        self.io.negotiated()
    }

    fn has_buffered(&self) -> bool {
        self.io.has_buffered()
    }

    fn has_kept_end(&self) -> bool {
        self.io.has_kept_end()
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io.read_now(buf)
    }

    fn read_ahead(&mut self) -> bool {
        self.io.read_ahead()
    }

    fn end_cleanly(&mut self) {
        self.io.end_cleanly();
    }

    fn mark_cut(&mut self) {
        self.io.mark_cut();
    }

    fn is_spent(&self) -> bool {
        self.io.is_spent()
    }
}

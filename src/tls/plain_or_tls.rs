//! A connection of a network whose connections may speak TLS.

use super::stream::TlsStream;
use crate::runtime::{Address, Negotiated, Opening, Peek, Peer, Transport};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection. The internal server and Unix sockets have no TLS.
pub(crate) enum Stream<T> {
    Plain(T),
    Tls(TlsStream<T>),
}

/// Calls a method of either variant.
macro_rules! either {
    ($stream:expr, $io:ident => $call:expr) => {
        match $stream {
            Stream::Plain($io) => $call,
            Stream::Tls($io) => $call,
        }
    };
}

impl<T: Transport> AsyncRead for Stream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl<T: Transport> AsyncWrite for Stream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, io => io.is_write_vectored())
    }
}

impl<T: Transport> Transport for Stream<T> {
    const BUFFERS_WRITES: bool = true;

    fn peek(&self) -> Peek {
        either!(self, io => io.peek())
    }

    fn peer(&self) -> Peer {
        either!(self, io => io.peer())
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, io => io.poll_readable(cx))
    }

    fn unacknowledged(&self) -> Option<usize> {
        either!(self, io => io.unacknowledged())
    }

    fn discard_unread(&mut self) {
        either!(self, io => io.discard_unread());
    }

    fn reset_on_drop(&mut self) {
        either!(self, io => io.reset_on_drop());
    }

    fn opening(&self) -> Opening {
        either!(self, io => io.opening())
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        either!(self, io => io.poll_open(cx))
    }

    fn has_handshake(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn negotiated(&self) -> Negotiated {
        either!(self, io => io.negotiated())
    }

    fn has_buffered(&self) -> bool {
        either!(self, io => io.has_buffered())
    }

    fn has_kept_end(&self) -> bool {
        either!(self, io => io.has_kept_end())
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.read_now(buf))
    }

    fn read_ahead(&mut self) -> bool {
        either!(self, io => io.read_ahead())
    }

    fn end_cleanly(&mut self) {
        either!(self, io => io.end_cleanly());
    }

    fn mark_cut(&mut self) {
        either!(self, io => io.mark_cut());
    }

    fn is_spent(&self) -> bool {
        either!(self, io => io.is_spent())
    }
}

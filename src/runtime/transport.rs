//! A connection's bytes, and its state in the kernel.

use super::Address;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection's byte stream. Methods that a transport cannot implement have a neutral default.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Peeks into the kernel's receive buffer, past any readiness cache. `poll_read` is no
    /// substitute: it may return `Pending` without a system call.
    fn peek(&self) -> Peek {
        Peek::Unknown
    }

    /// The state of the peer, whatever bytes are unread.
    fn peer(&self) -> Peer {
        self.peek().into()
    }

    /// Ready when something can be read, an end of stream included. Reads nothing. Otherwise
    /// registers the waker, if it can.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Bytes written that the peer has not acknowledged, if known. An accepted write says nothing
    /// about the peer: the kernel buffers megabytes.
    fn unacknowledged(&self) -> Option<usize> {
        None
    }

    /// Reads and discards at most 256 KiB of what has arrived, past any readiness cache. The kernel
    /// turns a close with unread bytes into a reset.
    fn discard_unread(&mut self) {
        let mut discard = [0; 4096];
        for _ in 0..64 {
            let mut read = ReadBuf::new(&mut discard);
            let polled =
                Pin::new(&mut *self).poll_read(&mut Context::from_waker(Waker::noop()), &mut read);
            if !matches!(polled, Poll::Ready(Ok(()))) || read.filled().is_empty() {
                return;
            }
        }
    }

    /// From now on, dropping the transport resets the connection, so that a cut response cannot
    /// look complete.
    fn reset_on_drop(&mut self) {}

    // What a transport between HTTP and the socket adds: TLS.

    /// Whether a write may accept bytes that the kernel has not taken yet. A flush is then pending
    /// until the kernel has them.
    const BUFFERS_WRITES: bool = false;

    /// The state of the steps that precede the first byte of HTTP, such as a handshake.
    fn opening(&self) -> Opening {
        Opening::Done
    }

    /// Advances these steps. Ready when they are done, with the address of the client if a proxy
    /// has announced it.
    ///
    /// # Errors
    /// If they failed; the connection is to be closed.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        let _ = cx;
        Poll::Ready(Ok(None))
    }

    /// Whether a TLS handshake is among these steps.
    fn has_handshake(&self) -> bool {
        false
    }

    /// The protocol that the peers agreed on.
    fn negotiated(&self) -> Negotiated {
        Negotiated::Unknown
    }

    /// Whether bytes were read from the kernel and not returned by a read yet. After a read that
    /// was pending, they are an incomplete record, unless it was pending to give others a turn.
    fn has_buffered(&self) -> bool {
        false
    }

    /// Whether the peer's end was taken out of the kernel with bytes before it, so that only a read
    /// of the transport finds it.
    fn has_kept_end(&self) -> bool {
        false
    }

    /// Reads what has arrived, past any readiness cache, and registers no waker.
    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_read(&mut Context::from_waker(Waker::noop()), buf)
    }

    /// Takes what has arrived out of the kernel until there is something to read, up to a bound.
    /// Bytes that are only the transport's own, such as an alert of TLS, are gone then, and
    /// [`peek`] does not report them as data. Returns whether a read that was pending would now be
    /// ready. No waker is notified of that.
    ///
    /// [`peek`]: Self::peek
    fn read_ahead(&mut self) -> bool {
        false
    }

    /// Sends what marks a clean end of the connection, if that is possible at once. A shutdown of
    /// the sending side does the same and waits for it; a drop does not.
    fn end_cleanly(&mut self) {}

    /// From now on the end of the connection does not look clean, because a response was cut.
    fn mark_cut(&mut self) {}

    /// Whether the transport can send only a limited number of further bytes. The connection then
    /// announces its close, as one that has reached the age limit does.
    fn is_spent(&self) -> bool {
        false
    }
}

/// The state of the steps that precede the first byte of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The peer has sent nothing yet of the first step, or nothing since a PROXY header.
    Silent,
    /// Bytes of a PROXY header have arrived, and not all of it.
    Header,
    /// A handshake has begun.
    Begun,
    /// HTTP may be read.
    Done,
}

/// The protocol that the peers agreed on before the first byte of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Negotiated {
    /// There was no agreement. The first bytes decide.
    Unknown,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The result of a peek.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peek {
    /// Bytes are ready to be read.
    Data,
    /// Nothing is ready to be read.
    Empty,
    /// The peer has closed its sending side, and no bytes are unread before that.
    Ended,
    /// The connection is broken.
    Broken,
    /// This transport cannot peek.
    Unknown,
}

/// The known state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Both directions are open.
    Open,
    /// It has closed its sending side, or its process has closed the connection. TCP cannot
    /// distinguish the two until bytes reach a closed connection and are reset.
    HalfClosed,
    /// It has closed or reset the connection: nothing that is written reaches it.
    Gone,
    /// This transport cannot tell.
    Unknown,
}

impl From<Peek> for Peer {
    /// What a peek says of the peer. Bytes that are unread hide the end behind them.
    fn from(peek: Peek) -> Self {
        match peek {
            Peek::Data | Peek::Empty => Self::Open,
            Peek::Ended => Self::HalfClosed,
            Peek::Broken => Self::Gone,
            Peek::Unknown => Self::Unknown,
        }
    }
}

/// An in-memory pipe, for tests. Its `poll_read` has no readiness cache, so a peek would add
/// nothing.
impl Transport for tokio::io::DuplexStream {}

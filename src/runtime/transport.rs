//! A connection's bytes, and its state in the kernel.

use std::{
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
        match self.peek() {
            Peek::Data | Peek::Empty => Peer::Open,
            Peek::Ended => Peer::HalfClosed,
            Peek::Broken => Peer::Gone,
            Peek::Unknown => Peer::Unknown,
        }
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

/// An in-memory pipe, for tests. Its `poll_read` has no readiness cache, so a peek would add
/// nothing.
impl Transport for tokio::io::DuplexStream {}

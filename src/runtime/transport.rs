//! A connection's bytes, and what the kernel knows about them.

use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection's byte stream. What a transport cannot tell has a default that claims nothing.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// A look into the kernel's receive buffer, past any readiness cache. `poll_read` is no substitute: it may return
    /// `Pending` without asking the kernel.
    fn peek(&self) -> Peek {
        Peek::Unknown
    }

    /// Whether the peer is still there, whatever waits to be read.
    fn peer(&self) -> Peer {
        match self.peek() {
            Peek::Data | Peek::Empty => Peer::Open,
            Peek::Ended => Peer::HalfClosed,
            Peek::Broken => Peer::Gone,
            Peek::Unknown => Peer::Unknown,
        }
    }

    /// Ready when something can be read, an end included; reads nothing. Otherwise it arranges for a wake-up, if it can.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Bytes written that the peer has not acknowledged, if that can be known. A write that was accepted says nothing about
    /// the peer: the kernel swallows megabytes.
    fn unacknowledged(&self) -> Option<usize> {
        None
    }

    /// From now on dropping it resets the connection, so that what was cut cannot look complete.
    fn reset_on_drop(&mut self) {}
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peek {
    /// Bytes wait to be read.
    Data,
    /// Nothing waits.
    Empty,
    /// The peer has shut its side, and nothing waits before that.
    Ended,
    /// The connection is broken.
    Broken,
    /// This transport cannot tell.
    Unknown,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// It has shut nothing.
    Open,
    /// It has shut its side, or its process has closed the connection: TCP tells the two apart only once bytes reach a closed
    /// connection, by a reset.
    HalfClosed,
    /// It has closed or reset the connection: nothing that is written reaches it.
    Gone,
    /// This transport cannot tell.
    Unknown,
}

/// An in-memory pipe, for tests: its `poll_read` has no cache, so there is nothing a look could add.
impl Transport for tokio::io::DuplexStream {}

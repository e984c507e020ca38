//! A connection's bytes, and what the kernel knows about them.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection's byte stream. What a transport cannot tell has a default that claims nothing.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// A look into the kernel's receive buffer, past any readiness cache. `poll_read` is no substitute: it may return
    /// `Pending` without asking the kernel.
    fn look(&self) -> Look {
        Look::Unknown
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
pub enum Look {
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

/// An in-memory pipe, for tests: its `poll_read` has no cache, so there is nothing a look could add.
impl Transport for tokio::io::DuplexStream {}

//! A transport below TLS that can send one record in parts.

use super::super::pause;
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How the next record is sent.
#[derive(Clone, Copy, Debug)]
pub struct RecordParts {
    /// Number of parts, at least 1.
    pub count: usize,
    /// Pause before each part but the first.
    pub every: Duration,
    /// Whether the last part is sent.
    pub is_whole: bool,
}

/// A transport whose next write may be one in parts.
pub(super) struct Torn<Io> {
    pub(super) io: Io,
    tearing: Option<Tearing>,
}

struct Tearing {
    parts: RecordParts,
    sent: usize,
    /// Bytes of each part; set by the first.
    length: usize,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<Io> Torn<Io> {
    pub(super) const fn new(io: Io) -> Self {
        Self { io, tearing: None }
    }

    /// Sends the next write in parts.
    pub(super) fn tear(&mut self, parts: RecordParts) {
        self.tearing = Some(Tearing { parts, sent: 0, length: 0, pause: None });
    }
}

impl<Io: fmt::Debug> fmt::Debug for Torn<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Torn").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Torn<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Torn<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(tearing) = &mut this.tearing else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        if let Some(pause) = &mut tearing.pause {
            ready!(pause.as_mut().poll(cx));
            tearing.pause = None;
        }
        let parts = tearing.parts;
        if tearing.sent == 0 {
            tearing.length = (bytes.len() / parts.count).max(1);
        }
        let is_last = tearing.sent + 1 == parts.count;
        if is_last && !parts.is_whole {
            return Poll::Pending;
        }
        let length = if is_last { bytes.len() } else { tearing.length.min(bytes.len()) };
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, &bytes[..length]))?;
        tearing.sent += 1;
        tearing.pause = Some(Box::pin(pause(parts.every)));
        if is_last {
            this.tearing = None;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

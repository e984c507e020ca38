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
pub(super) struct InParts<Io> {
    pub(super) io: Io,
    sending: Option<Sending>,
}

struct Sending {
    parts: RecordParts,
    sent: usize,
    /// Bytes of each part; set by the first.
    length: usize,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<Io> InParts<Io> {
    pub(super) const fn new(io: Io) -> Self {
        Self { io, sending: None }
    }

    /// Sends the next write in parts.
    pub(super) fn send_in_parts(&mut self, parts: RecordParts) {
        self.sending = Some(Sending { parts, sent: 0, length: 0, pause: None });
    }
}

impl<Io: fmt::Debug> fmt::Debug for InParts<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InParts").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for InParts<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for InParts<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(sending) = &mut this.sending else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        if let Some(pause) = &mut sending.pause {
            ready!(pause.as_mut().poll(cx));
            sending.pause = None;
        }
        let parts = sending.parts;
        if sending.sent == 0 {
            sending.length = (bytes.len() / parts.count).max(1);
        }
        let is_last = sending.sent + 1 == parts.count;
        if is_last && !parts.is_whole {
            return Poll::Pending;
        }
        let length = if is_last { bytes.len() } else { sending.length.min(bytes.len()) };
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, &bytes[..length]))?;
        sending.sent += 1;
        sending.pause = Some(Box::pin(pause(parts.every)));
        if is_last {
            this.sending = None;
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

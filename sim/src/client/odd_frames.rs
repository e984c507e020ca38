//! What hyper's client of HTTP/2 does not do: header blocks in several frames (RFC 9113 §4.3),
//! which it sends only if they are longer than a frame may be, PINGs without a response or with a
//! late one (§6.7), and PINGs of its own.
#![expect(clippy::disallowed_methods, reason = "a client's pauses are in the world's time")]

use super::{exchange::NOISE_MAX, goaway::HEADER_BYTES, silent::PREFACE_BYTES};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Number of frames of a block.
const PARTS: usize = 3;

/// A PING of the client (RFC 9113 §6.7), whose content no library uses.
pub(super) const PING_FRAME: [u8; HEADER_BYTES + 8] =
    [0, 0, 8, PING, 0, 0, 0, 0, 0, b'n', b'o', b't', b'h', b'i', b'n', b'g', b'.'];

/// When a client responds to a PING.
#[derive(Debug)]
pub(super) enum Pongs {
    AtOnce,
    Never,
    /// After this time. The response to the last PING waits until then.
    After(Duration, Option<(Vec<u8>, Pin<Box<Sleep>>)>),
}

impl Pongs {
    pub(super) const fn after(span: Duration) -> Self {
        Self::After(span, None)
    }
}

/// PINGs that a client sends: the pause between them, the next one, and how many are left.
#[derive(Debug)]
struct Noise {
    every: Duration,
    next: Pin<Box<Sleep>>,
    left: u32,
}

/// Passes all bytes through, but may divide each header block that it writes into several frames,
/// delay or withhold the response to each PING, and send PINGs.
#[derive(Debug)]
pub(super) struct OddFrames<Io> {
    io: Io,
    /// Whether header blocks are divided.
    divides: bool,
    pongs: Pongs,
    noise: Option<Noise>,
    /// Bytes until the next frame begins.
    left: usize,
    /// Frames that were made here, and are not written yet.
    unwritten: Vec<u8>,
}

impl<Io> OddFrames<Io> {
    /// `divides`: whether header blocks are divided. `noise`: the pause between PINGs, if any are
    /// sent.
    pub(super) fn new(io: Io, divides: bool, pongs: Pongs, noise: Option<Duration>) -> Self {
        let noise = noise.map(|every| {
            let next = Box::pin(sleep(every));
            Noise { every, next, left: NOISE_MAX }
        });
        Self { io, divides, pongs, noise, left: PREFACE_BYTES, unwritten: Vec::new() }
    }

    const fn changes(&self) -> bool {
        self.divides || self.noise.is_some() || !matches!(self.pongs, Pongs::AtOnce)
    }

    /// Withholds a response to a PING. Returns false if it is to be written now.
    fn withholds(&mut self, pong: &[u8]) -> bool {
        match &mut self.pongs {
            Pongs::AtOnce => false,
            Pongs::Never => true,
            Pongs::After(span, kept) => {
                *kept = Some((pong.to_vec(), Box::pin(sleep(*span))));
                true
            }
        }
    }

    /// Adds the frames whose time has come, if a frame may begin now.
    fn poll_due(&mut self, cx: &mut Context<'_>) {
        if self.left > 0 {
            return;
        }
        if let Pongs::After(_, kept) = &mut self.pongs
            && kept.as_mut().is_some_and(|(_, due)| due.as_mut().poll(cx).is_ready())
            && let Some((pong, _)) = kept.take()
        {
            self.unwritten.extend(pong);
        }
        let Some(noise) = &mut self.noise else { return };
        while noise.left > 0 && noise.next.as_mut().poll(cx).is_ready() {
            self.unwritten.extend(PING_FRAME);
            noise.left -= 1;
            noise.next = Box::pin(sleep(noise.every));
        }
    }
}

impl<Io: AsyncWrite + Unpin> OddFrames<Io> {
    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for OddFrames<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_unwritten(cx))?;
        let changes = this.changes();
        if changes && this.left == 0 {
            // h2 writes whole frame headers, and whole PINGs.
            let payload = payload_bytes(bytes);
            if matches!(bytes, [_, _, _, PING, ACK, ..])
                && this.withholds(&bytes[..bytes.len().min(HEADER_BYTES + payload)])
            {
                return Poll::Ready(Ok(HEADER_BYTES + payload));
            }
            if this.divides
                && let Some(frames) = divided(bytes, payload)
            {
                this.unwritten = frames;
                let _ = this.poll_unwritten(cx)?;
                return Poll::Ready(Ok(HEADER_BYTES + payload));
            }
            this.left = HEADER_BYTES + payload;
        }
        let most = if changes { this.left.min(bytes.len()) } else { bytes.len() };
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, &bytes[..most]))?;
        this.left = this.left.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for OddFrames<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.poll_due(cx);
        if !this.unwritten.is_empty() {
            // A failed write shows in the read, too.
            if let Poll::Ready(Ok(())) = this.poll_unwritten(cx) {
                let _ = Pin::new(&mut this.io).poll_flush(cx);
            }
        }
        Pin::new(&mut this.io).poll_read(cx, buffer)
    }
}

/// Returns the length of the payload of the frame with which `bytes` begin.
fn payload_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [a, b, c, ..] => usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
        _ => 0,
    }
}

/// Returns the frames to send instead of the one with which `bytes` begin, if it is a whole header
/// block.
fn divided(bytes: &[u8], payload: usize) -> Option<Vec<u8>> {
    let [_, _, _, HEADERS, flags, stream @ ..] = bytes.get(..HEADER_BYTES)? else { return None };
    let block = bytes.get(HEADER_BYTES..HEADER_BYTES + payload)?;
    if flags & END_HEADERS == 0 || payload < PARTS {
        return None;
    }
    let mut frames = Vec::with_capacity(payload + PARTS * HEADER_BYTES);
    let parts = block.chunks(payload.div_ceil(PARTS));
    let last = parts.len() - 1;
    for (n, part) in parts.enumerate() {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        let own = if n == 0 { flags & !END_HEADERS } else { 0 };
        let end = if n == last { END_HEADERS } else { 0 };
        frames.extend_from_slice(&u32::try_from(part.len()).unwrap_or(0).to_be_bytes()[1..]);
        frames.extend_from_slice(&[kind, own | end]);
        frames.extend_from_slice(stream);
        frames.extend_from_slice(part);
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::divided;

    #[test]
    fn a_whole_block_is_divided_and_no_other_frame() {
        let headers = |flags| [&[0, 0, 5, 1, flags, 0, 0, 0, 3][..], b"block"].concat();
        let frames = [
            &[0, 0, 2, 1, 1, 0, 0, 0, 3][..],
            b"bl",
            &[0, 0, 2, 9, 0, 0, 0, 0, 3],
            b"oc",
            &[0, 0, 1, 9, 4, 0, 0, 0, 3],
            b"k",
        ];
        assert_eq!(divided(&headers(5), 5), Some(frames.concat()));
        assert_eq!(divided(&headers(1), 5), None, "another frame follows already");
        assert_eq!(divided(&[0, 0, 5, 0, 0, 0, 0, 0, 3, 1, 2, 3, 4, 5], 5), None, "DATA");
        assert_eq!(divided(&headers(5)[..12], 5), None, "a part of the frame");
    }
}

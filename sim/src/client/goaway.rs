//! Records GOAWAY frames, which hyper does not expose to its users, and cuts a frame in half.
#![expect(clippy::disallowed_methods, reason = "a client's pauses are in the world's time")]

use super::ClientId;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// Type of a GOAWAY frame (RFC 9113 §6.8).
pub(super) const GOAWAY: u8 = 7;

/// Type of a SETTINGS frame, and its flag of an acknowledgement (RFC 9113 §6.5).
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// Length of a frame header (RFC 9113 §4.1).
pub(super) const HEADER_BYTES: usize = 9;

/// Length of the fixed part of a GOAWAY: last stream and error code.
const GOAWAY_BYTES: usize = 8;

/// Passes all bytes through, and records each GOAWAY frame that it reads. Of one frame it may send
/// a part, and nothing after that.
#[derive(Debug)]
pub(super) struct GoawayRecorder<Io> {
    io: Io,
    /// Returns whether the connection was reset, without reading.
    is_broken: fn(&Io) -> bool,
    client_id: ClientId,
    connection: u64,
    frames: Frames,
    settled: Settled,
    half_frame: HalfFrame,
}

/// The part of a frame that a client sends last.
#[derive(Clone, Copy, Debug)]
pub struct FramePart {
    /// Number of bytes.
    pub bytes: usize,
    /// Pause between these bytes; zero if they are sent at once.
    pub every: Duration,
    /// Whether the client shuts down its write side after it.
    pub half_closes: bool,
}

/// How much of the last frame was sent.
#[derive(Debug)]
enum HalfFrame {
    NotYet,
    /// This many bytes, and the next one after the pause.
    Begun(usize, Pin<Box<Sleep>>),
    Sent {
        half_closes: bool,
    },
    Shut,
}

/// Whether a client reads.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    is_deaf: AtomicBool,
    /// The read that waits until the client reads again.
    waiting: Mutex<Option<Waker>>,
}

impl Hearing {
    /// From now on the client reads nothing, or everything again. The read that waits is polled
    /// again: it notices a reset.
    pub(super) fn set_deaf(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Relaxed);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_reads(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_deaf.load(Relaxed) {
            return Poll::Ready(());
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Cancelled when a client has received its server's SETTINGS, and a GOAWAY; whether it reads at
/// all, and whether its next frame is sent in part.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    pub(super) hearing: Arc<Hearing>,
    pub(super) last_part: Arc<OnceLock<FramePart>>,
    pub(super) settings: CancellationToken,
    pub(super) goaway: CancellationToken,
}

impl<Io> GoawayRecorder<Io> {
    pub(super) const fn new(
        io: Io,
        is_broken: fn(&Io) -> bool,
        client_id: ClientId,
        connection: u64,
        settled: Settled,
    ) -> Self {
        let half_frame = HalfFrame::NotYet;
        Self { io, is_broken, client_id, connection, frames: Frames::new(), settled, half_frame }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for GoawayRecorder<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.settled.hearing.poll_reads(cx).is_pending() {
            if (this.is_broken)(&this.io) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buffer));
        if matches!(this.half_frame, HalfFrame::Begun(..))
            && (read.is_err() || buffer.filled().len() == before)
        {
            // The rest of the part is not sent, and h2 notices the end only after its write.
            this.client_id.tell("end received", &[("connection", this.connection.into())]);
            this.half_frame = HalfFrame::Sent { half_closes: false };
        }
        read?;
        let mut bytes = &buffer.filled()[before..];
        while let Some(goodbye) = this.frames.next_goaway(&mut bytes) {
            let fields = [
                ("connection", this.connection.into()),
                ("last_stream", u64::from(goodbye.last_stream).into()),
                ("code", u64::from(goodbye.code).into()),
            ];
            this.client_id.tell("goaway", &fields);
            this.settled.goaway.cancel();
        }
        if this.frames.has_settings && !this.settled.settings.is_cancelled() {
            this.settled.settings.cancel();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for GoawayRecorder<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(part) = this.settled.last_part.get() else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        // h2 begins each write with a frame, since it flushes the frames before. It writes the same
        // bytes again after a pending write.
        let end = part.bytes.min(bytes.len().saturating_sub(1));
        loop {
            let begin = match &mut this.half_frame {
                HalfFrame::NotYet => 0,
                HalfFrame::Begun(sent, pause) => {
                    ready!(pause.as_mut().poll(cx));
                    *sent
                }
                // The rest of the frame, and all that follows it, is not sent.
                HalfFrame::Sent { .. } | HalfFrame::Shut => return Poll::Ready(Ok(bytes.len())),
            };
            let next = if part.every.is_zero() { end } else { end.min(begin + 1) };
            let sent = ready!(Pin::new(&mut this.io).poll_write(cx, &bytes[begin..next]))?;
            if begin == 0 {
                let fields = [("connection", this.connection.into()), ("bytes", end.into())];
                this.client_id.tell("stops in a frame", &fields);
            }
            let sent = begin + sent;
            this.half_frame = if sent < end && !part.every.is_zero() {
                let _ = Pin::new(&mut this.io).poll_flush(cx)?;
                HalfFrame::Begun(sent, Box::pin(sleep(part.every)))
            } else {
                HalfFrame::Sent { half_closes: part.half_closes }
            };
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if matches!(this.half_frame, HalfFrame::Sent { half_closes: true }) {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.half_frame = HalfFrame::Shut;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Content of a GOAWAY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CloseMode {
    last_stream: u32,
    code: u32,
}

/// Splits a byte stream into frames. Keeps only the bytes of a frame that a GOAWAY needs.
#[derive(Debug)]
struct Frames {
    kept: [u8; HEADER_BYTES + GOAWAY_BYTES],
    /// Number of bytes of the current frame read until now.
    seen: usize,
    /// Whether SETTINGS that are no acknowledgement were read.
    has_settings: bool,
}

impl Frames {
    const fn new() -> Self {
        Self { kept: [0; HEADER_BYTES + GOAWAY_BYTES], seen: 0, has_settings: false }
    }

    /// Removes from `bytes` all frames up to the next GOAWAY, and returns that. The part of a frame
    /// at the end is removed, too.
    fn next_goaway(&mut self, bytes: &mut &[u8]) -> Option<CloseMode> {
        while self.take_frame(bytes) {
            let goaway = self.end_frame();
            if goaway.is_some() {
                return goaway;
            }
        }
        None
    }

    /// Removes the rest of the current frame from `bytes`. Returns whether the frame is complete.
    fn take_frame(&mut self, bytes: &mut &[u8]) -> bool {
        self.take_up_to(HEADER_BYTES, bytes)
            && self.take_up_to(HEADER_BYTES + self.payload_bytes(), bytes)
    }

    /// Reads on until `end` bytes of the current frame are read. Returns false if some are missing.
    fn take_up_to(&mut self, end: usize, bytes: &mut &[u8]) -> bool {
        let wanted = end.saturating_sub(self.seen);
        let (now, later) = bytes.split_at(wanted.min(bytes.len()));
        if let Some(room) = self.kept.get_mut(self.seen..) {
            let kept = room.len().min(now.len());
            room[..kept].copy_from_slice(&now[..kept]);
        }
        self.seen += now.len();
        *bytes = later;
        now.len() == wanted
    }

    /// Returns the length of the current frame's payload, once its header was read.
    fn payload_bytes(&self) -> usize {
        let [a, b, c, ..] = self.kept;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    /// Ends the current frame, which is complete. Returns its content if it is a GOAWAY.
    fn end_frame(&mut self) -> Option<CloseMode> {
        let length = self.payload_bytes();
        let [_, _, _, kind, flags, ..] = self.kept;
        self.seen = 0;
        self.has_settings |= kind == SETTINGS && flags & ACK == 0;
        let number = |at: usize| {
            u32::from_be_bytes([
                self.kept[at],
                self.kept[at + 1],
                self.kept[at + 2],
                self.kept[at + 3],
            ])
        };
        (kind == GOAWAY && length >= GOAWAY_BYTES).then(|| CloseMode {
            last_stream: number(HEADER_BYTES) & 0x7fff_ffff,
            code: number(HEADER_BYTES + 4),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CloseMode, Frames};

    #[test]
    fn a_goaway_is_seen_between_other_frames() {
        let mut bytes = vec![0, 0, 0, 4, 1, 0, 0, 0, 0];
        bytes.extend([0, 0, 30, 0, 0, 0, 0, 0, 1].into_iter().chain([7; 30]));
        bytes.extend([0, 0, 10, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 2, b'h', b'i']);
        bytes.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for piece in [1, 2, 10, bytes.len()] {
            let mut frames = Frames::new();
            let mut seen = Vec::new();
            for mut piece in bytes.chunks(piece) {
                while let Some(goaway) = frames.next_goaway(&mut piece) {
                    seen.push(goaway);
                }
            }
            assert_eq!(seen, [CloseMode { last_stream: 0x7fff_ffff, code: 2 }]);
        }
    }
}

//! The frames that an HTTP/2 client sends (RFC 9113 §4.1), counted as hyper reads them.
//!
//! hyper exposes neither how much of a frame it has read nor how many requests it holds. Both are
//! limited here: the time for which a frame or a header block may stay incomplete, and the number
//! of requests whose responses the client does not read.

use super::sniff::PREFACE;
use bytes::Bytes;
use std::{
    mem,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const FRAME_HEAD: usize = 9;
/// Codes of a GOAWAY (RFC 9113 §7).
pub(crate) const INTERNAL_ERROR: u8 = 2;
pub(crate) const ENHANCE_YOUR_CALM: u8 = 11;

/// Finds the frame boundaries in the bytes that a client sends.
#[derive(Debug)]
pub(super) struct FrameScanner {
    preface_left: usize,
    head: [u8; FRAME_HEAD],
    head_len: usize,
    payload_left: usize,
    /// The padding at the end of a DATA frame; `None` before its length, which is the first byte.
    padding: Option<usize>,
    /// A header block has begun, and no frame with END_HEADERS has ended it.
    in_block: bool,
    /// The highest stream of which a header block is complete.
    last_stream: u32,
    /// The first frame of the client, which completes its preface, has ended.
    preface_done: bool,
    /// The last scan stopped at a request for which there was no room.
    is_stopped: bool,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scanned {
    /// Units that the bytes complete.
    whole: u32,
    /// Requests that they begin.
    requests: u32,
    /// Bytes of data in DATA frames, without their padding.
    data: usize,
    /// Bytes that were scanned.
    len: usize,
}

/// The incomplete unit at the end of the bytes that a client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partial {
    /// The last frame is complete, and so is its header block.
    None = 0,
    /// The preface, a header block, or a frame that carries no data.
    Head = 1,
    /// A DATA frame.
    Data = 2,
}

impl FrameScanner {
    pub(super) const fn new() -> Self {
        Self {
            preface_left: PREFACE.len(),
            head: [0; FRAME_HEAD],
            head_len: 0,
            payload_left: 0,
            padding: Some(0),
            in_block: false,
            last_stream: 0,
            preface_done: false,
            is_stopped: false,
        }
    }

    /// Scans the next bytes, up to a request for which `requests_left` has no room. Of that only
    /// the frame head is scanned.
    fn scan(&mut self, read: &[u8], requests_left: u32) -> Scanned {
        // The request at which the last scan stopped comes first.
        let (mut whole, mut requests) = (0, u32::from(mem::take(&mut self.is_stopped)));
        let mut data = 0;
        let mut bytes = read;
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.head_len < FRAME_HEAD {
                let part = (FRAME_HEAD - self.head_len).min(bytes.len());
                self.head[self.head_len..][..part].copy_from_slice(&bytes[..part]);
                self.head_len += part;
                bytes = &bytes[part..];
                if self.head_len < FRAME_HEAD {
                    break;
                }
                let [a, b, c, kind, flags, ..] = self.head;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.in_block = flags & END_HEADERS == 0;
                }
                self.padding = (kind != DATA || flags & PADDED == 0).then_some(0);
                if kind == HEADERS {
                    if requests >= requests_left && self.payload_left > 0 {
                        self.is_stopped = true;
                        break;
                    }
                    requests += 1;
                }
            }
            let (payload, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
            if self.head[3] == DATA {
                data += self.count_data(payload);
            }
            self.payload_left -= payload.len();
            bytes = rest;
            if self.payload_left == 0 {
                self.head_len = 0;
                self.preface_done = true;
                let [_, _, _, kind, _, stream @ ..] = self.head;
                if matches!(kind, HEADERS | CONTINUATION) && !self.in_block {
                    // Trailers come after the head of a later stream. The first bit is reserved.
                    let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                    self.last_stream = self.last_stream.max(stream);
                }
                whole += u32::from(!self.in_block);
            }
        }
        Scanned { whole, requests, data, len: read.len() - bytes.len() }
    }

    /// Returns how many of the next bytes of a DATA frame are data. h2 opens the window for the
    /// others at once.
    fn count_data(&mut self, payload: &[u8]) -> usize {
        let (mut len, mut left) = (payload.len(), self.payload_left);
        let padding = match (self.padding, payload.first()) {
            (Some(padding), _) => padding,
            (None, Some(length)) => {
                (len, left) = (len - 1, left - 1);
                *self.padding.insert(usize::from(*length))
            }
            (None, None) => return 0,
        };
        len.min(left.saturating_sub(padding))
    }

    const fn partial(&self) -> Partial {
        let in_frame = self.head_len > 0;
        if in_frame
            && self.head_len == FRAME_HEAD
            && self.head[3] == DATA
            && self.preface_done
            && !self.in_block
        {
            Partial::Data
        } else if in_frame || self.in_block || !self.preface_done {
            Partial::Head
        } else {
            Partial::None
        }
    }
}

/// Frames that a client has sent, counted for its connection. Only the connection's task uses it.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    /// Completed units. A unit is a frame, or a header block of several frames.
    whole: AtomicU64,
    /// Bytes of data in DATA frames, which use up the receive window until they are read.
    data: AtomicU64,
    partial: AtomicU8,
    /// Requests that were read since hyper's write buffer was last empty.
    requests_unflushed: AtomicU32,
    /// Bytes read since the connection was last polled.
    read_in_poll: AtomicU32,
    /// Requests read since hyper last passed all that it has read to the service.
    requests_in_poll: AtomicU32,
    /// The next request waits, because there was no room for it.
    is_stopped: AtomicBool,
    /// hyper waits for more bytes from the client.
    awaited: AtomicBool,
    /// hyper was kept from reading.
    held: AtomicBool,
    last_stream: AtomicU32,
    /// The io must peek for bytes that the reactor has not reported yet.
    peek_requested: AtomicBool,
}

impl Inflow {
    /// Begins a poll of the connection by its task.
    pub(crate) fn begin_poll(&self) {
        self.read_in_poll.store(0, Relaxed);
        self.requests_in_poll.store(0, Relaxed);
        self.awaited.store(false, Relaxed);
    }

    /// Records bytes that were read for hyper. Returns how many of them hyper may have: the next
    /// request must wait if `requests_left` has no room for it.
    pub(super) fn on_read(
        &self,
        scanner: &mut FrameScanner,
        bytes: &[u8],
        requests_left: u32,
    ) -> usize {
        let Scanned { whole, requests, data, len } = scanner.scan(bytes, requests_left);
        self.is_stopped.store(scanner.is_stopped, Relaxed);
        self.requests_in_poll.store(self.requests_in_poll().saturating_add(requests), Relaxed);
        self.whole.store(self.whole().wrapping_add(u64::from(whole)), Relaxed);
        self.data.store(self.data().wrapping_add(data as u64), Relaxed);
        self.partial.store(scanner.partial() as u8, Relaxed);
        self.requests_unflushed.store(self.requests_unflushed().saturating_add(requests), Relaxed);
        self.last_stream.store(scanner.last_stream, Relaxed);
        let read = u32::try_from(len).unwrap_or(u32::MAX);
        self.read_in_poll.store(self.read_in_poll().saturating_add(read), Relaxed);
        len
    }

    /// Requests read since hyper last passed all that it has read to the service.
    pub(super) fn requests_in_poll(&self) -> u32 {
        self.requests_in_poll.load(Relaxed)
    }

    /// hyper has passed all requests that it has read to the service.
    pub(crate) fn on_requests_passed(&self) {
        self.requests_in_poll.store(0, Relaxed);
    }

    /// Whether a request waits for which there was no room.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }

    pub(crate) fn request_peek(&self) {
        self.peek_requested.store(true, Relaxed);
    }

    pub(super) fn take_peek_requested(&self) -> bool {
        self.peek_requested.load(Relaxed) && self.peek_requested.swap(false, Relaxed)
    }

    pub(super) fn on_awaited(&self) {
        self.awaited.store(true, Relaxed);
    }

    pub(super) fn on_flushed(&self) {
        self.requests_unflushed.store(0, Relaxed);
    }

    pub(super) fn on_reads_held(&self) {
        self.held.store(true, Relaxed);
    }

    /// Whether hyper was kept from reading since the last call.
    pub(crate) fn take_reads_held(&self) -> bool {
        self.held.load(Relaxed) && self.held.swap(false, Relaxed)
    }

    pub(super) fn requests_unflushed(&self) -> u32 {
        self.requests_unflushed.load(Relaxed)
    }

    pub(super) fn read_in_poll(&self) -> u32 {
        self.read_in_poll.load(Relaxed)
    }

    /// Returns the last GOAWAY frame of a connection, with this code and a short reason.
    pub(crate) fn goaway(&self, code: u8, why: &[u8]) -> Bytes {
        let length = u8::try_from(8 + why.len()).unwrap_or(u8::MAX);
        let last = self.last_stream.load(Relaxed).to_be_bytes();
        [&[0, 0, length, GOAWAY, 0, 0, 0, 0, 0][..], &last, &[0, 0, 0, code], why].concat().into()
    }

    pub(crate) fn whole(&self) -> u64 {
        self.whole.load(Relaxed)
    }

    pub(crate) fn data(&self) -> u64 {
        self.data.load(Relaxed)
    }

    /// Whether the client has begun a DATA frame and not completed it. No other stream's bytes can
    /// arrive before its end.
    pub(crate) fn is_in_data(&self) -> bool {
        self.partial.load(Relaxed) == Partial::Data as u8
    }

    /// Whether the client has begun a unit and not completed it.
    pub(crate) fn has_begun(&self) -> bool {
        self.partial.load(Relaxed) != Partial::None as u8
    }

    /// Returns which unit the client has begun and not completed, if hyper waits for the rest of
    /// it.
    pub(crate) fn awaited(&self) -> Partial {
        match self.partial.load(Relaxed) {
            _ if !self.awaited.load(Relaxed) => Partial::None,
            1 => Partial::Head,
            2 => Partial::Data,
            _ => Partial::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Returns one of each unit, with the `Partial` that is reported before its last byte.
    fn units() -> Vec<(Vec<u8>, Partial)> {
        vec![
            ([&PREFACE[..], &frame(4, 0, b"")].concat(), Partial::Head),
            (frame(HEADERS, END_HEADERS, b"block"), Partial::Head),
            (
                [
                    frame(HEADERS, 0, b"bl"),
                    frame(CONTINUATION, 0, b""),
                    frame(CONTINUATION, END_HEADERS, b"ock"),
                ]
                .concat(),
                Partial::Head,
            ),
            (frame(DATA, 0, b"data"), Partial::Data),
            (frame(DATA, 1, b""), Partial::Head),
            (frame(DATA, PADDED, b"\x03dataxxx"), Partial::Data),
            (frame(6, 0, b"12345678"), Partial::Head),
        ]
    }

    #[test]
    fn every_unit_is_counted_at_its_last_byte_however_it_is_split() {
        for size in 1..64 {
            let mut scanner = FrameScanner::new();
            let bytes = units().into_iter().flat_map(|(unit, _)| unit).collect::<Vec<_>>();
            let counted = bytes.chunks(size).map(|chunk| scanner.scan(chunk, u32::MAX));
            let (whole, requests, data) = counted.fold((0, 0, 0), |sum, one| {
                (sum.0 + one.whole, sum.1 + one.requests, sum.2 + one.data)
            });
            assert_eq!(
                (whole, requests, data, scanner.partial()),
                (7, 2, 8, Partial::None),
                "{size} bytes at a time"
            );
            assert_eq!(scanner.last_stream, 1);
        }
    }

    // The trailers of an earlier stream, or the reserved bit, made a GOAWAY name another last
    // stream than the highest. Its client repeated requests that had been served (RFC 9113 §6.8).
    #[test]
    fn the_last_stream_is_the_highest() {
        let mut scanner = FrameScanner::new();
        let preface = [&PREFACE[..], &frame(4, 0, b"")].concat();
        scanner.scan(&preface, u32::MAX);
        for (stream, last) in [(1_u32, 1), (1 << 31 | 3, 3), (1, 3), (1 << 31 | 1, 3), (5, 5)] {
            let mut block = frame(HEADERS, END_HEADERS, b"block");
            block[5..FRAME_HEAD].copy_from_slice(&stream.to_be_bytes());
            scanner.scan(&block, u32::MAX);
            assert_eq!(scanner.last_stream, last, "{stream:#x}");
        }
    }

    #[test]
    fn the_missing_part_is_known_before_the_last_byte_of_a_unit() {
        let mut scanner = FrameScanner::new();
        assert_eq!(scanner.partial(), Partial::Head, "the preface");
        for (unit, partial) in units() {
            let (last, rest) = unit.split_last().unwrap();
            assert_eq!(scanner.scan(rest, u32::MAX).whole, 0);
            assert_eq!(scanner.partial(), partial, "{unit:?}");
            assert_eq!(scanner.scan(&[*last], u32::MAX).whole, 1);
            assert_eq!(scanner.partial(), Partial::None, "{unit:?}");
        }
    }

    #[test]
    fn a_scan_stops_in_the_request_for_which_there_is_no_room() {
        let unit = |kind, payload: &[u8]| frame(kind, END_HEADERS, payload);
        let [request, ping] = [unit(HEADERS, b"block"), unit(6, b"12345678")];
        let preface = [&PREFACE[..], &frame(4, 0, b"")].concat();
        let bytes = [&preface[..], &request, &request, &ping, &request, &ping].concat();
        let mut scanner = FrameScanner::new();
        let scanned = scanner.scan(&bytes, 2);
        let before = preface.len() + 2 * request.len() + ping.len();
        assert_eq!(scanned, Scanned { whole: 4, requests: 2, data: 0, len: before + FRAME_HEAD });
        assert!(scanner.is_stopped);
        let scanned = scanner.scan(&bytes[scanned.len..], 1);
        assert_eq!(
            scanned,
            Scanned { whole: 2, requests: 1, data: 0, len: bytes.len() - before - FRAME_HEAD }
        );
        assert!(!scanner.is_stopped);
    }
}

//! A transport whose every read and write is decided by the test.

use crate::runtime::{Address, Negotiated, Opening, Peek, Peer, Transport};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection's end of the wire. The test holds the other one.
#[derive(Debug)]
pub(in crate::http) struct Script(Arc<Mutex<Wire>>);

/// What the kernel and the peer hold of one connection.
#[derive(Debug)]
pub(super) struct Wire {
    unread: VecDeque<u8>,
    /// The transport holds half a record, from which nothing can be read yet.
    pub(super) has_half_record: bool,
    ended: bool,
    broken: bool,
    /// Writes fail.
    writes_fail: bool,
    /// Bytes of a PROXY header that are still to be read.
    pub(super) header: usize,
    /// Reads that find nothing, although something is there: the runtime does not know yet.
    pub(super) late_reads: usize,
    /// Peeks that find a new frame of HTTP/2, where nothing was before.
    pub(super) teases: usize,
    /// Bytes that are there again after each read.
    pub(super) refill: &'static [u8],
    /// There is always something to read, and no read finds a byte of it: records without data.
    pub(super) is_hollow: bool,
    /// Flushes wait, as those of TLS for ciphertext that the kernel has not taken.
    flush_waits: bool,
    /// The end of the sending side waits, as that of TLS for a close_notify.
    shutdown_waits: bool,
    /// Bytes that one read returns at most.
    pub(super) piece: usize,
    /// Bytes that one write takes at most.
    pub(super) write_piece: usize,
    /// Writes take several slices.
    pub(super) is_vectored: bool,
    /// Bytes that writes still take before they are pending.
    pub(super) room: usize,
    pub(super) written: Vec<u8>,
    /// The length of `written` after each write.
    pub(super) writes: Vec<usize>,
    /// The protocol that the peers agreed on, as over TLS.
    pub(super) negotiated: Negotiated,
    /// Bytes of `written` that the peer has acknowledged: all, if `None`.
    pub(super) acknowledged: Option<usize>,
    pub(super) shut: bool,
    reset: bool,
    /// The end of the connection cuts a response.
    pub(super) is_cut: bool,
    dropped: bool,
    /// Calls of the transport that did something.
    pub(super) calls: usize,
    /// Queries for what the peer has not acknowledged.
    pub(super) queries: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// RFC 9113 §6.3: a frame that requests nothing, on a stream that was never opened.
const PRIORITY: &[u8] = b"\x00\x00\x05\x02\x00\x00\x00\x00\x09\x00\x00\x00\x00\x10";

/// How the connection ended, as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Fin,
    Reset,
}

/// Locks, also after a panic. Otherwise a failed assertion that held the lock would make the
/// destructor of the transport panic, too, which aborts all tests.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn script() -> (Script, Arc<Mutex<Wire>>) {
    let wire = Arc::new(Mutex::new(Wire {
        unread: VecDeque::new(),
        has_half_record: false,
        ended: false,
        broken: false,
        writes_fail: false,
        header: 0,
        late_reads: 0,
        teases: 0,
        refill: b"",
        is_hollow: false,
        flush_waits: false,
        shutdown_waits: false,
        piece: usize::MAX,
        write_piece: usize::MAX,
        is_vectored: false,
        room: usize::MAX,
        written: Vec::new(),
        writes: Vec::new(),
        negotiated: Negotiated::Unknown,
        acknowledged: None,
        shut: false,
        reset: false,
        is_cut: false,
        dropped: false,
        calls: 0,
        queries: 0,
        reader: None,
        writer: None,
    }));
    (Script(wire.clone()), wire)
}

impl Wire {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.has_half_record = false;
        self.unread.extend(bytes);
        self.wake_reader();
    }

    /// Bytes arrive of which the runtime does not know yet.
    pub(super) fn arrive(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
    }

    /// Half a record arrives.
    pub(super) fn send_half_a_record(&mut self) {
        self.has_half_record = true;
        self.wake_reader();
    }

    /// The peer closes its sending side.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.wake_reader();
    }

    /// The peer resets the connection.
    pub(super) fn reset(&mut self) {
        self.broken = true;
        self.unread.clear();
        self.wake_reader();
        self.wake_writer();
    }

    /// The connection breaks, which the next write finds out.
    pub(super) const fn break_writes(&mut self) {
        self.writes_fail = true;
    }

    /// Flushes wait from now on, or no more.
    pub(super) fn hold_flushes(&mut self, flush_waits: bool) {
        self.flush_waits = flush_waits;
        self.wake_writer();
    }

    /// The end of the sending side waits from now on, or no more.
    pub(super) fn hold_shutdown(&mut self, shutdown_waits: bool) {
        self.shutdown_waits = shutdown_waits;
        self.wake_writer();
    }

    /// The peer receives all that was written, and the kernel takes `room` further bytes.
    pub(super) fn make_room(&mut self, room: usize) {
        self.room = room;
        self.acknowledged = None;
        self.wake_writer();
    }

    /// The peer receives nothing more, and the kernel takes only `room` further bytes.
    pub(super) fn stop_receiving(&mut self, room: usize) {
        self.room = room;
        self.acknowledged = Some(self.written.len());
    }

    /// The peer receives `bytes` of what was written, which makes no room in the kernel.
    pub(super) fn acknowledge(&mut self, bytes: usize) {
        self.acknowledged = self.acknowledged.map(|acknowledged| acknowledged + bytes);
    }

    /// Returns what each write carried.
    pub(super) fn parts(&self) -> Vec<&[u8]> {
        let begins = [0].into_iter().chain(self.writes.iter().copied());
        begins.zip(&self.writes).map(|(begin, end)| &self.written[begin..*end]).collect()
    }

    pub(super) fn unread(&self) -> usize {
        self.unread.len()
    }

    /// The kernel turns a close with unread bytes into a reset.
    pub(super) fn how_it_ended(&self) -> End {
        match (self.dropped, self.reset || self.broken || !self.unread.is_empty()) {
            (true, true) => End::Reset,
            (true, false) => End::Fin,
            (false, _) if self.shut => End::Fin,
            (false, _) => End::Open,
        }
    }

    fn refill(&mut self) {
        if self.unread.is_empty() {
            self.unread.extend(self.refill);
        }
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    fn is_readable(&self) -> bool {
        self.broken || self.ended || !self.unread.is_empty()
    }
}

impl Script {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        lock(&self.0)
    }
}

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        wire.refill();
        if wire.is_hollow {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_late = wire.is_readable() && wire.late_reads > 0;
        wire.late_reads -= usize::from(is_late);
        if is_late || !wire.is_readable() {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.calls += 1;
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let length = buf.remaining().min(wire.unread.len()).min(wire.piece);
        let bytes: Vec<u8> = wire.unread.drain(..length).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire();
        if wire.broken || wire.shut || wire.writes_fail {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(wire.room).min(wire.write_piece);
        if length == 0 && !bytes.is_empty() {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.calls += 1;
        wire.room -= length;
        wire.written.extend(&bytes[..length]);
        let end = wire.written.len();
        wire.writes.push(end);
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.wire().is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        if wire.flush_waits {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        if wire.flush_waits || wire.shutdown_waits {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.shut = true;
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for Script {
    fn opening(&self) -> Opening {
        if self.wire().header > 0 { Opening::Header } else { Opening::Done }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        while self.wire().header > 0 {
            let mut room = [0; 64];
            let len = self.wire().header.min(room.len());
            let mut buf = ReadBuf::new(&mut room[..len]);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.wire().header -= buf.filled().len();
        }
        Poll::Ready(Ok(None))
    }

    fn has_buffered(&self) -> bool {
        self.wire().has_half_record
    }

    fn peek(&self) -> Peek {
        let mut wire = self.wire();
        wire.refill();
        if wire.teases > 0 && !wire.is_readable() {
            wire.teases -= 1;
            wire.arrive(PRIORITY);
        }
        match (wire.broken, wire.unread.is_empty() && !wire.is_hollow, wire.ended) {
            (true, ..) => Peek::Broken,
            (false, false, _) => Peek::Data,
            (false, true, true) => Peek::Ended,
            (false, true, false) => Peek::Empty,
        }
    }

    fn peer(&self) -> Peer {
        let wire = self.wire();
        match (wire.broken, wire.ended) {
            (true, _) => Peer::Gone,
            (false, true) => Peer::HalfClosed,
            (false, false) => Peer::Open,
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire();
        if wire.is_readable() {
            return Poll::Ready(());
        }
        wire.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn negotiated(&self) -> Negotiated {
        self.wire().negotiated
    }

    fn unacknowledged(&self) -> Option<usize> {
        let mut wire = self.wire();
        wire.queries += 1;
        let acknowledged = wire.acknowledged.filter(|_| !wire.broken);
        let response = acknowledged.map_or(0, |acknowledged| wire.written.len() - acknowledged);
        // The FIN counts as a byte, and its acknowledgement is always on its way.
        Some(response + usize::from(wire.shut && !wire.broken))
    }

    fn reset_on_drop(&mut self) {
        self.wire().reset = true;
    }

    fn mark_cut(&mut self) {
        let mut wire = self.wire();
        // After a close_notify it is too late.
        wire.is_cut |= !wire.shut;
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let mut wire = self.wire();
        wire.dropped = true;
    }
}

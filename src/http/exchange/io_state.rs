//! What hyper's reads, writes and flushes show, and what the kernel was asked for.

use super::{final_reads::FinalReads, http2_input::Inflow, sniff::is_blank};
use crate::lifecycle::Moment;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Updated by the io that hyper holds. All of an HTTP/1 connection is polled in one task, so plain
/// loads and stores suffice; on HTTP/2 only the connection's task writes here, too.
#[derive(Debug)]
pub(crate) struct IoState {
    /// hyper's write buffer is empty, and all that hyper wrote was flushed.
    flushed: AtomicBool,
    /// Number of times that it was.
    flushes: AtomicU64,
    /// Bytes other than empty lines were read for hyper since this was last cleared.
    pub(super) received: AtomicBool,
    /// All bytes ever read for hyper.
    read: AtomicU64,
    /// Bytes written by hyper since it last called the service.
    pub(super) written: AtomicU64,
    /// Bytes written since the connection began.
    sent: AtomicU64,
    /// The frames that an HTTP/2 client has sent.
    pub(crate) inflow: Inflow,
    /// The last write for hyper was not accepted by the kernel.
    write_blocked: AtomicBool,
    /// HTTP/2: the last poll of hyper left bytes unflushed.
    blocked: AtomicBool,
    /// Bytes that the peer had not acknowledged when the kernel was last queried.
    unacknowledged: AtomicU64,
    /// Nothing was written since that query.
    unacknowledged_is_current: AtomicBool,
    /// The io shall query the kernel for whether the client is still connected.
    peek_requested: AtomicBool,
    /// That query shall also read the number of unacknowledged bytes.
    unacknowledged_requested: AtomicBool,
    /// A `FinalRead`: whether the kernel holds bytes that the reactor has not reported.
    final_read: AtomicU8,
    /// How long such bytes delay the timeout.
    final_reads: FinalReads,
    /// The client has half-closed the connection.
    pub(super) read_ended: AtomicBool,
    /// The same, but never set under `HalfClose::Ignore`.
    pub(super) half_closed: AtomicBool,
    /// The transport failed.
    broken: AtomicBool,
    io_dropped: AtomicBool,
    /// A shutdown of the sending side has begun, which on HTTP/1 waits for the transport.
    shutting_down: AtomicBool,
}

/// State of the last read of the kernel before an expired timeout takes effect (P5b).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalRead {
    NotWanted,
    /// The next read that finds nothing peeks at the socket.
    Wanted,
    Data,
    Nothing,
}

impl IoState {
    /// `sent`: the bytes that were written on the connection before.
    pub(super) fn new(sent: u64) -> Self {
        Self {
            flushed: AtomicBool::new(true),
            flushes: AtomicU64::new(0),
            received: AtomicBool::new(false),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            sent: AtomicU64::new(sent),
            inflow: Inflow::default(),
            write_blocked: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unacknowledged: AtomicU64::new(0),
            unacknowledged_is_current: AtomicBool::new(false),
            peek_requested: AtomicBool::new(false),
            unacknowledged_requested: AtomicBool::new(false),
            final_read: AtomicU8::new(FinalRead::NotWanted as u8),
            final_reads: FinalReads::default(),
            read_ended: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            io_dropped: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
        }
    }

    pub(super) fn on_read(&self, bytes: &[u8]) {
        if !is_blank(bytes) {
            self.received.store(true, Relaxed);
        }
        self.final_read.store(FinalRead::NotWanted as u8, Relaxed);
        self.read.store(self.read() + bytes.len() as u64, Relaxed);
    }

    pub(super) fn before_write(&self) {
        self.flushed.store(false, Relaxed);
        self.write_blocked.store(true, Relaxed);
    }

    /// Records whether a flush waits for the kernel.
    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    pub(crate) fn on_written(&self, bytes: usize) {
        self.write_blocked.store(false, Relaxed);
        self.unacknowledged_is_current.store(false, Relaxed);
        self.written.store(self.written() + bytes as u64, Relaxed);
        self.on_sent(bytes);
    }

    pub(crate) fn on_sent(&self, bytes: usize) {
        self.sent.store(self.sent() + bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(super) fn on_unacknowledged(&self, bytes: usize) {
        self.unacknowledged.store(bytes as u64, Relaxed);
        self.unacknowledged_is_current.store(true, Relaxed);
    }

    /// hyper's write buffer is empty.
    pub(super) fn on_flushed(&self) {
        self.flushed.store(true, Relaxed);
        self.flushes.store(self.flushes() + 1, Relaxed);
        self.inflow.on_flushed();
    }

    /// How often all that hyper wrote has been flushed.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Relaxed)
    }

    pub(super) fn is_final_read_wanted(&self) -> bool {
        self.final_read.load(Relaxed) == FinalRead::Wanted as u8
    }

    pub(super) fn on_final_read(&self, has_data: bool) {
        let found = if has_data { FinalRead::Data } else { FinalRead::Nothing };
        self.final_read.store(found as u8, Relaxed);
    }

    /// Whether the client has half-closed the connection, whatever the settings make of it.
    pub(crate) fn has_read_ended(&self) -> bool {
        self.read_ended.load(Relaxed)
    }

    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    pub(super) fn on_broken(&self) {
        self.broken.store(true, Relaxed);
    }

    pub(super) fn take_peek_requested(&self) -> bool {
        self.peek_requested.load(Relaxed) && self.peek_requested.swap(false, Relaxed)
    }

    /// Whether the last poll of hyper left bytes unflushed.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    pub(crate) fn after_poll(&self) {
        self.blocked.store(!self.is_flushed(), Relaxed);
    }

    /// Clears `flushed` before each poll of hyper. A poll that leaves nothing unwritten flushes at
    /// least once, which sets it again.
    pub(crate) fn before_poll(&self) {
        self.flushed.store(false, Relaxed);
    }

    pub(super) fn on_shutdown_begun(&self) {
        self.shutting_down.store(true, Relaxed);
    }

    /// Whether hyper has ended the connection. On HTTP/1 this is set only if the transport still
    /// has bytes to send before the FIN.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Relaxed)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes written since hyper last called the service.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Whether bytes of the last HTTP/1 response, or of earlier ones, may have been written since
    /// hyper called the service, or may wait in a buffer.
    pub(crate) fn is_response_begun(&self) -> bool {
        self.written() > 0 || self.is_write_blocked()
    }

    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        self.unacknowledged.load(Relaxed)
    }

    /// Bytes that the peer had not acknowledged at the last query, unless more was written since.
    pub(crate) fn unacknowledged_of_all(&self) -> Option<u64> {
        self.unacknowledged_is_current.load(Relaxed).then(|| self.unacknowledged())
    }

    pub(crate) fn has_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    pub(crate) fn clear_received(&self) {
        self.received.store(false, Relaxed);
    }

    /// Whether the kernel may hold unread bytes although the timeout for them has expired. A
    /// process that was suspended finds its timers expired before it reads what arrived in the
    /// meantime. If true, the caller must poll the connection again before the timeout takes effect
    /// (P5b).
    ///
    /// Data that yields no bytes, such as records of TLS, delays the timeout as [`FinalReads`]
    /// says.
    pub(crate) fn may_have_unread(&self, now: Moment) -> bool {
        let found = self.final_read.load(Relaxed);
        let is_first = found == FinalRead::NotWanted as u8;
        if is_first {
            self.final_reads.reset();
        }
        let has_data = found == FinalRead::Data as u8;
        let may_have = is_first || has_data && self.final_reads.may_delay(now);
        if may_have {
            self.final_read.store(FinalRead::Wanted as u8, Relaxed);
        }
        may_have
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    pub(crate) fn request_peek(&self) {
        self.peek_requested.store(true, Relaxed);
    }

    /// Requests that the next poll of hyper also queries the kernel for unacknowledged bytes.
    pub(crate) fn request_unacknowledged(&self) {
        self.unacknowledged_requested.store(true, Relaxed);
        self.request_peek();
    }

    pub(super) fn take_unacknowledged_requested(&self) -> bool {
        self.unacknowledged_requested.swap(false, Relaxed)
    }

    pub(super) fn on_io_dropped(&self) {
        self.io_dropped.store(true, Release);
    }

    pub(crate) fn is_io_dropped(&self) -> bool {
        self.io_dropped.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::limits::HEAD_GRACE;

    // A process that was suspended closed connections whose requests had arrived meanwhile (P5b).
    // The kernel is read once before a wait ends. If each read was followed by another, no silent
    // client would be given up (P6).
    #[test]
    fn a_timeout_takes_effect_after_one_read_that_found_nothing() {
        let (io, now) = (IoState::new(0), Moment::EPOCH);
        assert!(io.may_have_unread(now));
        assert!(io.is_final_read_wanted());
        assert!(!io.may_have_unread(now), "hyper does not read");
        io.on_final_read(true);
        assert!(io.may_have_unread(now));
        assert!(io.is_final_read_wanted());
        io.on_final_read(false);
        assert!(!io.may_have_unread(now));
        io.on_read(b"a part of the head");
        assert!(io.may_have_unread(now), "the next wait has its own read");
        for later in 0..64 {
            io.on_final_read(true);
            let now = now + HEAD_GRACE * (3 * later);
            assert!(io.may_have_unread(now), "the runtime may not know of the data");
        }
        io.on_final_read(true);
        assert!(!io.may_have_unread(now + HEAD_GRACE * 192), "the data is no byte of a head");
    }
}

//! The responses of a connection, from their heads to their last bytes.

use crate::http::server::{abort::AbortCause, connection_slot::ConnectionSlot};
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Updated by the service, the bodies and their chunks. HTTP/2 streams run in tasks of their own.
#[derive(Debug)]
pub(crate) struct ResponsesState {
    /// A response began after the stop request.
    pub(super) responded: AtomicBool,
    /// An HTTP/1 response announced the close of the connection (P4).
    pub(super) announced: AtomicBool,
    /// The handler or the host has set `Connection: close` in an HTTP/1 response.
    closes: AtomicBool,
    /// A chunk of a response body was too large to be copied.
    sent_large_chunk: AtomicBool,
    /// Bytes of responses that h2 has taken and not yet written.
    buffered: AtomicU64,
    /// Bytes of responses that h2 has written.
    delivered: AtomicU64,
    /// Set once a response was cut after its head. The connection is then reset, so that the
    /// response cannot look complete (P5d).
    abort_cause: OnceLock<AbortCause>,
    /// The number of [`UnflushedResponses`](super::in_flight::UnflushedResponses).
    unflushed: AtomicU32,
    /// h2 discarded bytes of a response since this was last cleared.
    discarded: AtomicBool,
}

impl ResponsesState {
    pub(super) fn new(slot: &ConnectionSlot) -> Self {
        Self {
            responded: AtomicBool::new(slot.has_responded()),
            announced: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            sent_large_chunk: AtomicBool::new(false),
            buffered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            abort_cause: OnceLock::new(),
            unflushed: AtomicU32::new(0),
            discarded: AtomicBool::new(false),
        }
    }

    /// Records bytes of a response that h2 has taken.
    pub(super) fn on_buffered(&self, bytes: usize) {
        self.buffered.fetch_add(bytes as u64, Relaxed);
    }

    /// Records bytes of a response that h2 has written.
    pub(super) fn on_delivered(&self, bytes: usize) {
        self.delivered.fetch_add(bytes as u64, Relaxed);
        self.buffered.fetch_sub(bytes as u64, Relaxed);
    }

    /// Records bytes of a response that h2 has discarded.
    pub(super) fn on_discarded(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes as u64, Relaxed);
        self.discarded.store(true, Relaxed);
    }

    pub(super) fn on_large_chunk(&self) {
        self.sent_large_chunk.store(true, Relaxed);
    }

    /// Sets why a response was cut. Only the first cause is kept.
    pub(crate) fn set_abort_cause(&self, abort_cause: AbortCause) {
        let _ = self.abort_cause.set(abort_cause);
    }

    /// Whether a response began after the stop request.
    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Relaxed)
    }

    /// Records that the handler or the host has set `Connection: close` in an HTTP/1 response.
    pub(crate) fn set_closes(&self) {
        self.closes.store(true, Relaxed);
    }

    /// Whether the server has chosen the end of an HTTP/1 connection. Its client may have sent a
    /// next request.
    pub(crate) fn is_our_end(&self) -> bool {
        self.announced.load(Relaxed) || self.closes.load(Relaxed)
    }

    /// Records in the slot whether a response began, for the protocol state that follows.
    pub(crate) fn record_responses_in(&self, slot: &ConnectionSlot) {
        if self.has_responded() {
            slot.note_responded();
        }
    }

    pub(crate) fn has_sent_large_chunk(&self) -> bool {
        self.sent_large_chunk.load(Relaxed)
    }

    pub(crate) fn has_buffered(&self) -> bool {
        self.buffered.load(Relaxed) > 0
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.abort_cause().is_some()
    }

    pub(crate) fn abort_cause(&self) -> Option<AbortCause> {
        self.abort_cause.get().copied()
    }

    /// The number of responses that have ended and may still be in a buffer.
    pub(super) fn unflushed(&self) -> u32 {
        self.unflushed.load(Relaxed)
    }

    pub(super) fn set_unflushed(&self, count: usize) {
        self.unflushed.store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        self.unflushed() > 0
    }

    pub(super) fn take_discarded(&self) -> bool {
        self.discarded.load(Relaxed) && self.discarded.swap(false, Relaxed)
    }
}

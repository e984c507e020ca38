//! State that a connection shares with its io, its service and its bodies while a protocol runs.
//!
//! hyper cannot be queried for whether it is idle, so its activity is recorded here. The bytes that
//! it reads, writes and flushes pass through our io, its requests through our service, and bodies
//! through our wrappers.
//!
//! All parts of an HTTP/1 connection are polled in one task, so plain loads and stores suffice.
//! HTTP/2 streams run in their own tasks, so the counters that they change use atomic additions.

use super::{http2_input::Inflow, sniff::is_blank};
use crate::http::server::{
    abort::AbortCause,
    announcement::Announcement,
    connection_slot::{ConnectionSlot, WriteStrategy},
    limits::{HTTP2_RECEIVE_WINDOW, HalfClose, UNREAD_ROUNDS_MAX},
    state::ServerState,
    tracked::{Kind, TrackedWork, WorkOrigin},
    worker_shared::WorkerShared,
};
use crate::{lifecycle::Phase, runtime::Address};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Shared by a connection, the io that hyper holds, its service and its bodies.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(crate) worker: Arc<WorkerShared>,
    pub(crate) protocol: Protocol,
    pub(crate) writes: WriteStrategy,
    pub(crate) peer: Address,
    pub(crate) local: Arc<Address>,
    announcement: Announcement,
    /// A response began after the stop request.
    responded: AtomicBool,
    /// An HTTP/1 response announced the close of the connection (P4).
    announced: AtomicBool,
    /// hyper's write buffer is empty, and all that hyper wrote was flushed.
    flushed: AtomicBool,
    /// Bytes other than empty lines were read for hyper since this was last cleared.
    received: AtomicBool,
    /// All bytes ever read for hyper.
    read: AtomicU64,
    /// Bytes written by hyper since it last called the service.
    written: AtomicU64,
    /// The frames that an HTTP/2 client has sent.
    pub(crate) inflow: Inflow,
    /// A chunk of a response body was too large to be copied.
    sent_large: AtomicBool,
    /// The last write for hyper was not accepted by the kernel.
    write_blocked: AtomicBool,
    /// HTTP/2: the last poll of hyper left bytes unflushed.
    blocked: AtomicBool,
    /// Bytes that the peer had not acknowledged when the kernel was last queried.
    unacknowledged: AtomicU64,
    /// hyper called the service since this was last cleared.
    called: AtomicBool,
    /// Requests whose response has not ended.
    in_flight: AtomicU32,
    /// HTTP/2 streams that wait for the service: for a handler, or for the next chunk of a body.
    handlers_running: AtomicU32,
    /// Bytes of responses that h2 has taken and not yet written.
    buffered: AtomicU64,
    /// Bytes of responses that h2 has written.
    delivered: AtomicU64,
    /// Request bodies that were not dropped yet.
    bodies_held: AtomicU32,
    /// A handler waits for more bytes of a request body.
    body_awaited: AtomicBool,
    /// HTTP/2: the value of `read` when the receive windows were last known to be open.
    window_open_at: AtomicU64,
    /// HTTP/2: body bytes that handlers have read since then.
    body_bytes_read: AtomicU64,
    /// A request body was dropped before its end was read.
    body_unread: AtomicBool,
    /// Set once a response was cut after its head. The connection is then reset, so that the
    /// response cannot look complete (P5d).
    abort_cause: OnceLock<AbortCause>,
    /// The io must query the kernel for whether the client is still connected.
    peek_requested: AtomicBool,
    /// That query must also read the number of unacknowledged bytes.
    unacknowledged_wanted: AtomicBool,
    /// The number of [`UnflushedResponses`](super::unflushed::UnflushedResponses).
    unflushed: AtomicU32,
    /// h2 discarded bytes of a response since this was last cleared.
    thrown_away: AtomicBool,
    /// A `FinalRead`: whether the kernel holds bytes that the reactor has not reported.
    final_read: AtomicU8,
    /// The client has half-closed the connection. Never set under `HalfClose::Ignore`.
    half_closed: AtomicBool,
    /// The transport failed.
    broken: AtomicBool,
    /// A handler agreed to another protocol. Its response waits until hyper is polled with upgrades
    /// enabled.
    switching: AtomicBool,
    upgraded: AtomicBool,
    io_dropped: AtomicBool,
    /// Present while the connection speaks another protocol. Keeps the drain waiting for it.
    upgrade: Mutex<Option<(TaskTrackerToken, TrackedWork)>>,
    /// The request that asked for the upgrade.
    upgrade_origin: OnceLock<WorkOrigin>,
}

/// State of the last read of the kernel before an expired timeout takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalRead {
    NotWanted,
    /// The next read that finds nothing peeks at the socket.
    Wanted,
    Data,
    Nothing,
}

/// The protocol of a connection. It decides how a client learns that a response was cut (P5d).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The connection is reset: HTTP/1 has no other sign of an incomplete response.
    Http1,
    /// Only the stream is reset.
    Http2,
}

impl ConnectionState {
    pub(crate) fn new(
        protocol: Protocol,
        worker: Arc<WorkerShared>,
        slot: &ConnectionSlot,
    ) -> Self {
        Self {
            worker,
            protocol,
            writes: if protocol == Protocol::Http1 {
                slot.writes()
            } else {
                WriteStrategy::Vectored
            },
            peer: slot.peer.clone(),
            local: slot.local.clone(),
            announcement: slot.announcement,
            responded: AtomicBool::new(slot.has_responded()),
            announced: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            received: AtomicBool::new(false),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            inflow: Inflow::default(),
            sent_large: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unacknowledged: AtomicU64::new(0),
            called: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            handlers_running: AtomicU32::new(0),
            buffered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            bodies_held: AtomicU32::new(0),
            body_awaited: AtomicBool::new(false),
            window_open_at: AtomicU64::new(0),
            body_bytes_read: AtomicU64::new(0),
            body_unread: AtomicBool::new(false),
            abort_cause: OnceLock::new(),
            peek_requested: AtomicBool::new(false),
            unacknowledged_wanted: AtomicBool::new(false),
            unflushed: AtomicU32::new(0),
            thrown_away: AtomicBool::new(false),
            final_read: AtomicU8::new(FinalRead::NotWanted as u8),
            half_closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            switching: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            io_dropped: AtomicBool::new(false),
            upgrade: Mutex::new(None),
            upgrade_origin: OnceLock::new(),
        }
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        &self.worker.server
    }

    // Updated by the io.

    pub(crate) fn on_read(&self, bytes: &[u8]) {
        if !is_blank(bytes) {
            self.received.store(true, Relaxed);
        }
        self.final_read.store(FinalRead::NotWanted as u8, Relaxed);
        self.read.store(self.read() + bytes.len() as u64, Relaxed);
    }

    pub(crate) fn on_write(&self) {
        self.flushed.store(false, Relaxed);
        self.write_blocked.store(true, Relaxed);
    }

    pub(crate) fn on_written(&self, bytes: usize) {
        self.write_blocked.store(false, Relaxed);
        self.written.store(self.written() + bytes as u64, Relaxed);
    }

    pub(crate) fn on_unacknowledged(&self, bytes: usize) {
        self.unacknowledged.store(bytes as u64, Relaxed);
    }

    /// hyper's write buffer is empty.
    pub(crate) fn on_flushed(&self) {
        self.flushed.store(true, Relaxed);
        self.inflow.on_flushed();
    }

    /// Whether hyper must not read more from an HTTP/2 client, because that client does not read:
    /// the responses to further requests could not be sent. hyper is polled again once it can
    /// write. On HTTP/1 hyper itself takes at most 16 pipelined requests.
    pub(crate) fn must_hold_reads(&self) -> bool {
        if self.protocol == Protocol::Http1 || !self.is_write_blocked() {
            return false;
        }
        let max = self.server().config.limits.http2_streams_max;
        let kept = self.in_flight.load(Relaxed).saturating_add(self.unflushed());
        kept > max || self.inflow.requests_unflushed() > max.saturating_mul(UNREAD_ROUNDS_MAX)
    }

    pub(crate) fn is_final_read_wanted(&self) -> bool {
        self.final_read.load(Relaxed) == FinalRead::Wanted as u8
    }

    pub(crate) fn on_final_read(&self, has_data: bool) {
        let found = if has_data { FinalRead::Data } else { FinalRead::Nothing };
        self.final_read.store(found as u8, Relaxed);
    }

    pub(crate) fn on_half_closed(&self) {
        if self.server().config.limits.half_close != HalfClose::Ignore {
            self.half_closed.store(true, Relaxed);
        }
    }

    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    pub(crate) fn on_broken(&self) {
        self.broken.store(true, Relaxed);
    }

    pub(crate) fn take_peek_requested(&self) -> bool {
        self.peek_requested.load(Relaxed) && self.peek_requested.swap(false, Relaxed)
    }

    // Updated by the service and the bodies.

    pub(crate) fn on_call(&self) {
        self.called.store(true, Relaxed);
        self.received.store(false, Relaxed);
        // hyper has read past the rest of the previous body by now.
        self.body_unread.store(false, Relaxed);
        self.written.store(0, Relaxed);
        self.count_in_flight(1);
        self.handler_started();
    }

    /// A request was refused before it was counted.
    pub(crate) fn on_refused(&self) {
        self.called.store(true, Relaxed);
    }

    fn count_in_flight(&self, more: i32) {
        match self.protocol {
            // The connection's task holds everything that changes the count.
            Protocol::Http1 => self
                .in_flight
                .store(self.in_flight.load(Relaxed).wrapping_add_signed(more), Relaxed),
            Protocol::Http2 => drop(self.in_flight.fetch_add(more.cast_unsigned(), Relaxed)),
        }
    }

    /// Records that the head of a response is ready. Returns whether it must announce the close of
    /// an HTTP/1 connection (P4).
    pub(crate) fn on_response_head(&self) -> bool {
        let phase = self.server().phase();
        if phase < Phase::LameDuck {
            return false;
        }
        let responded = self.responded.swap(true, Relaxed);
        if self.protocol == Protocol::Http2 {
            return false;
        }
        let announces = phase > Phase::LameDuck
            || self.announcement.is_due(
                self.server().lame_duck(),
                self.server().clock.now(),
                responded,
            );
        if announces {
            self.announced.store(true, Relaxed);
        }
        announces
    }

    /// Records that a request is no longer in flight.
    pub(crate) fn on_request_over(&self) {
        self.count_in_flight(-1);
    }

    /// Records that an HTTP/2 stream waits for the service.
    pub(crate) fn handler_started(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_add(1, Relaxed);
        }
    }

    /// Records that an HTTP/2 stream no longer waits for the service.
    pub(crate) fn handler_stopped(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_sub(1, Relaxed);
        }
    }

    /// Records bytes of a response that h2 has taken.
    pub(crate) fn on_buffered(&self, bytes: usize) {
        self.buffered.fetch_add(bytes as u64, Relaxed);
    }

    /// Records bytes of a response that h2 has written.
    pub(crate) fn on_delivered(&self, bytes: usize) {
        self.delivered.fetch_add(bytes as u64, Relaxed);
        self.buffered.fetch_sub(bytes as u64, Relaxed);
    }

    /// Records bytes of a response that h2 has discarded.
    pub(crate) fn on_released(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes as u64, Relaxed);
        self.thrown_away.store(true, Relaxed);
    }

    pub(crate) fn on_large_chunk(&self) {
        self.sent_large.store(true, Relaxed);
    }

    /// Sets why a response was cut. Only the first cause is kept.
    pub(crate) fn set_abort_cause(&self, abort_cause: AbortCause) {
        let _ = self.abort_cause.set(abort_cause);
    }

    pub(crate) fn on_body_held(&self) {
        self.bodies_held.fetch_add(1, Relaxed);
    }

    /// Records that a handler waits for more of a body. If it is the only body, handlers have read
    /// all that the client sent, so the receive windows are open.
    pub(crate) fn on_body_awaited(&self) {
        self.body_awaited.store(true, Relaxed);
        if self.protocol == Protocol::Http2 && self.bodies_held.load(Relaxed) == 1 {
            self.window_open_at.store(self.read(), Relaxed);
            self.body_bytes_read.store(0, Relaxed);
        }
    }

    /// Records the number of body bytes that a handler has just read.
    pub(crate) fn on_body_read(&self, bytes: usize) {
        self.body_awaited.store(false, Relaxed);
        if self.protocol == Protocol::Http2 {
            self.body_bytes_read.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Whether bodies that no handler reads may have used up the connection's receive window. The
    /// client could then send no other body either.
    pub(crate) fn may_body_window_be_closed(&self) -> bool {
        let read = self.read().saturating_sub(self.window_open_at.load(Relaxed));
        let unread = read.saturating_sub(self.body_bytes_read.load(Relaxed));
        self.protocol == Protocol::Http2 && unread >= u64::from(HTTP2_RECEIVE_WINDOW) / 2
    }

    pub(crate) fn on_body_dropped(&self, unread: bool) {
        if unread {
            self.body_unread.store(true, Relaxed);
        }
        self.bodies_held.fetch_sub(1, Relaxed);
    }

    // Read by the HTTP/2 streams.

    /// Whether the last poll of hyper left bytes unflushed.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed).into()
    }

    // Used by the connection.

    pub(crate) fn after_poll(&self) {
        self.blocked.store(!self.is_flushed(), Relaxed);
    }

    /// Clears `flushed` before each poll of hyper. A poll that leaves nothing unwritten flushes at
    /// least once, which sets it again.
    pub(crate) fn before_poll(&self) {
        self.flushed.store(false, Relaxed);
    }

    /// Whether a response began after the stop request.
    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Relaxed)
    }

    /// Whether an HTTP/1 response announced the close of the connection.
    pub(crate) fn has_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    /// Records in the slot whether a response began and whether one announced the close, for the
    /// protocol state that follows.
    pub(crate) fn record_responses_in(&self, slot: &ConnectionSlot) {
        if self.has_responded() {
            slot.record_response(self.has_announced());
        }
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

    pub(crate) fn has_sent_large_chunk(&self) -> bool {
        self.sent_large.load(Relaxed)
    }

    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        self.unacknowledged.load(Relaxed)
    }

    pub(crate) fn has_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    pub(crate) fn clear_received(&self) {
        self.received.store(false, Relaxed);
    }

    pub(crate) fn take_called(&self) -> bool {
        self.called.swap(false, Relaxed)
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    pub(crate) fn are_handlers_running(&self) -> bool {
        self.handlers_running.load(Relaxed) > 0
    }

    pub(crate) fn has_buffered(&self) -> bool {
        self.buffered.load(Relaxed) > 0
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub(crate) fn are_bodies_held(&self) -> bool {
        self.bodies_held.load(Relaxed) > 0
    }

    pub(crate) fn is_body_awaited(&self) -> bool {
        self.body_awaited.load(Relaxed)
    }

    pub(crate) fn is_body_unread(&self) -> bool {
        self.body_unread.load(Relaxed)
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.abort_cause().is_some()
    }

    pub(crate) fn abort_cause(&self) -> Option<AbortCause> {
        self.abort_cause.get().copied()
    }

    /// Whether the kernel may hold unread bytes although the timeout for them has expired. A
    /// process that was suspended finds its timers expired before it reads what arrived in the
    /// meantime. If true, the caller must poll the connection again before the timeout takes
    /// effect.
    pub(crate) fn may_have_unread(&self) -> bool {
        let found = self.final_read.load(Relaxed);
        let may_have = found == FinalRead::NotWanted as u8 || found == FinalRead::Data as u8;
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
    pub(crate) fn want_unacknowledged(&self) {
        self.unacknowledged_wanted.store(true, Relaxed);
        self.request_peek();
    }

    pub(crate) fn take_unacknowledged_wanted(&self) -> bool {
        self.unacknowledged_wanted.swap(false, Relaxed)
    }

    // Used by the queue of unflushed responses.

    /// The number of responses that have ended and may still be in a buffer.
    pub(crate) fn unflushed(&self) -> u32 {
        self.unflushed.load(Relaxed)
    }

    pub(crate) fn set_unflushed(&self, count: usize) {
        self.unflushed.store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        self.unflushed() > 0
    }

    pub(crate) fn take_thrown_away(&self) -> bool {
        self.thrown_away.load(Relaxed) && self.thrown_away.swap(false, Relaxed)
    }

    // Upgrades.

    pub(crate) fn set_switching(&self) {
        self.switching.store(true, Relaxed);
    }

    pub(crate) fn take_switching(&self) -> bool {
        self.switching.load(Relaxed) && self.switching.swap(false, Relaxed)
    }

    /// Sets the request that is named as the origin of an upgrade that may follow.
    pub(crate) fn name_upgrade(&self, origin: WorkOrigin) {
        let _ = self.upgrade_origin.set(origin);
    }

    /// Records that the handler owns the io now. The token makes the drain wait until the io is
    /// dropped.
    pub(crate) fn begin_upgrade(&self, token: TaskTrackerToken) {
        let origin = self.upgrade_origin.get().cloned().unwrap_or(WorkOrigin::Unknown);
        *self.lock_upgrade() = Some((token, self.server().track(Kind::Upgrade, origin)));
        self.upgraded.store(true, Release);
    }

    /// Ends the upgrade. Returns true only to the first caller.
    pub(crate) fn end_upgrade(&self) -> bool {
        self.is_upgraded() && self.lock_upgrade().take().is_some()
    }

    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Acquire)
    }

    pub(crate) fn on_io_dropped(&self) {
        self.io_dropped.store(true, Release);
    }

    pub(crate) fn is_io_dropped(&self) -> bool {
        self.io_dropped.load(Acquire)
    }

    fn lock_upgrade(&self) -> MutexGuard<'_, Option<(TaskTrackerToken, TrackedWork)>> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What a connection and its guest (hyper, the service, bodies) tell each other while a protocol is spoken.
//!
//! hyper is not asked whether it is quiet; it shows. Bytes that it reads, writes and flushes pass our io, requests pass our
//! service, bodies pass our wrappers, and each leaves a sign here. All of an HTTP/1 connection is polled in one task, so plain
//! loads and stores do; HTTP/2 streams live in tasks of their own, so what they touch is counted.

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
    /// A response began since the stop request.
    responded: AtomicBool,
    /// A response of HTTP/1 announced the close of the connection.
    announced: AtomicBool,
    /// Everything written was flushed: hyper's own buffer is empty.
    flushed: AtomicBool,
    /// Bytes were read for hyper since this was last cleared.
    received: AtomicBool,
    /// Bytes read for hyper, ever.
    read: AtomicU64,
    /// Bytes written by hyper since the last call.
    written: AtomicU64,
    /// What an HTTP/2 client has sent.
    pub(crate) inflow: Inflow,
    /// A piece of an answer was too large to be copied.
    sent_large: AtomicBool,
    /// hyper wants to write, and the kernel takes no more.
    write_blocked: AtomicBool,
    /// HTTP/2: what was written was not flushed when hyper was last polled.
    blocked: AtomicBool,
    /// What the peer had not acknowledged when the kernel was last asked.
    unacknowledged: AtomicU64,
    /// A request began since this was last cleared.
    called: AtomicBool,
    /// Calls whose answer has not ended.
    in_flight: AtomicU32,
    /// HTTP/2 streams on which the next step is ours: handlers, and bodies that wait for their next piece.
    handlers_running: AtomicU32,
    /// Bytes of answers that HTTP/2 holds, and that it has written.
    buffered: AtomicU64,
    delivered: AtomicU64,
    /// Request bodies that somebody still holds.
    bodies_held: AtomicU32,
    /// A handler waits for more of a request's body.
    body_awaited: AtomicBool,
    /// HTTP/2: what was read when its windows were open last, and how much of what came since was read by handlers.
    window_open_at: AtomicU64,
    body_bytes_read: AtomicU64,
    /// A request body was left unread.
    body_unread: AtomicBool,
    /// An answer was cut after its head, by whom: the connection must be reset, so that it cannot look whole.
    abort_cause: OnceLock<AbortCause>,
    /// Ask the kernel at the next chance whether the client is still there.
    peek_requested: AtomicBool,
    unacknowledged_wanted: AtomicBool,
    /// The number of [`UnflushedResponses`](super::unflushed::UnflushedResponses).
    unflushed: AtomicU32,
    /// HTTP/2 threw away bytes of a response since this was last cleared.
    thrown_away: AtomicBool,
    /// What is known of bytes that the runtime has not noticed.
    final_read: AtomicU8,
    /// The client has shut its side while a request ran.
    half_closed: AtomicBool,
    /// The transport failed.
    broken: AtomicBool,
    /// A handler agreed to another protocol, and its response waits until hyper may hand the transport over.
    switching: AtomicBool,
    upgraded: AtomicBool,
    io_dropped: AtomicBool,
    /// Present while the connection speaks another protocol.
    upgrade: Mutex<Option<(TaskTrackerToken, TrackedWork)>>,
    /// The request that asked for it.
    upgrade_origin: OnceLock<WorkOrigin>,
}

/// The last read before a time that has run out has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalRead {
    NotWanted,
    /// At the next read that finds nothing the kernel is asked.
    Wanted,
    Data,
    Nothing,
}

/// Whether an answer that is cut takes its connection with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// It does: there is no other way to say that it is not whole.
    Http1,
    /// It does not: a stream is reset alone.
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

    // Told by the io.

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

    /// Whether hyper must not read more of HTTP/2, because the client does not read either: responses to what it requests could
    /// not leave. hyper is polled again once it could write. For HTTP/1 hyper itself takes 16 requests of a pipeline at most.
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

    // Told by the service and the bodies.

    pub(crate) fn on_call(&self) {
        self.called.store(true, Relaxed);
        self.received.store(false, Relaxed);
        // Whatever was left of the last body, hyper has read past it.
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
            // One task, which also holds whatever counts itself out.
            Protocol::Http1 => self
                .in_flight
                .store(self.in_flight.load(Relaxed).wrapping_add_signed(more), Relaxed),
            Protocol::Http2 => drop(self.in_flight.fetch_add(more.cast_unsigned(), Relaxed)),
        }
    }

    /// The head of a response is ready. Returns whether it announces the close of an HTTP/1
    /// connection (P4).
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

    /// A request is not in flight any more.
    pub(crate) fn on_request_over(&self) {
        self.count_in_flight(-1);
    }

    /// On a stream of HTTP/2 the next step is ours.
    pub(crate) fn handler_started(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_add(1, Relaxed);
        }
    }

    /// We have made it.
    pub(crate) fn handler_stopped(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_sub(1, Relaxed);
        }
    }

    /// HTTP/2 took bytes of an answer.
    pub(crate) fn on_buffered(&self, bytes: usize) {
        self.buffered.fetch_add(bytes as u64, Relaxed);
    }

    /// It wrote them.
    pub(crate) fn on_delivered(&self, bytes: usize) {
        self.delivered.fetch_add(bytes as u64, Relaxed);
        self.buffered.fetch_sub(bytes as u64, Relaxed);
    }

    /// It threw them away.
    pub(crate) fn on_released(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes as u64, Relaxed);
        self.thrown_away.store(true, Relaxed);
    }

    pub(crate) fn on_large_chunk(&self) {
        self.sent_large.store(true, Relaxed);
    }

    /// The first who tears it has torn it.
    pub(crate) fn set_abort_cause(&self, abort_cause: AbortCause) {
        let _ = self.abort_cause.set(abort_cause);
    }

    pub(crate) fn on_body_held(&self) {
        self.bodies_held.fetch_add(1, Relaxed);
    }

    /// A handler waits for more of a body. If no other body is held, all that the client sent was read by now, and its windows are open.
    pub(crate) fn on_body_awaited(&self) {
        self.body_awaited.store(true, Relaxed);
        if self.protocol == Protocol::Http2 && self.bodies_held.load(Relaxed) == 1 {
            self.window_open_at.store(self.read(), Relaxed);
            self.body_bytes_read.store(0, Relaxed);
        }
    }

    /// A handler read so many bytes of a body.
    pub(crate) fn on_body_read(&self, bytes: usize) {
        self.body_awaited.store(false, Relaxed);
        if self.protocol == Protocol::Http2 {
            self.body_bytes_read.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Whether bodies that no handler reads may have used up the connection's window, so that no client could send any other.
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

    // Asked by the streams of HTTP/2.

    /// Whether bytes could not be written when hyper was last polled.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed).into()
    }

    // Asked by the connection.

    pub(crate) fn after_poll(&self) {
        self.blocked.store(!self.is_flushed(), Relaxed);
    }

    /// Before each poll of hyper, which flushes at least once in a poll that leaves nothing unwritten.
    pub(crate) fn before_poll(&self) {
        self.flushed.store(false, Relaxed);
    }

    /// Whether a response began since the stop request.
    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Relaxed)
    }

    /// Whether the last response announced the close of the connection, on HTTP/1.
    pub(crate) fn has_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    /// Records in the connection's slot what its next protocol state must know of its responses.
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

    /// Bytes written since the last call.
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

    /// Whether the kernel may hold bytes that were not read, now that a time has run out in which they should have come: a process
    /// that was stopped finds its timers expired before it finds what has arrived. If so, the connection is to be polled again.
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

    /// Asks the kernel, when hyper is polled next, what the client has not acknowledged.
    pub(crate) fn want_unacknowledged(&self) {
        self.unacknowledged_wanted.store(true, Relaxed);
        self.request_peek();
    }

    pub(crate) fn take_unacknowledged_wanted(&self) -> bool {
        self.unacknowledged_wanted.swap(false, Relaxed)
    }

    // Told by the queue of responses that ended.

    /// The number of responses that ended and may still lie in a buffer.
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

    /// The name of the upgrade that may follow.
    pub(crate) fn name_upgrade(&self, origin: WorkOrigin) {
        let _ = self.upgrade_origin.set(origin);
    }

    /// The io is somebody else's now; the token keeps it in the drain until it is dropped.
    pub(crate) fn begin_upgrade(&self, token: TaskTrackerToken) {
        let origin = self.upgrade_origin.get().cloned().unwrap_or(WorkOrigin::Unknown);
        *self.lock_upgrade() = Some((token, self.server().track(Kind::Upgrade, origin)));
        self.upgraded.store(true, Release);
    }

    /// True for the one who ends it.
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

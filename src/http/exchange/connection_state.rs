//! State that a connection shares with its io, its service and its bodies while a protocol runs.
//!
//! hyper cannot be queried for whether it is idle, so its activity is recorded here. The bytes that
//! it reads, writes and flushes pass through our io, its requests through our service, and bodies
//! through our wrappers.
//!
//! All parts of an HTTP/1 connection are polled in one task, so plain loads and stores suffice.
//! HTTP/2 streams run in their own tasks, so the counters that they change use atomic additions.

use super::{
    io_state::IoState, request_bodies::RequestBodies, responses_state::ResponsesState,
    upgrade_state::UpgradeState,
};
use crate::http::server::{
    announcement::SharedAnnouncement,
    connection_slot::{ConnectionSlot, WriteStrategy},
    limits::HalfClose,
    state::ServerState,
    tracked::Kind,
    worker_shared::WorkerShared,
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::Address,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Shared by a connection, the io that hyper holds, its service and its bodies.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(crate) worker: Arc<WorkerShared>,
    pub(super) protocol: Protocol,
    pub(super) writes: WriteStrategy,
    pub(crate) peer: Address,
    pub(crate) local: Arc<Address>,
    pub(crate) announcement: SharedAnnouncement,
    /// hyper called the service since this was last cleared.
    called: AtomicBool,
    /// Requests whose response has not ended.
    in_flight: AtomicU32,
    /// Requests in flight that are long streams.
    streams: AtomicU32,
    /// HTTP/2 streams that wait for the service: for a handler, or for the next chunk of a body.
    handlers_running: AtomicU32,
    pub(crate) io: IoState,
    pub(crate) responses: ResponsesState,
    pub(crate) bodies: RequestBodies,
    pub(crate) upgrade: UpgradeState,
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
                slot.write_strategy()
            } else {
                WriteStrategy::Vectored
            },
            peer: slot.peer().clone(),
            local: slot.local.clone(),
            announcement: SharedAnnouncement::new(slot.announcement),
            called: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            handlers_running: AtomicU32::new(0),
            io: IoState::new(slot.sent()),
            responses: ResponsesState::new(slot),
            bodies: RequestBodies::default(),
            upgrade: UpgradeState::default(),
        }
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        &self.worker.server
    }

    /// Whether hyper must not read more from an HTTP/2 client, because that client does not read:
    /// the responses to further requests could not be sent. hyper is polled again once it can
    /// write. On HTTP/1 hyper itself takes at most 16 pipelined requests.
    pub(crate) fn must_hold_reads(&self) -> bool {
        if self.protocol == Protocol::Http1 || !self.io.is_write_blocked() {
            return false;
        }
        let max = self.server().config.limits.http2_streams_max;
        let rounds_max = self.server().caps().unread_rounds_max;
        let unflushed = self.io.inflow.requests_unflushed();
        rounds_max.note(unflushed as usize / max.max(1) as usize);
        self.kept() > max
            || self.io.inflow.is_stopped() && self.requests_left() == 0
            || unflushed > max.saturating_mul(rounds_max.get_u32())
    }

    /// Returns how many requests of an HTTP/2 client may follow. While it does not read, those that
    /// are kept for it are limited like its streams, although a stream may have been reset.
    pub(super) fn requests_left(&self) -> u32 {
        if self.io.is_write_blocked() {
            let max = self.server().config.limits.http2_streams_max;
            max.saturating_sub(self.kept().saturating_add(self.io.inflow.requests_in_poll()))
        } else {
            u32::MAX
        }
    }

    /// Requests in flight, and responses that may still be in a buffer.
    fn kept(&self) -> u32 {
        self.in_flight.load(Relaxed).saturating_add(self.responses.unflushed())
    }

    pub(crate) fn on_half_closed(&self) {
        self.io.read_ended.store(true, Relaxed);
        if self.server().config.limits.half_close != HalfClose::Ignore {
            self.io.half_closed.store(true, Relaxed);
        }
    }

    pub(super) fn on_call(&self) {
        self.called.store(true, Relaxed);
        self.io.received.store(false, Relaxed);
        self.bodies.on_request();
        self.io.written.store(0, Relaxed);
        self.count_in_flight(1);
        self.handler_started();
    }

    /// A request was refused before it was counted.
    pub(super) fn on_refused(&self) {
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
    pub(super) fn on_response_head(&self) -> bool {
        let phase = self.server().phase();
        if phase < Phase::LameDuck {
            let aged_at = self.announcement.get().aged_at();
            return aged_at != Moment::NEVER && self.on_aging_response_head(aged_at);
        }
        let responded = self.responses.responded.swap(true, Relaxed);
        if self.protocol == Protocol::Http2 {
            return false;
        }
        let announces = phase > Phase::LameDuck
            || self.announcement.get().is_due(
                self.server().lame_duck(),
                self.server().clock.now(),
                responded,
            );
        if announces {
            self.responses.announced.store(true, Relaxed);
        }
        announces
    }

    /// Returns whether a response announces the close because of the age limit.
    #[cold]
    fn on_aging_response_head(&self, aged_at: Moment) -> bool {
        let announces = self.protocol == Protocol::Http1 && aged_at <= self.server().clock.now();
        if announces {
            self.responses.announced.store(true, Relaxed);
        }
        announces
    }

    /// Records that a request is no longer in flight.
    pub(crate) fn on_request_ended(&self) {
        self.count_in_flight(-1);
    }

    /// Records that a request in flight became a long stream.
    pub(super) fn on_stream(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    /// Records that a long stream is no longer in flight.
    pub(super) fn on_stream_ended(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    /// Whether a request in flight is a long stream.
    pub(crate) fn has_stream(&self) -> bool {
        self.streams.load(Relaxed) > 0
    }

    /// Records that an HTTP/2 stream waits for the service.
    pub(super) fn handler_started(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_add(1, Relaxed);
        }
    }

    /// Records that an HTTP/2 stream no longer waits for the service.
    pub(super) fn handler_stopped(&self) {
        if self.protocol == Protocol::Http2 {
            self.handlers_running.fetch_sub(1, Relaxed);
        }
    }

    /// Records that a handler waits for more of a body, and whether it did not before. If handlers
    /// wait for more of every body, they have read all that the client sent, so the receive windows
    /// are open.
    pub(super) fn on_body_awaited(&self, begins: bool) {
        self.bodies.bodies_awaited.fetch_add(u32::from(begins), Relaxed);
        if self.protocol == Protocol::Http2 && self.bodies.are_all_awaited() {
            self.bodies.window_open_at.store(self.io.inflow.data(), Relaxed);
            self.bodies.body_bytes_read.store(0, Relaxed);
        }
    }

    /// Records the number of body bytes that a handler has just read, and whether it had waited for
    /// them.
    pub(super) fn on_body_read(&self, bytes: usize, had_waited: bool) {
        self.bodies.bodies_awaited.fetch_sub(u32::from(had_waited), Relaxed);
        if self.protocol == Protocol::Http2 {
            self.bodies.body_bytes_read.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Whether bodies that no handler reads may have used up the connection's receive window. The
    /// client could then send no other body either.
    pub(super) fn may_body_window_be_closed(&self) -> bool {
        let window_open_at = self.bodies.window_open_at.load(Relaxed);
        let arrived = self.io.inflow.data().saturating_sub(window_open_at);
        let unread = arrived.saturating_sub(self.bodies.body_bytes_read.load(Relaxed));
        self.protocol == Protocol::Http2
            && !self.bodies.are_all_awaited()
            && unread >= self.server().caps().http2_receive_window.get_u64() / 2
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed).into()
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

    /// Records that the handler owns the io now. The token makes the drain wait until the io is
    /// dropped.
    pub(crate) fn begin_upgrade(&self, token: TaskTrackerToken) {
        let origin = self.upgrade.origin();
        self.upgrade.begin(token, self.server().track(Kind::Upgrade, origin));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::http2_input::FrameScanner, super::sniff::PREFACE, *};
    use crate::http::{TestHost, server::announcement::Announcement};

    // A client that reads nothing and resets each of its requests could let hyper hold many times
    // as many requests as it may have streams: none of them is in flight until hyper has read all
    // that has arrived (P15).
    #[test]
    fn hyper_reads_no_more_requests_than_streams_of_a_client_that_does_not_read() {
        const HEADERS: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82];
        let worker = TestHost::new().context().0.connection.worker.clone();
        let address = Address::Unix(None);
        let local = Arc::new(address.clone());
        let slot = ConnectionSlot::new(Moment::EPOCH, address, local, Announcement::OPENED_BEFORE);
        let connection = ConnectionState::new(Protocol::Http2, worker, &slot);
        let max = connection.server().config.limits.http2_streams_max;
        let preface = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        let sent = [preface, HEADERS.repeat(max as usize + 1)].concat();
        connection.io.before_write();
        assert_eq!(connection.requests_left(), max);
        assert!(!connection.must_hold_reads());
        let read = connection.io.inflow.on_read(&mut FrameScanner::new(), &sent, max);
        assert_eq!(read, sent.len() - 1, "all but the rest of the last request");
        assert!(connection.must_hold_reads());
        connection.io.inflow.on_requests_passed();
        assert!(!connection.must_hold_reads(), "they were reset");
    }
}

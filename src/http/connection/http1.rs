//! A connection that speaks HTTP/1, served by hyper.
//!
//! hyper's connection is taken apart (`into_parts`) once nothing is in flight, buffered or
//! unflushed. hyper's graceful shutdown is never used. It closes a connection that hyper has not
//! read from yet, and one with a partial second head, even if the kernel holds the rest of the
//! request. Instead responses after the stop request announce the close (see
//! [`announcement`](crate::http::server::announcement)), and idleness is detected here.

use super::{
    lingering::{
        Lingering, close_after_response, close_at_once, close_with, head_timeout_response,
    },
    stall_timer::{ProgressSample, StallTimer},
    transition::Transition,
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        connection_state::{ConnectionState, Protocol},
        error_response::ErrorResponse,
        http_service::HttpService,
        in_flight::UnflushedResponses,
        request_bodies::LateBody,
        service::ConnectionService,
        sniff::{after_empty_lines, is_blank},
        tracked_io::{TrackedIo, joined},
    },
    fast_path::{codec::KeepAlive, serve::HyperHandoff},
    server::{
        abort::AbortCause,
        client_timeout::ClientTimeout,
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, Idle},
        limits::{CLIENT_CHECK_INTERVAL, HALF_CLOSED_CHECK_INTERVAL, HalfClose, PARK_AFTER},
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::Transport,
};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

type Connection<T, S> = http1::Connection<TokioIo<TrackedIo<T>>, ConnectionService<S>>;

/// hyper's connection. Upgrades are enabled only once a handler has agreed to one: if a request
/// merely offers an upgrade, hyper may give the transport away before it has flushed the response.
enum Hyper<T: Transport, S: HttpService> {
    Plain(Connection<T, S>),
    Upgradeable(http1::UpgradeableConnection<TokioIo<TrackedIo<T>>, ConnectionService<S>>),
}

impl<T: Transport, S: HttpService> Hyper<T, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Plain(connection) => Pin::new(connection).poll(cx),
            Self::Upgradeable(connection) => Pin::new(connection).poll(cx),
        }
    }

    fn with_upgrades(self) -> Self {
        match self {
            Self::Plain(connection) => Self::Upgradeable(connection.with_upgrades()),
            Self::Upgradeable(_) => self,
        }
    }

    /// Returns the transport, and the bytes that were read but belong to no request yet. `None` if
    /// it was upgraded.
    fn into_transport(self) -> Option<(T, Bytes)> {
        let parts = match self {
            Self::Plain(connection) => connection.into_parts(),
            Self::Upgradeable(connection) => connection.into_parts()?,
        };
        let (io, prefix) = parts.io.into_inner().into_transport()?;
        Some((io, joined(parts.read_buf, prefix)))
    }
}

/// hyper's connection and what is tracked of it.
pub(super) struct Http1<T: Transport, S: HttpService> {
    /// `None` only after it was taken apart.
    hyper: Option<Hyper<T, S>>,
    connection: Arc<ConnectionState>,
    unflushed: Arc<UnflushedResponses>,
    state: Http1State,
    stall_timer: StallTimer,
}

/// What the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http1State {
    /// A request is in flight.
    Busy,
    /// Part of a head was read; its first byte at `since`.
    Reading { since: Moment },
    /// Nothing was read since the last response was flushed, at `since`.
    Idle { since: Moment },
}

impl<T: Transport, S: HttpService> Http1<T, S> {
    pub(super) fn new(
        worker: &Arc<WorkerContext<S>>,
        slot: &ConnectionSlot,
        io: T,
        read: Bytes,
        since: Moment,
    ) -> Self {
        let connection =
            Arc::new(ConnectionState::new(Protocol::Http1, worker.shared.clone(), slot));
        let service = ConnectionService::new(worker.service.clone(), connection.clone());
        let io = TrackedIo::new(io, read, connection.clone(), service.unflushed());
        let mut this = Self::serving(worker, io, service, connection);
        this.state = Http1State::Reading { since };
        this
    }

    /// Continues a connection that the fast path has served.
    pub(super) fn resume(
        worker: &Arc<WorkerContext<S>>,
        io: T,
        handoff_to_hyper: HyperHandoff<S>,
    ) -> Self {
        let HyperHandoff { service, read, unwritten, after, head_since } = handoff_to_hyper;
        let connection = service.connection().clone();
        let mut io = TrackedIo::new(io, read, connection.clone(), service.unflushed());
        io.write_first(unwritten);
        if after == KeepAlive::No {
            io.end_reading();
        }
        let mut this = Self::serving(worker, io, service, connection);
        if let Some(since) = head_since {
            this.state = Http1State::Reading { since };
        }
        this
    }

    fn serving(
        worker: &Arc<WorkerContext<S>>,
        io: TrackedIo<T>,
        service: ConnectionService<S>,
        connection: Arc<ConnectionState>,
    ) -> Self {
        let unflushed = service.unflushed().clone();
        let hyper = worker.http1().serve_connection(TokioIo::new(io), service);
        Self {
            hyper: Some(Hyper::Plain(hyper)),
            connection,
            unflushed,
            state: Http1State::Busy,
            stall_timer: StallTimer::default(),
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Transition<T, S> {
        let skips = self.connection.bodies.skips();
        let was_half_closed = self.connection.io.is_half_closed();
        self.connection.io.before_poll();
        if self.poll_hyper(cx).is_ready() {
            return self.end(worker);
        }
        if self.connection.io.is_half_closed() && !was_half_closed && self.connection.is_in_flight()
        {
            if worker.server().config.limits.half_close == HalfClose::Drop {
                return self.drop_request();
            }
            // Poll again, so that the handler or the body of its response sees the half-close.
            if self.poll_hyper(cx).is_ready() {
                return self.end(worker);
            }
        }
        if self.connection.io.is_shutting_down() && self.connection.io.is_flushed() {
            // The last response was sent. What the client sent after it is no further request.
            return self.end(worker);
        }
        let now = worker.server().clock.now();
        if self.connection.io.is_flushed() {
            self.unflushed.settle_flushed(|| now);
        } else {
            self.unflushed.set_slow();
        }
        // Before the skips: a body that is dropped meanwhile must be seen in one of the two.
        let bodies_held = self.connection.bodies.are_bodies_held();
        // hyper skips the rest of an abandoned body, or closes, in its next poll. If the connection
        // were taken apart before that, the rest would be read as the next request.
        let may_skip = self.connection.bodies.skips() != skips;
        if may_skip {
            cx.waker().wake_by_ref();
        }
        let has_responded =
            !self.connection.is_in_flight() && self.connection.io.is_flushed() && !may_skip;
        if has_responded && !bodies_held {
            return self.on_quiet(worker, slot, now);
        }
        if has_responded {
            self.connection.bodies.wake_when_unheld(cx.waker());
        }
        self.on_busy(worker, slot, now)
    }

    /// Ready when hyper is done with the connection, and its output was flushed or can never be.
    fn poll_hyper(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(hyper) = &mut self.hyper else { return Poll::Ready(()) };
        let mut polled = hyper.poll(cx);
        if polled.is_pending() && self.connection.upgrade.take_switching() {
            // A handler agreed to another protocol, and its response waits for upgrades to be
            // enabled.
            self.hyper = self.hyper.take().map(Hyper::with_upgrades);
            polled = self.hyper.as_mut().map_or(Poll::Ready(Ok(())), |hyper| hyper.poll(cx));
        }
        let is_final = self.connection.io.is_flushed() || self.connection.io.is_broken();
        if self.connection.responses.is_aborted() {
            // The body of a response failed. hyper does not know if bytes must be sent before the
            // end.
            return if is_final { Poll::Ready(()) } else { polled.map(drop) };
        }
        if polled.is_pending() || is_final {
            return polled.map(drop);
        }
        // hyper returns errors, and an upgrade that a client requested, without flushing its
        // buffer. Another poll flushes it and then shuts the connection down.
        self.hyper.as_mut().map_or(Poll::Ready(()), |hyper| hyper.poll(cx).map(drop))
    }

    fn on_busy(
        &mut self,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Transition<T, S> {
        if self.state == Http1State::Busy || self.connection.io.is_write_blocked() {
            self.connection.io.request_peek();
        }
        self.state = Http1State::Busy;
        slot.set_busy();
        let server = &worker.server();
        let connection = &self.connection;
        if !connection.io.is_write_blocked() {
            if !connection.is_in_flight()
                && let Some(late_body) = connection.bodies.awaited().pop()
            {
                return self.on_body_awaited(&*late_body, worker, slot, now);
            }
            self.stall_timer.reset();
            let interval = if connection.io.has_read_ended() {
                HALF_CLOSED_CHECK_INTERVAL
            } else {
                CLIENT_CHECK_INTERVAL
            };
            worker.wake_at(slot, now + interval);
            return Transition::Wait;
        }
        let sample = ProgressSample {
            moved: [0, connection.io.written()],
            unacknowledged: connection.io.unacknowledged_of_all(),
        };
        let since = self.stall_timer.last_progress(sample, now);
        let until = server.gives_up(since, ClientTimeout::Send);
        if now < until {
            worker.wake_at(slot, until.min(now + CLIENT_CHECK_INTERVAL));
            return Transition::Wait;
        }
        // The response has begun and makes no progress. Its cut must not look complete (P5d).
        server.note_client_timeout(ClientTimeout::Send, slot.peer(), None);
        let abort_cause = server.stall_cause(since, ClientTimeout::Send, now);
        if self.cut(abort_cause) { Transition::Reset } else { Transition::Close }
    }

    /// The response has ended, and a task of the app waits for the rest of the request's body.
    fn on_body_awaited(
        &mut self,
        late_body: &dyn LateBody,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Transition<T, S> {
        let sample = ProgressSample { moved: [self.connection.io.read(), 0], unacknowledged: None };
        let since = self.stall_timer.last_progress(sample, now);
        if let Some(next_check) = late_body.next_check(since, now) {
            worker.wake_at(slot, next_check);
            return Transition::Wait;
        }
        worker.server().note_client_timeout(ClientTimeout::Body, slot.peer(), None);
        self.take_parts().map_or(Transition::Close, |(io, _)| {
            Transition::linger(Lingering::after_response(io, Bytes::new()))
        })
    }

    fn on_quiet(
        &mut self,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Transition<T, S> {
        let called = self.connection.take_called();
        self.stall_timer.reset();
        self.connection.responses.record_responses_in(slot);
        slot.record_sent(self.connection.io.sent());
        if called {
            // The bytes that were read since the call were the request's body. A next head that
            // came with them stays in hyper's buffer, and is found there when the connection is
            // taken apart.
            self.connection.io.clear_received();
        }
        let draining = worker.server().phase() >= Phase::Draining;
        if self.connection.io.has_received() {
            let since = match self.state {
                Http1State::Reading { since } if !called => since,
                Http1State::Reading { .. } | Http1State::Busy | Http1State::Idle { .. } => now,
            };
            self.state = Http1State::Reading { since };
            slot.set_busy();
            let head = Idle { awaited: Awaited::Head, since };
            let until =
                head.deadline(&worker.server().config.limits, worker.server().draining_since());
            if now >= until {
                if self.connection.io.may_have_unread(now) {
                    slot.wake();
                    return Transition::Wait;
                }
                return self.take_parts().map_or(Transition::Close, |(io, _)| {
                    Transition::linger(Lingering::after_response(
                        io,
                        head_timeout_response(worker.server()),
                    ))
                });
            }
            worker.wake_at(slot, until);
            return Transition::Wait;
        }
        let since = match self.state {
            // A request may begin and end within one poll.
            Http1State::Idle { since } if !called => since,
            Http1State::Idle { .. } | Http1State::Busy | Http1State::Reading { .. } => now,
        };
        self.state = Http1State::Idle { since };
        slot.set_idle(Idle { awaited: Awaited::NextRequest, since });
        if draining
            || now >= since + PARK_AFTER
            || (called && worker.over_hyper_limit())
            || slot.is_evicted()
        {
            return match self.take_parts() {
                Some((io, read)) if is_blank(&read) => {
                    let rest = read.slice_ref(after_empty_lines(&read));
                    Transition::Park(io, rest, since)
                }
                // Part of a next head, which came with the last request.
                Some((io, read)) => Transition::StartHttp1(io, read, since),
                None => Transition::Close,
            };
        }
        if self.connection.responses.has_sent_large_chunk() {
            // hyper fixes its write strategy for the lifetime of a connection. A new one gets the
            // right strategy.
            slot.use_vectored_writes();
            return self
                .take_parts()
                .map_or(Transition::Close, |(io, read)| Transition::StartHttp1(io, read, since));
        }
        worker.wake_at(slot, since + PARK_AFTER);
        Transition::Wait
    }

    /// Handles the end of hyper's connection.
    fn end(&mut self, worker: &WorkerContext<S>) -> Transition<T, S> {
        if self.connection.io.is_flushed() {
            self.unflushed.settle_flushed(|| worker.server().clock.now());
        }
        let Some((io, read)) = self.take_parts() else {
            self.begin_upgrade(worker);
            return Transition::Close;
        };
        if let Some(cause) = self.connection.responses.abort_cause() {
            return self.end_aborted(worker, io, &read, cause);
        }
        let is_shut = !self.connection.io.is_shutting_down();
        close_after_response(io, &read, &self.connection, is_shut)
            .map_or(Transition::Close, Transition::linger)
    }

    /// Ends the connection after a response that was aborted: with an error response in its place
    /// if nothing of it was written, and otherwise with a reset (P5d). Earlier responses are not
    /// lost.
    fn end_aborted(
        &self,
        worker: &WorkerContext<S>,
        mut io: T,
        read: &Bytes,
        cause: AbortCause,
    ) -> Transition<T, S> {
        if self.connection.io.is_broken() {
            io.reset_on_drop();
            return Transition::Reset;
        }
        if self.connection.io.is_response_begun() {
            return Transition::linger(Lingering::before_reset(io));
        }
        let response = ErrorResponse::from(cause).last_response(worker.server());
        close_with(io, response, read, &self.connection).map_or(Transition::Close, |closing| {
            Transition::linger(closing.settling(self.unflushed.clone()))
        })
    }

    /// Drops the running request, because its client has shut its side.
    fn drop_request(&mut self) -> Transition<T, S> {
        let is_cut = self.connection.io.is_response_begun();
        match self.take_parts() {
            Some((io, _)) if is_cut => Transition::linger(Lingering::before_reset(io)),
            Some(_) | None => Transition::Close,
        }
    }

    /// Records that the connection speaks another protocol. The drain waits for it until its io is
    /// dropped.
    fn begin_upgrade(&self, worker: &WorkerContext<S>) {
        worker.server().metrics.upgraded.add_one();
        self.connection.begin_upgrade(worker.connection_tasks.token());
        if self.connection.io.is_io_dropped() && self.connection.upgrade.end_upgrade() {
            worker.server().metrics.upgraded_closed.add_one();
        }
    }

    /// Returns the transport, and the bytes that were read but belong to no request yet. `None` if
    /// it was upgraded.
    fn take_parts(&mut self) -> Option<(T, Bytes)> {
        self.hyper.take()?.into_transport()
    }

    /// Whether the connection waits for the handler, and not for the client.
    pub(super) fn awaits_handler(&self) -> bool {
        self.state == Http1State::Busy
            && !self.connection.io.is_write_blocked()
            && !self.connection.bodies.is_any_awaited()
    }

    /// Whether the running response is a long stream.
    pub(super) fn has_stream(&self) -> bool {
        self.connection.has_stream()
    }

    /// Whether the end of the connection cuts a response. An error response in place of the
    /// handler's belongs to no request in flight, and may not be written yet.
    fn is_any_cut(&self) -> bool {
        self.connection.is_in_flight()
            || self.connection.responses.has_unflushed()
            || self.connection.responses.is_aborted()
            || !self.connection.io.is_flushed()
    }

    /// Closes the connection to make room for another. A response that was begun must not look
    /// complete (P5d).
    pub(super) fn close_evicted(&mut self) {
        let is_cut = self.is_any_cut();
        let io = self.take_parts();
        match io {
            Some((mut io, _)) if is_cut => io.reset_on_drop(),
            Some((mut io, _)) => io.end_cleanly(),
            None => {}
        }
    }

    /// Ends the connection. Returns whether a request was cut by that.
    pub(super) fn cut(&mut self, abort_cause: AbortCause) -> bool {
        let is_cut = self.is_any_cut();
        if is_cut {
            self.connection.responses.set_abort_cause(abort_cause);
        }
        match self.take_parts() {
            Some((mut io, _)) if is_cut => io.reset_on_drop(),
            Some((io, _)) => close_at_once(io),
            None => {}
        }
        is_cut
    }
}

impl<T: Transport, S: HttpService> Drop for Http1<T, S> {
    fn drop(&mut self) {
        // The runtime may be dropped, and the connection with it. A response that is cut by that
        // must not look complete (P5d).
        let is_cut = self.is_any_cut();
        if let Some((mut io, _)) = self.take_parts()
            && is_cut
        {
            io.reset_on_drop();
        }
    }
}

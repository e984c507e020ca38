//! A connection that speaks HTTP/2, served by hyper.
//!
//! It announces its close with one graceful GOAWAY. In the lame duck delay the moment is drawn from
//! the seed, so that a fleet of clients does not reconnect at once (P4, see
//! [`announcement`](crate::http::server::announcement)).
//!
//! hyper waits without a timer for the PONG after the GOAWAY, and for a handshake that never
//! completes. Both have timers here (P6).

mod progress;
mod response_debt;

use self::response_debt::ResponseDebt;
use super::{
    http2_streams::StreamExecutor,
    lingering::{Lingering, close_at_once},
    partial_timer::PartialTimer,
    stall_timer::{Delivery, StallTimer},
    transition::Transition,
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        connection_state::{ConnectionState, Protocol},
        final_reads::FinalReads,
        http_service::HttpService,
        http2_input::{ENHANCE_YOUR_CALM, INTERNAL_ERROR},
        in_flight::UnflushedResponses,
        service::{CalledRequest, ConnectionService},
        tracked_io::{IoReturn, TrackedIo},
    },
    server::{
        abort::AbortCause,
        client_timeout::ClientTimeout,
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, Idle},
        limits::{CLIENT_CHECK_INTERVAL, FIRST_BYTE_GRACE, HEAD_GRACE, PONG_WAIT},
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Peek, Transport},
};
use bytes::Bytes;
use hyper::server::conn::http2::Connection as HyperConnection;
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

/// hyper's connection and what is tracked of it.
pub(super) struct Http2<T: Transport, S: HttpService> {
    /// `None` only after it was dropped.
    hyper: Option<HyperConnection<TokioIo<TrackedIo<T>>, ConnectionService<S>, StreamExecutor>>,
    io_return: IoReturn<T>,
    connection: Arc<ConnectionState>,
    unflushed: Arc<UnflushedResponses>,
    /// For a connection that was opened before the stop request: where in the delay its GOAWAY
    /// falls. A later connection has its moment in its announcement.
    jitter: u64,
    /// Whether a response was passed to hyper before its last poll, and so was written before any
    /// GOAWAY.
    responded: bool,
    goaway: Goaway,
    /// Whether a part of a response may be among the unflushed bytes.
    response_debt: ResponseDebt,
    since: Moment,
    /// When the last stream ended, or the connection began, and the bytes written; `None` if busy.
    idle_since: Option<(Moment, u64)>,
    seen_request: SeenRequest,
    partial: PartialTimer,
    /// How long bytes that the client sends delay the end of the idle connection.
    final_reads: FinalReads,
    /// How long bytes that are no part of an incomplete frame delay its time limit.
    partial_reads: FinalReads,
    stall_timer: StallTimer,
    /// The client's progress with the last bytes of a response.
    last_bytes: StallTimer,
    /// Bytes of data that had arrived when the clients of all late uploads were given up.
    given_up_at: Option<u64>,
    delivery: Delivery,
    /// Whether the kernel was queried for `delivery`.
    delivery_queried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goaway {
    NotYet,
    Sent { at: Moment },
}

/// Whether the client has sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeenRequest {
    No,
    Yes,
}

impl<T: Transport, S: HttpService> Http2<T, S> {
    pub(super) fn new(
        worker: &Arc<WorkerContext<S>>,
        slot: &ConnectionSlot,
        io: T,
        read: Bytes,
    ) -> Self {
        let connection =
            Arc::new(ConnectionState::new(Protocol::Http2, worker.shared.clone(), slot));
        let (since, number) = (worker.server().clock.now(), worker.next_connection_id());
        // A connection that was opened earlier and speaks HTTP/2 only now counts as opened now.
        connection.announcement.set(worker.server().announcement(since, || number));
        let called = CalledRequest::default();
        let service = ConnectionService::new(worker.service.clone(), connection.clone())
            .with_called(called.clone());
        let unflushed = service.unflushed().clone();
        let (io, io_return) = TrackedIo::returning(io, read, connection.clone(), &unflushed);
        let hyper = worker.http2(called).serve_connection(TokioIo::new(io), service);
        Self {
            hyper: Some(hyper),
            io_return,
            connection,
            unflushed,
            jitter: worker.server().config.seed.nth(number),
            responded: false,
            goaway: Goaway::NotYet,
            response_debt: ResponseDebt::Nothing,
            since,
            idle_since: None,
            seen_request: SeenRequest::No,
            partial: PartialTimer::default(),
            final_reads: FinalReads::default(),
            partial_reads: FinalReads::default(),
            stall_timer: StallTimer::default(),
            last_bytes: StallTimer::default(),
            given_up_at: None,
            delivery: Delivery::default(),
            delivery_queried: false,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Transition<T, S> {
        self.connection.io.inflow.begin_poll();
        let (mut has_peeked, mut called) = (false, false);
        loop {
            let Some(hyper) = &mut self.hyper else { return Transition::Close };
            self.connection.io.before_poll();
            self.responded = self.connection.responses.has_responded();
            if let Poll::Ready(ended) = Pin::new(hyper).poll(cx) {
                // Any other end of hyper is an error, or comes after a shutdown.
                let is_connect = ended.is_ok() && !self.connection.io.is_shutting_down();
                return if is_connect { self.refuse_connect(worker) } else { self.end(worker) };
            }
            self.connection.io.after_poll();
            let now = worker.server().clock.now();
            if self.connection.io.is_flushed() {
                self.unflushed.settle_flushed(|| now);
            } else {
                self.unflushed.set_slow();
            }
            if self.connection.take_called() {
                self.seen_request = SeenRequest::Yes;
                // A refused request is never in flight. Its response comes in a later poll.
                called = true;
            }
            self.response_debt.follow(called || self.has_response(), &self.connection);
            self.unflushed.settle_discarded();
            if self.connection.io.inflow.take_reads_held() {
                self.connection.io.inflow.on_requests_passed();
                if !self.connection.must_hold_reads() {
                    continue;
                }
            }
            if now >= self.goaway_moment(worker) {
                self.start_goaway(now);
                // Poll again, so that the GOAWAY is written.
                continue;
            }
            if now >= self.partial.until(&self.connection, now) && !has_peeked {
                // Read first what has arrived by now.
                has_peeked = true;
                self.connection.io.inflow.request_peek();
                self.connection.io.inflow.begin_poll();
                continue;
            }
            if !has_peeked {
                self.partial_reads.reset();
            } else if !self.may_complete_partial(now) {
                return self.give_up(ENHANCE_YOUR_CALM, b"the request head took too long");
            }
            return self.wait(cx, worker, slot, now);
        }
    }

    /// Closes a connection that hyper has dropped at a CONNECT with a `content-length`. The other
    /// requests are aborted.
    fn refuse_connect(&mut self, worker: &WorkerContext<S>) -> Transition<T, S> {
        if self.connection.io.is_flushed() {
            self.unflushed.settle_flushed(|| worker.server().clock.now());
        }
        self.connection.responses.set_abort_cause(AbortCause::Body);
        self.give_up(INTERNAL_ERROR, b"a CONNECT has no body")
    }

    /// Closes a connection because of what its client sends or does not send.
    fn give_up(&mut self, code: u8, why: &[u8]) -> Transition<T, S> {
        let goaway = if self.connection.io.is_write_blocked() {
            Bytes::new()
        } else {
            self.connection.io.inflow.goaway(code, why)
        };
        let is_any_cut = self.is_any_cut();
        drop(self.hyper.take());
        self.take_io().map_or(Transition::Close, |io| {
            Transition::linger(if is_any_cut {
                Lingering::after_cut(io, goaway)
            } else {
                Lingering::after_response(io, goaway)
            })
        })
    }

    fn wait(
        &mut self,
        cx: &Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Transition<T, S> {
        let partial_until = self.partial.until(&self.connection, now);
        let draining = worker.server().phase() >= Phase::Draining;
        let upload_until = self.upload_until(cx, worker, slot, now);
        if self.is_busy(now) || upload_until.is_some() {
            slot.set_busy();
            let stays = self.connection.is_in_flight() || upload_until.is_some();
            if stays && slot.take_makes_room() {
                worker.server().capacity.request_eviction();
            }
            self.idle_since = None;
            self.final_reads.reset();
            self.delivery = Delivery::default();
            self.delivery_queried = false;
            let goaway = self.goaway_moment(worker);
            let (since, until) = self.stalled(worker, now);
            if now >= until {
                return self.cut_stalled(worker, slot, since, now);
            }
            if self.has_stuck_response(worker, now) && self.goaway == Goaway::NotYet {
                worker.server().note_client_timeout(ClientTimeout::Send, slot.peer(), None);
                self.start_goaway(now);
                slot.wake();
            }
            self.connection.io.request_peek();
            let until = until.min(upload_until.unwrap_or(Moment::NEVER));
            worker.wake_at(
                slot,
                goaway.min(until).min(partial_until).min(now + CLIENT_CHECK_INTERVAL),
            );
            return Transition::Wait;
        }
        let written = self.connection.io.written();
        let (idle_since, written_before) = *self.idle_since.get_or_insert((now, written));
        let idle = match self.seen_request {
            SeenRequest::Yes => Idle { awaited: Awaited::NextRequest, since: idle_since },
            SeenRequest::No => Idle { awaited: Awaited::FirstByte, since: self.since },
        };
        // It may have served a request since it was chosen.
        let evicted = self.goaway == Goaway::NotYet
            && slot.take_evicted()
            && now >= worker.server().config.eviction_grace.ends(idle);
        let until = match (self.goaway, self.seen_request) {
            // Also if it was busy in the meantime: otherwise a peer that never returns the PONG
            // could send requests without end.
            (Goaway::Sent { at }, SeenRequest::Yes) => idle_since.max(at + PONG_WAIT),
            (Goaway::Sent { at }, SeenRequest::No) => at + HEAD_GRACE,
            (Goaway::NotYet, _) if evicted => now,
            (Goaway::NotYet, SeenRequest::Yes) => {
                idle_since + worker.server().config.limits.keep_alive
            }
            (Goaway::NotYet, SeenRequest::No) => {
                self.since + worker.server().config.limits.header_timeout
            }
        };
        let until = match (self.goaway, self.partial.head_since()) {
            // The request that has begun has the time of half a head.
            (Goaway::Sent { at }, Some(since)) => {
                until.max((since + HEAD_GRACE).min(at + PONG_WAIT + HEAD_GRACE))
            }
            (Goaway::NotYet, _) | (_, None) => until,
        };
        if now < until {
            self.final_reads.reset();
            if self.goaway == Goaway::NotYet {
                slot.set_idle(idle);
            }
            let goaway = self.goaway_moment(worker);
            let timeout = worker.server().config.limits.send_timeout;
            if now >= self.delivery.next_check(idle_since, timeout) {
                if !std::mem::replace(&mut self.delivery_queried, true) {
                    self.connection.io.request_unacknowledged();
                    slot.wake();
                    return Transition::Wait;
                }
                self.delivery_queried = false;
                // What was written since, such as the response to a PING, is acknowledged last.
                let newer = written.saturating_sub(written_before);
                let of_responses = self.connection.io.unacknowledged().saturating_sub(newer);
                if self.delivery.expired(of_responses, now) {
                    return self.cut_stalled(worker, slot, idle_since, now);
                }
            }
            let delivery = self.delivery.next_check(idle_since, timeout);
            worker.wake_at(slot, until.min(goaway).min(delivery).min(partial_until));
            return Transition::Wait;
        }
        if evicted && !worker.server().tracks_close_races() {
            // A client of the internal server retries, and a new connection waits for the place.
            worker.server().metrics.evicted.add_one();
            return Transition::Close;
        }
        if self.goaway == Goaway::NotYet && !draining {
            // The keep-alive time expired, or the connection makes room: announce the close, as in
            // a stop.
            self.start_goaway(now);
            slot.set_busy();
            if evicted {
                slot.make_room();
                worker.server().metrics.evicted.add_one();
            }
            worker.wake_at(slot, now + PONG_WAIT);
            slot.wake();
            return Transition::Wait;
        }
        // The peer has no stream open, and owes a PONG or the rest of a handshake. It may send
        // frames without an end.
        if self.final_reads.may_delay(now) && self.connection.io.may_have_unread(now) {
            slot.wake();
            return Transition::Wait;
        }
        self.end(worker)
    }

    /// Whether one of its responses is a long stream.
    pub(super) fn has_stream(&self) -> bool {
        self.connection.has_stream()
    }

    /// Whether a stream waits for its handler, and not for the client.
    pub(super) fn awaits_handler(&self) -> bool {
        self.connection.are_handlers_running()
    }

    /// Whether bytes that have arrived may complete the frame whose time is over.
    fn may_complete_partial(&mut self, now: Moment) -> bool {
        let until = self.partial.until(&self.connection, now);
        now < until && (until < Moment::NEVER || self.partial_reads.may_delay(now))
    }

    fn start_goaway(&mut self, now: Moment) {
        self.goaway = Goaway::Sent { at: now };
        if let Some(hyper) = &mut self.hyper {
            Pin::new(hyper).graceful_shutdown();
        }
    }

    /// Returns when this connection sends its GOAWAY; `NEVER` if it has sent it, or before a stop,
    /// unless it has an age limit or its transport is spent.
    fn goaway_moment(&self, worker: &WorkerContext<S>) -> Moment {
        if self.goaway != Goaway::NotYet {
            return Moment::NEVER;
        }
        let (server, announcement) = (&worker.server(), self.connection.announcement.get());
        match server.phase() {
            Phase::Starting | Phase::Serving => announcement.aged_at(),
            Phase::LameDuck => announcement
                .goaway_at(server.lame_duck(), self.jitter, self.responded)
                .max(self.first_request_until()),
            Phase::Draining => self.first_request_until(),
            Phase::Cancelling | Phase::CleaningUp | Phase::Stopped => Moment::EPOCH,
        }
    }

    /// Returns until when a new client may send its first request before it gets a GOAWAY. It may
    /// wait for our SETTINGS before its first request. With an immediate GOAWAY it would never send
    /// one, neither here nor on its next connection.
    fn first_request_until(&self) -> Moment {
        match self.seen_request {
            SeenRequest::Yes => Moment::EPOCH,
            SeenRequest::No => self.since + FIRST_BYTE_GRACE,
        }
    }

    fn end(&mut self, worker: &WorkerContext<S>) -> Transition<T, S> {
        let has_buffered = self.connection.responses.has_buffered();
        drop(self.hyper.take());
        let has_discarded = has_buffered || self.unflushed.has_discarded();
        // hyper may end without an error before it has written everything.
        if self.connection.io.is_flushed() {
            self.unflushed.settle_flushed(|| worker.server().clock.now());
        }
        let Some(mut io) = self.take_io() else { return Transition::Close };
        // If the client ends its side at a frame's end, hyper ends cleanly, whatever is in flight.
        if has_discarded || self.is_any_cut() {
            io.mark_cut();
        }
        // Before the last look for input: what arrives after that must not replace the FIN.
        let _ = Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        io.read_ahead();
        if self.seen_request == SeenRequest::No {
            return Transition::linger(Lingering::brief(io));
        }
        if io.peek() == Peek::Data {
            return Transition::linger(Lingering::after_response(io, Bytes::new()));
        }
        // A client that receives also sends: its window updates would arrive at a closed
        // connection, and the reset would discard what it has not received.
        let may_send = worker.server().phase() < Phase::Draining;
        if may_send || io.unacknowledged().is_some_and(|bytes| bytes > 0) {
            return Transition::linger(Lingering::until_acked(io));
        }
        io.end_cleanly();
        Transition::Close
    }

    /// Whether an end of the connection now would cut a response. An error response in place of the
    /// handler's belongs to no request in flight, and may not be written yet.
    fn is_any_cut(&self) -> bool {
        self.has_response() || !self.connection.io.is_flushed()
    }

    /// Whether a response has not ended, or was not written.
    fn has_response(&self) -> bool {
        self.connection.is_in_flight()
            || self.connection.responses.has_unflushed()
            || self.connection.responses.has_buffered()
    }

    /// Whether something is left to do. A client does not hold the connection by HTTP/2's own
    /// frames, such as PINGs whose responses it does not read, except for its time to receive the
    /// GOAWAY.
    fn is_busy(&self, now: Moment) -> bool {
        let has_time = |at| now < at + PONG_WAIT + HEAD_GRACE;
        let may_receive_goaway = matches!(self.goaway, Goaway::Sent { at } if has_time(at));
        let waits_for_flush = self.response_debt.is_open() || may_receive_goaway;
        self.has_response() || waits_for_flush && !self.connection.io.is_flushed()
    }

    fn take_io(&self) -> Option<T> {
        self.io_return.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the connection without a reset. A client never takes a stream without its end for
    /// complete (P5d). A reset would discard complete responses on other streams that are still on
    /// their way.
    pub(super) fn cut(&mut self) {
        let is_any_cut = self.is_any_cut();
        drop(self.hyper.take());
        if let Some(mut io) = self.take_io() {
            if is_any_cut {
                io.mark_cut();
            }
            close_at_once(io);
        }
    }
}

impl<T: Transport, S: HttpService> Drop for Http2<T, S> {
    fn drop(&mut self) {
        drop(self.hyper.take());
    }
}

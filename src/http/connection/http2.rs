//! A connection that speaks HTTP/2, with hyper as its guest.
//!
//! It announces its close with one graceful GOAWAY: in the lame duck delay at a moment that is drawn
//! from the seed, so that a fleet of clients does not reconnect at once (P4, see
//! [`announcement`](crate::http::server::announcement)). hyper waits without a timer for the PONG behind the GOAWAY and for a
//! handshake that never ends; both have timers here (P6).

use super::{
    http2_streams::StreamExecutor,
    lingering::{Lingering, close_at_once},
    stall_timer::{Delivery, ProgressSample, StallTimer},
    transition::Transition,
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        connection_state::{ConnectionState, Protocol},
        http2_input::Partial,
        service::{CalledRequest, ConnectionService, HttpService},
        tracked_io::{IoReturn, TrackedIo},
        unflushed::UnflushedResponses,
    },
    server::{
        abort::AbortCause,
        announcement::Announcement,
        client_timeout::ClientTimeout,
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, Idle},
        limits::{FIRST_BYTE_GRACE, GONE_CHECK, HEAD_GRACE, PONG_WAIT, STREAMS_FIRST},
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
    task::{Context, Poll},
    time::Duration,
};

/// hyper's connection and what we see of it.
pub(crate) struct Http2<T: Transport, S: HttpService> {
    /// `None` only once it was dropped.
    hyper: Option<HyperConnection<TokioIo<TrackedIo<T>>, ConnectionService<S>, StreamExecutor>>,
    io_return: IoReturn<T>,
    connection: Arc<ConnectionState>,
    unflushed: Arc<UnflushedResponses>,
    /// Chooses the moment of the GOAWAY within the delay.
    jitter: u64,
    announcement: Announcement,
    /// A response was handed to hyper before it was last polled, and so has left before a GOAWAY.
    responded: bool,
    goaway: Goaway,
    since: Moment,
    /// When the last stream ended, or the connection began.
    idle_since: Option<Moment>,
    seen_request: SeenRequest,
    /// A frame or a header block is incomplete, since then: its kind, what it is known by, and when it was first seen so.
    partial: Option<(Partial, u64, Moment)>,
    stall_timer: StallTimer,
    /// The client's, with the last bytes of a response.
    last_bytes: StallTimer,
    delivery: Delivery,
    /// Whether the kernel was asked for what `delivery` is to know.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goaway {
    NotYet,
    Sent { at: Moment },
}

/// Whether the peer ever got as far as a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeenRequest {
    No,
    Yes,
}

impl<T: Transport, S: HttpService> Http2<T, S> {
    pub(crate) fn new(
        worker: &Arc<WorkerContext<S>>,
        slot: &ConnectionSlot,
        io: T,
        read: Bytes,
    ) -> Self {
        let connection =
            Arc::new(ConnectionState::new(Protocol::Http2, worker.shared.clone(), slot));
        let called = CalledRequest::default();
        let service = ConnectionService::new(worker.service.clone(), connection.clone())
            .with_called(called.clone());
        let unflushed = service.unflushed().clone();
        let (io, io_return) = TrackedIo::returning(io, read, connection.clone(), &unflushed);
        let hyper = worker.http2(called).serve_connection(TokioIo::new(io), service);
        let (since, number) = (worker.server().clock.now(), worker.next_connection_id());
        Self {
            hyper: Some(hyper),
            io_return,
            connection,
            unflushed,
            jitter: worker.server().config.seed.nth(number),
            // One that was opened earlier and is only now used for HTTP/2 begins now.
            announcement: worker.server().announcement(since, || number),
            responded: false,
            goaway: Goaway::NotYet,
            since,
            idle_since: None,
            seen_request: SeenRequest::No,
            partial: None,
            stall_timer: StallTimer::default(),
            last_bytes: StallTimer::default(),
            delivery: Delivery::default(),
            asked: false,
        }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Transition<T, S> {
        self.connection.inflow.begin_turn();
        let mut looked = false;
        loop {
            let Some(hyper) = &mut self.hyper else { return Transition::Close };
            self.connection.before_poll();
            self.responded = self.connection.has_responded();
            if let Poll::Ready(result) = Pin::new(hyper).poll(cx) {
                return self.end(worker, result.is_ok());
            }
            self.connection.after_poll();
            let now = worker.server().clock.now();
            if self.connection.is_flushed() {
                self.unflushed.settle_flushed(|| now);
            } else {
                self.unflushed.list();
            }
            self.unflushed.settle_thrown_away();
            if self.connection.inflow.take_held() && !self.connection.must_hold_reads() {
                continue;
            }
            if self.connection.take_called() {
                self.seen_request = SeenRequest::Yes;
            }
            if self.goaway == Goaway::NotYet && now >= self.goaway_moment(worker) {
                self.start_goaway(now);
                // Polled once more, so that the GOAWAY leaves.
                continue;
            }
            if now >= self.partial_until(worker, now) {
                if looked {
                    return self.give_up();
                }
                // What has arrived by now is read first.
                looked = true;
                self.connection.inflow.request_peek();
                self.connection.inflow.begin_turn();
                continue;
            }
            return self.wait(worker, slot, now);
        }
    }

    /// When the frame or the header block must be complete that the client has begun; `NEVER` if it has begun none, or is not read
    /// from. A body may come slowly: for a frame of it only the time counts in which no byte comes.
    fn partial_until(&mut self, worker: &WorkerContext<S>, now: Moment) -> Moment {
        let limits = &worker.server().config.limits;
        let partial = self.connection.inflow.awaited();
        let (unit, wait) = match partial {
            Partial::None => (0, Duration::MAX),
            Partial::Head => (self.connection.inflow.whole(), limits.header_timeout),
            Partial::Data => {
                (self.connection.read(), limits.body_timeout.max(limits.header_timeout))
            }
        };
        let since = match self.partial {
            Some((last, of, since)) if (last, of) == (partial, unit) => since,
            _ => now,
        };
        self.partial = (partial != Partial::None).then_some((partial, unit, since));
        since + wait
    }

    /// The client takes too long for a head or a frame. Nothing else can come of it: HTTP/2 has no way around an incomplete frame.
    fn give_up(&mut self) -> Transition<T, S> {
        let goaway = if self.connection.is_write_blocked() {
            Bytes::new()
        } else {
            self.connection.inflow.goaway()
        };
        drop(self.hyper.take());
        self.take_io().map_or(Transition::Close, |io| {
            Transition::linger(Lingering::after_response(io, goaway))
        })
    }

    fn wait(
        &mut self,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Transition<T, S> {
        let partial_until = self.partial_until(worker, now);
        let draining = worker.server().phase() >= Phase::Draining;
        // An answer in a handler's place is nobody's any more, and may not have left yet.
        let busy = self.connection.is_in_flight()
            || self.connection.has_unflushed()
            || !self.connection.is_flushed();
        if busy {
            slot.set_busy();
            self.idle_since = None;
            self.delivery = Delivery::default();
            self.asked = false;
            let goaway = if self.goaway == Goaway::NotYet {
                self.goaway_moment(worker)
            } else {
                Moment::NEVER
            };
            let (since, until) = self.stalled(worker, now);
            if now >= until {
                return self.cut_stalled(worker, slot, since, now);
            }
            if self.has_stuck_response(worker, now) && self.goaway == Goaway::NotYet {
                worker.server().note_client_timeout(ClientTimeout::Send, &slot.peer, None);
                self.start_goaway(now);
                slot.wake();
            }
            self.connection.request_peek();
            worker.wake_at(slot, goaway.min(until).min(partial_until).min(now + GONE_CHECK));
            return Transition::Wait;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        let evicted = self.goaway == Goaway::NotYet && slot.take_evicted();
        let until = match (self.goaway, self.seen_request) {
            // However busy it was meanwhile: a peer that never answers may ask for more as long as it likes.
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
        if now < until {
            if self.goaway == Goaway::NotYet {
                slot.set_idle(match self.seen_request {
                    SeenRequest::Yes => Idle { awaited: Awaited::NextRequest, since: idle_since },
                    SeenRequest::No => Idle { awaited: Awaited::FirstByte, since: self.since },
                });
            }
            let goaway = if self.goaway == Goaway::NotYet {
                self.goaway_moment(worker)
            } else {
                Moment::NEVER
            };
            let timeout = worker.server().config.limits.send_timeout;
            if now >= self.delivery.look_at(idle_since, timeout) {
                if !std::mem::replace(&mut self.asked, true) {
                    self.connection.want_unacknowledged();
                    slot.wake();
                    return Transition::Wait;
                }
                self.asked = false;
                if self.delivery.expired(self.connection.unacknowledged(), now) {
                    return self.cut_stalled(worker, slot, idle_since, now);
                }
            }
            let delivery = self.delivery.look_at(idle_since, timeout);
            worker.wake_at(slot, until.min(goaway).min(delivery).min(partial_until));
            return Transition::Wait;
        }
        if evicted && !worker.server().tracks_close_races() {
            // A client of the internal server asks again; a new connection waits for the place.
            worker.server().metrics.evicted.add_one();
            return Transition::Close;
        }
        if self.goaway == Goaway::NotYet && !draining {
            // Idle for longer than anybody keeps a connection, or to make room: told to go like in a stop.
            self.start_goaway(now);
            slot.set_busy();
            if evicted {
                worker.server().metrics.evicted.add_one();
            }
            worker.wake_at(slot, now + PONG_WAIT);
            slot.wake();
            return Transition::Wait;
        }
        // A peer that owes us a PONG, or the rest of a handshake, and has no stream open.
        if self.connection.may_have_unread() {
            slot.wake();
            return Transition::Wait;
        }
        self.end(worker, true)
    }

    /// Whether the next step is the service's on a stream, and not the client's.
    pub(crate) fn awaits_handler(&self) -> bool {
        self.connection.are_handlers_running()
    }

    /// Since when the client makes no progress on the whole connection, and when it is given up; `NEVER` if it is not waited for.
    ///
    /// Bytes that cannot be written are its fault, whatever the handlers do. Those that its windows hold back are if nothing else
    /// happens; a PING that it sends, and we answer, is no sign that it reads then. A stream has a timeout of its own
    /// ([`streams`](super::http2_streams)), which comes first.
    fn stalled(&mut self, worker: &WorkerContext<S>, now: Moment) -> (Moment, Moment) {
        let connection = &self.connection;
        let has_buffered = connection.has_buffered() && !connection.are_handlers_running();
        if connection.is_flushed() && !has_buffered {
            self.stall_timer.reset();
            return (now, Moment::NEVER);
        }
        let (written, grace) = if connection.is_flushed() {
            (0, STREAMS_FIRST)
        } else {
            (connection.written(), Duration::ZERO)
        };
        let sample = ProgressSample {
            moved: [connection.delivered(), written],
            unacknowledged: connection.unacknowledged(),
        };
        let since = self.stall_timer.last_progress(sample, now);
        (since, worker.server().gives_up(since, ClientTimeout::Send) + grace)
    }

    fn start_goaway(&mut self, now: Moment) {
        self.goaway = Goaway::Sent { at: now };
        if let Some(hyper) = &mut self.hyper {
            Pin::new(hyper).graceful_shutdown();
        }
    }

    /// Whether the last bytes of a response wait for the client for too long. Its stream is out of hyper's hands and cannot be reset. So
    /// the connection takes no other one, and is cut when nothing else moves.
    fn has_stuck_response(&mut self, worker: &WorkerContext<S>, now: Moment) -> bool {
        let Some(moved) = self.unflushed.first().filter(|_| self.connection.is_flushed()) else {
            self.last_bytes.reset();
            return false;
        };
        let since = self.last_bytes.last_progress(ProgressSample { moved, unacknowledged: 0 }, now);
        now >= worker.server().gives_up(since, ClientTimeout::Send)
    }

    /// Nothing of a response gets through any more: the connection is cut.
    fn cut_stalled(
        &mut self,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        since: Moment,
        now: Moment,
    ) -> Transition<T, S> {
        worker.server().note_client_timeout(ClientTimeout::Send, &slot.peer, None);
        let abort_cause = worker.server().given_up_by(since, ClientTimeout::Send, now);
        self.connection.set_abort_cause(abort_cause);
        if abort_cause == AbortCause::Shutdown {
            self.cut();
            return Transition::Close;
        }
        drop(self.hyper.take());
        let Some(mut io) = self.take_io() else { return Transition::Close };
        // The kernel would keep for minutes what it holds for this client.
        io.reset_on_drop();
        Transition::Reset
    }

    /// When this connection is told to go; `NEVER` before a stop.
    fn goaway_moment(&self, worker: &WorkerContext<S>) -> Moment {
        let server = &worker.server();
        match server.phase() {
            Phase::Starting | Phase::Serving => Moment::NEVER,
            Phase::LameDuck => self
                .announcement
                .goaway_at(server.lame_duck(), self.jitter, self.responded)
                .max(self.first_request_until()),
            Phase::Draining => self.first_request_until(),
            Phase::Cancelling | Phase::CleaningUp | Phase::Stopped => Moment::EPOCH,
        }
    }

    /// Who has just connected may wait for our SETTINGS before it asks. Told to go at once it would never ask anything, here nor
    /// at its next connect.
    fn first_request_until(&self) -> Moment {
        match self.seen_request {
            SeenRequest::Yes => Moment::EPOCH,
            SeenRequest::No => self.since + FIRST_BYTE_GRACE,
        }
    }

    /// hyper is done with the connection, or we are.
    fn end(&mut self, worker: &WorkerContext<S>, clean: bool) -> Transition<T, S> {
        drop(self.hyper.take());
        if clean || self.connection.is_flushed() {
            self.unflushed.settle_flushed(|| worker.server().clock.now());
        }
        let Some(io) = self.take_io() else { return Transition::Close };
        if self.seen_request == SeenRequest::No {
            return Transition::linger(Lingering::brief(io));
        }
        if io.peek() == Peek::Data {
            return Transition::linger(Lingering::after_response(io, Bytes::new()));
        }
        // A client that receives sends, too: the windows that it opens would meet a closed connection, and the reset destroys what
        // it has not received.
        let may_send = worker.server().phase() < Phase::Draining;
        if may_send || io.unacknowledged().is_some_and(|bytes| bytes > 0) {
            return Transition::linger(Lingering::until_acked(io));
        }
        Transition::Close
    }

    fn take_io(&self) -> Option<T> {
        self.io_return.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends whatever goes on. A stream that did not come to its end is whole to nobody, so that the connection need not be reset: that
    /// would destroy answers on other streams that are whole, and still on their way.
    pub(crate) fn cut(&mut self) {
        drop(self.hyper.take());
        if let Some(io) = self.take_io() {
            close_at_once(io);
        }
    }
}

impl<T: Transport, S: HttpService> Drop for Http2<T, S> {
    fn drop(&mut self) {
        drop(self.hyper.take());
    }
}

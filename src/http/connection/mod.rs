//! One connection, from its accept to its close. It is ours; hyper is a guest in it.
//!
//! ```text
//!        HTTP/1 that is not plain, or takes time     over, and bytes unread
//!  Parked ───────────────────────▶ Http1 ─────────────────────▶ Lingering ──▶ closed
//!  │ │  ▲                            │                              ▲
//!  │ │  └──── idle, nothing buffered ┘                              │
//!  └─┘              the preface of HTTP/2                           │
//!  plain ├───────────────────────▶ Http2 ───────────────────────────┤
//!    └──────────── told to go ──────────────────────────────────────┘
//! ```
//!
//! A parked connection may go to sleep, which ends its task and not the connection: see [`deep`](self::idle_set).
//!
//! In the drain each state is polled once before it is told anything, so that what the kernel already holds is seen (P5).

pub(super) mod http1;
pub(super) mod http2;
pub(super) mod http2_streams;
mod hyper_timer;
pub(super) mod idle_set;
pub(super) mod lingering;
pub(super) mod parked;
pub(super) mod stall_timer;
pub(super) mod worker_context;

use self::{
    http1::Http1,
    http2::Http2,
    idle_set::{IdleHandoff, IdleInfo},
    lingering::Lingering,
    parked::{Parked, ReceivedAny},
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::service::HttpService,
    fast_path::serve::HyperHandoff,
    server::{
        abort::AbortCause, connection_slot::ConnectionSlot, counters::Gauge, idle_policy::Awaited,
        worker_metrics::WorkerMetrics,
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::Transport,
};
use bytes::Bytes;
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::task::yield_now;

/// The future of one connection.
pub(crate) struct Connection<T: Transport, S: HttpService> {
    worker: Arc<WorkerContext<S>>,
    slot: Arc<ConnectionSlot>,
    idle_handoff: Arc<IdleHandoff<T>>,
    state: State<T, S>,
    /// Polls that are left once the connection is to be cut. The abort may have come in the same breath, and its 503s want to be
    /// written: by HTTP/2 streams, which are tasks of their own, and then by their connection.
    polls_before_cut: u8,
}

const POLLS_BEFORE_CUT: u8 = 3;

pub(crate) enum State<T: Transport, S: HttpService> {
    Parked(Parked<T, S>),
    Http1(Box<Http1<T, S>>),
    Http2(Box<Http2<T, S>>),
    Lingering(Box<Lingering<T>>),
    /// Somebody else's by now: see [`deep`](self::idle_set).
    Suspended,
    Closed,
}

impl<T: Transport, S: HttpService> State<T, S> {
    /// Where a connection in this state is counted. HTTP/1 counts itself, since it does so anyway; those that are in none are
    /// parked.
    const fn gauge<'a>(&self, metrics: &'a WorkerMetrics) -> Option<&'a Gauge> {
        match self {
            Self::Http2(_) => Some(&metrics.http2),
            Self::Lingering(_) => Some(&metrics.lingering),
            Self::Parked(_) | Self::Http1(_) | Self::Suspended | Self::Closed => None,
        }
    }
}

/// What a state wants after it was polled.
pub(crate) enum Transition<T, S: HttpService> {
    /// To be polled again when woken.
    Wait,
    /// To wait without a protocol, having read these bytes, which are at most half an empty line.
    Park(T, Bytes),
    /// To speak HTTP/1, having read these bytes.
    StartHttp1(T, Bytes),
    /// To speak HTTP/1, where it was spoken without hyper so far.
    ResumeHttp1(T, Box<HyperHandoff<S>>),
    /// To speak HTTP/2, having read these bytes.
    StartHttp2(T, Bytes),
    /// To be parked deep, without a task: since when it waits, and whether it has ever sent anything.
    Suspend(T, Moment, ReceivedAny),
    /// To close without losing an answer.
    Linger(Box<Lingering<T>>),
    /// To be dropped.
    Close,
    /// To be dropped, and with it an answer that was cut: the drop resets it.
    Reset,
}

impl<T, S: HttpService> Transition<T, S> {
    pub(crate) fn linger(lingering: Lingering<T>) -> Self {
        Self::Linger(Box::new(lingering))
    }
}

impl<T: Transport, S: HttpService> Connection<T, S> {
    pub(crate) fn new(
        worker: Arc<WorkerContext<S>>,
        slot: Arc<ConnectionSlot>,
        idle_handoff: Arc<IdleHandoff<T>>,
        io: T,
    ) -> Self {
        worker.server().metrics.accepted.add_one();
        Self::resumed(worker, slot, idle_handoff, State::Parked(Parked::new(io)))
    }

    /// One that was accepted before.
    pub(crate) fn resumed(
        worker: Arc<WorkerContext<S>>,
        slot: Arc<ConnectionSlot>,
        idle_handoff: Arc<IdleHandoff<T>>,
        state: State<T, S>,
    ) -> Self {
        if let Some(gauge) = state.gauge(&worker.shared.metrics) {
            gauge.add_one();
        }
        Self { worker, slot, idle_handoff, state, polls_before_cut: POLLS_BEFORE_CUT }
    }
}

impl<T: Transport, S: HttpService> Future for Connection<T, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        me.slot.register(cx.waker());
        loop {
            if me.worker.server().is_cutting() && me.polls_before_cut == 0 {
                me.cut();
                return Poll::Ready(());
            }
            let (worker, slot) = (&me.worker, &*me.slot);
            let transition = match &mut me.state {
                State::Parked(parked) => parked.poll(cx, worker, slot, &me.idle_handoff),
                State::Http1(http1) => http1.poll(cx, worker, slot),
                State::Http2(http2) => http2.poll(cx, worker, slot),
                State::Lingering(lingering) => lingering.poll(cx, worker, slot),
                State::Suspended | State::Closed => return Poll::Ready(()),
            };
            let state = match transition {
                Transition::Wait => {
                    if me.worker.server().evicts_busy() && me.makes_room() {
                        me.oust();
                        return Poll::Ready(());
                    }
                    if me.worker.server().is_cutting() {
                        me.polls_before_cut -= 1;
                        // After all who were woken before: a plain wake could overtake them.
                        let _ = pin!(yield_now()).poll(cx);
                    }
                    return Poll::Pending;
                }
                Transition::Park(io, read) => State::Parked(Parked::after_request(io, &read)),
                Transition::StartHttp1(io, read) => {
                    State::Http1(Box::new(Http1::new(worker, slot, io, read)))
                }
                Transition::ResumeHttp1(io, handoff_to_hyper) => {
                    State::Http1(Box::new(Http1::resume(worker, io, *handoff_to_hyper)))
                }
                Transition::StartHttp2(io, read) => {
                    State::Http2(Box::new(Http2::new(worker, slot, io, read)))
                }
                Transition::Suspend(io, since, received_any) => {
                    let (peer, local) = (slot.peer.clone(), slot.local.clone());
                    // Its first poll may have come late.
                    let since = if received_any == ReceivedAny::No { slot.accepted } else { since };
                    let (announcement, responded) = (slot.announcement, slot.has_responded());
                    match me.idle_handoff.push(
                        io,
                        IdleInfo { since, peer, local, received_any, announcement, responded },
                    ) {
                        Ok(()) => State::Suspended,
                        Err(io) => State::Parked(Parked::resumed(io, &[], received_any, since)),
                    }
                }
                Transition::Linger(lingering) => State::Lingering(lingering),
                Transition::Reset => {
                    worker.server().metrics.reset.add_one();
                    State::Closed
                }
                Transition::Close => {
                    if worker.server().phase() >= Phase::Draining {
                        worker.server().metrics.drained.add_one();
                    }
                    State::Closed
                }
            };
            drop(me.transition(state));
        }
    }
}

impl<T: Transport, S: HttpService> Connection<T, S> {
    /// Goes over to another state; the one it was in.
    fn transition(&mut self, state: State<T, S>) -> State<T, S> {
        let metrics = &self.worker.shared.metrics;
        if let Some(gauge) = state.gauge(metrics) {
            gauge.add_one();
        }
        if let Some(gauge) = self.state.gauge(metrics) {
            gauge.take_one();
        }
        self.slot.set_busy();
        std::mem::replace(&mut self.state, state)
    }

    /// Whether the connection is closed in the middle of something, to make room for another.
    fn makes_room(&self) -> bool {
        let slot = &self.slot;
        if slot.idle().is_some() {
            slot.clear_waiting();
            return false;
        }
        if slot.evictable().is_some() && slot.take_evicted() {
            return true;
        }
        let awaits_handler = match &self.state {
            State::Http1(http1) => http1.awaits_handler(),
            State::Http2(http2) => http2.awaits_handler(),
            State::Parked(_) | State::Lingering(_) | State::Suspended | State::Closed => false,
        };
        let awaited = if awaits_handler { Awaited::Handler } else { Awaited::Client };
        slot.set_waiting(awaited, self.worker.server().clock.now());
        false
    }

    fn oust(&mut self) {
        self.worker.server().metrics.evicted.add_one();
        if let State::Http1(mut http1) = self.transition(State::Closed) {
            http1.oust();
        }
    }

    /// The drain and the cancel wait are over: whatever is left ends here, and must not look whole.
    fn cut(&mut self) {
        let was_reset = match self.transition(State::Closed) {
            State::Http1(mut http1) => http1.cut(AbortCause::Shutdown),
            State::Http2(mut http2) => {
                http2.cut();
                false
            }
            State::Parked(parked) => {
                if parked.is_idle() {
                    self.worker.server().metrics.note_untold(&self.slot);
                }
                false
            }
            State::Lingering(_) | State::Suspended | State::Closed => false,
        };
        let metrics = &self.worker.server().metrics;
        if was_reset { metrics.reset.add_one() } else { metrics.drained.add_one() }
    }
}

impl<T: Transport, S: HttpService> Drop for Connection<T, S> {
    fn drop(&mut self) {
        // Counted out first, dropped last.
        let last = self.transition(State::Closed);
        self.slot.leave();
        if matches!(last, State::Suspended) {
            return;
        }
        self.worker.server().metrics.closed.add_one();
        self.worker.on_connection_closed();
    }
}

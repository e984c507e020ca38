//! The future of one connection.

use super::{
    http1::Http1,
    http2::Http2,
    idle_handoff::{IdleHandoff, IdleInfo, IdleState, saturated},
    lingering::Lingering,
    opening::Opening,
    parked::Parked,
    transition::{ReceivedAny, Transition},
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::http_service::HttpService,
    server::{
        abort::AbortCause,
        connection_slot::ConnectionSlot,
        idle_policy::Awaited,
        worker_metrics::{Counted, WorkerMetrics},
    },
};
use crate::{
    lifecycle::Phase,
    runtime::{Opening as OpeningState, Transport},
};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::task::yield_now;

/// Runs one connection through its states.
pub(crate) struct Connection<T: Transport, S: HttpService> {
    worker: Arc<WorkerContext<S>>,
    slot: Arc<ConnectionSlot>,
    idle_handoff: Arc<IdleHandoff<T>>,
    /// Declared before the state, so that the gauge is updated before the connection is dropped.
    counted: Option<Counted>,
    state: State<T, S>,
    /// Polls left before the connection is cut. The cut may follow the abort at once, and the 503s
    /// of the abort must still be written: by HTTP/2 streams, which are tasks of their own, then by
    /// their connection.
    polls_before_cut: u8,
}

const POLLS_BEFORE_CUT: u8 = 3;

pub(super) enum State<T: Transport, S: HttpService> {
    Opening(Opening<T>),
    Parked(Parked<T, S>),
    Http1(Box<Http1<T, S>>),
    Http2(Box<Http2<T, S>>),
    Lingering(Box<Lingering<T>>),
    /// The socket was moved into the [idle set](super::idle_set).
    Suspended,
    Closed,
}

impl<T: Transport, S: HttpService> State<T, S> {
    /// The gauge of this state. Connections in a state without one count as parked.
    fn counted(&self, metrics: &Arc<WorkerMetrics>) -> Option<Counted> {
        match self {
            Self::Opening(_) => Some(Counted::new(metrics, |metrics| &metrics.opening)),
            Self::Http1(_) => Some(Counted::new(metrics, |metrics| &metrics.http1)),
            Self::Http2(_) => Some(Counted::new(metrics, |metrics| &metrics.http2)),
            Self::Lingering(_) => Some(Counted::new(metrics, |metrics| &metrics.lingering)),
            Self::Parked(_) | Self::Suspended | Self::Closed => None,
        }
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
        let state = match io.opening() {
            OpeningState::Done => State::Parked(Parked::new(io)),
            OpeningState::Silent | OpeningState::Header | OpeningState::Begun => {
                State::Opening(Opening::new(io))
            }
        };
        Self::resumed(worker, slot, idle_handoff, state)
    }

    /// Creates the future of a connection that was accepted earlier.
    pub(super) fn resumed(
        worker: Arc<WorkerContext<S>>,
        slot: Arc<ConnectionSlot>,
        idle_handoff: Arc<IdleHandoff<T>>,
        state: State<T, S>,
    ) -> Self {
        let counted = state.counted(&worker.shared.metrics);
        Self { worker, slot, idle_handoff, counted, state, polls_before_cut: POLLS_BEFORE_CUT }
    }
}

impl<T: Transport, S: HttpService> Future for Connection<T, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.slot.register(cx.waker());
        loop {
            if this.polls_before_cut == 0 && this.is_cutting() {
                this.cut();
                return Poll::Ready(());
            }
            let (worker, slot) = (&this.worker, &*this.slot);
            let transition = match &mut this.state {
                State::Opening(opening) => opening.poll(cx, worker, slot),
                State::Parked(parked) => parked.poll(cx, worker, slot, &this.idle_handoff),
                State::Http1(http1) => http1.poll(cx, worker, slot),
                State::Http2(http2) => http2.poll(cx, worker, slot),
                State::Lingering(lingering) => lingering.poll(cx, worker, slot).into(),
                State::Suspended | State::Closed => {
                    // An upgraded connection stays, too: it has taken no notice of the choice.
                    let stays = matches!(this.state, State::Suspended) || slot.is_evicted();
                    if stays && slot.is_chosen() {
                        this.stay();
                    }
                    return Poll::Ready(());
                }
            };
            let state = match transition {
                Transition::Wait => {
                    // Before a request that has just arrived makes it evictable again.
                    if this.slot.stays() {
                        this.stay();
                    }
                    if this.worker.server().evicts_busy() && this.should_evict() {
                        this.close_evicted();
                        return Poll::Ready(());
                    }
                    if this.is_cutting() {
                        this.polls_before_cut = this.polls_before_cut.saturating_sub(1);
                        // Yield, so that all tasks that were woken before run first. `wake_by_ref`
                        // could overtake them.
                        let _ = pin!(yield_now()).poll(cx);
                    }
                    return Poll::Pending;
                }
                Transition::Opened(io, client) => {
                    if let Some(client) = client {
                        slot.set_client(client);
                    }
                    State::Parked(Parked::opened(io, worker.server().clock.now()))
                }
                Transition::Park(io, read, since) => {
                    State::Parked(Parked::after_request(io, &read, since))
                }
                Transition::StartHttp1(io, read, since) => {
                    State::Http1(Box::new(Http1::new(worker, slot, io, read, since)))
                }
                Transition::ResumeHttp1(io, handoff_to_hyper) => {
                    State::Http1(Box::new(Http1::resume(worker, io, *handoff_to_hyper)))
                }
                Transition::StartHttp2(io, read) => {
                    State::Http2(Box::new(Http2::new(worker, slot, io, read)))
                }
                Transition::Suspend(io, since, received_any) => {
                    let (peer, local) = (slot.peer().clone(), slot.local.clone());
                    // The first poll may have come late, so the wait counts from the accept.
                    let since = if received_any == ReceivedAny::No { slot.accepted } else { since };
                    let (announcement, responded) = (slot.announcement, slot.has_responded());
                    let state = IdleState::Waiting;
                    match this.idle_handoff.push(
                        io,
                        IdleInfo {
                            since,
                            peer,
                            local,
                            received_any,
                            announcement,
                            responded,
                            delivered: false,
                            state,
                            sent: saturated(slot.sent()),
                        },
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
            drop(this.transition(state));
        }
    }
}

impl<T: Transport, S: HttpService> Connection<T, S> {
    /// Whether the shutdown closes this connection, flushed or not.
    fn is_cutting(&self) -> bool {
        self.worker.server().is_cutting_connection(|| match &self.state {
            State::Parked(parked) => parked.has_stream(),
            State::Http1(http1) => http1.has_stream(),
            State::Http2(http2) => http2.has_stream(),
            State::Opening(_) | State::Lingering(_) | State::Suspended | State::Closed => false,
        })
    }

    /// Changes the state. Returns the previous one.
    fn transition(&mut self, state: State<T, S>) -> State<T, S> {
        self.counted = state.counted(&self.worker.shared.metrics);
        self.slot.set_busy();
        std::mem::replace(&mut self.state, state)
    }

    /// Whether the connection is to be closed in the middle of a request or a response, to make
    /// room for another. Otherwise records what it waits for.
    fn should_evict(&self) -> bool {
        let slot = &self.slot;
        if slot.idle().is_some() {
            slot.clear_busy_awaiting();
            return false;
        }
        if slot.evictable().is_some() && slot.take_evicted() {
            return true;
        }
        let awaits_handler = match &self.state {
            State::Parked(parked) => parked.awaits_handler(),
            State::Http1(http1) => http1.awaits_handler(),
            State::Http2(http2) => http2.awaits_handler(),
            State::Opening(_) | State::Lingering(_) | State::Suspended | State::Closed => false,
        };
        let awaited = if awaits_handler { Awaited::Handler } else { Awaited::Client };
        slot.set_busy_awaiting(awaited, self.worker.server().clock.now());
        false
    }

    /// Lets another connection make room in place of this one, which was chosen and has received
    /// something since, unless it is being closed.
    fn stay(&self) {
        self.slot.clear_chosen();
        if !self.slot.makes_room() {
            self.worker.server().capacity.request_eviction();
        }
    }

    fn close_evicted(&mut self) {
        self.worker.server().metrics.evicted.add_one();
        // `Parked` is reset by its drop if a handler runs.
        if let State::Http1(mut http1) = self.transition(State::Closed) {
            http1.close_evicted();
        }
    }

    /// Ends the connection after the cancel wait. A response that is cut by this must not look
    /// complete (P5d).
    fn cut(&mut self) {
        let was_reset = match self.transition(State::Closed) {
            State::Http1(mut http1) => http1.cut(AbortCause::Shutdown),
            State::Http2(mut http2) => {
                http2.cut();
                false
            }
            State::Opening(mut opening) => {
                opening.cut();
                false
            }
            State::Parked(mut parked) => {
                if parked.is_idle() {
                    self.worker.server().metrics.unannounced.add_one();
                }
                parked.cut()
            }
            State::Lingering(lingering) => lingering.cut(),
            State::Suspended | State::Closed => false,
        };
        let metrics = &self.worker.server().metrics;
        if was_reset { metrics.reset.add_one() } else { metrics.drained.add_one() }
    }
}

impl<T: Transport, S: HttpService> Drop for Connection<T, S> {
    fn drop(&mut self) {
        // The counters are updated first, and the connection is dropped last.
        let last = self.transition(State::Closed);
        self.slot.mark_closed();
        if matches!(last, State::Suspended) {
            return;
        }
        self.worker.server().metrics.closed.add_one();
        self.worker.capacity.on_connection_closed();
    }
}

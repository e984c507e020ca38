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
//! A parked connection may go to sleep, which ends its task and not the connection: see [`deep`](super::deep).
//!
//! In the drain each state is polled once before it is told anything, so that what the kernel already holds is seen (P5).

use super::{
    berth::Berth,
    counts::{Counts, Gauge},
    crew::Crew,
    deep::{Gate, Stay},
    direct::Handover,
    http1::Http1,
    http2::Http2,
    idle_policy::Awaited,
    lingering::Lingering,
    parked::{Heard, Parked},
    request::Cutter,
    service::HttpService,
};
use crate::{
    env::Transport,
    lifecycle::{Moment, Phase},
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
    crew: Arc<Crew<S>>,
    berth: Arc<Berth>,
    gate: Arc<Gate<T>>,
    state: State<T, S>,
    /// Polls that are left once the connection is to be cut. The abort may have come in the same breath, and its 503s want to be
    /// written: by HTTP/2 streams, which are tasks of their own, and then by their connection.
    last_turns: u8,
}

const LAST_TURNS: u8 = 3;

pub(super) enum State<T: Transport, S: HttpService> {
    Parked(Parked<T, S>),
    Http1(Box<Http1<T, S>>),
    Http2(Box<Http2<T, S>>),
    Lingering(Box<Lingering<T>>),
    /// Somebody else's by now: see [`deep`](super::deep).
    Asleep,
    Closed,
}

impl<T: Transport, S: HttpService> State<T, S> {
    /// Where a connection in this state is counted. HTTP/1 counts itself, since it does so anyway; those that are in none are
    /// parked.
    const fn gauge<'a>(&self, counts: &'a Counts) -> Option<&'a Gauge> {
        match self {
            Self::Http2(_) => Some(&counts.http2),
            Self::Lingering(_) => Some(&counts.lingering),
            Self::Parked(_) | Self::Http1(_) | Self::Asleep | Self::Closed => None,
        }
    }
}

/// What a state wants after it was polled.
pub(crate) enum Next<T, S: HttpService> {
    /// To be polled again when woken.
    Wait,
    /// To wait without a protocol, having read these bytes, which are at most half an empty line.
    Park(T, Bytes),
    /// To speak HTTP/1, having read these bytes.
    SpeakHttp1(T, Bytes),
    /// To speak HTTP/1, where it was spoken without hyper so far.
    HandOver(T, Box<Handover<S>>),
    /// To speak HTTP/2, having read these bytes.
    SpeakHttp2(T, Bytes),
    /// To be parked deep, without a task: since when it waits, and whether it has ever sent anything.
    Sleep(T, Moment, Heard),
    /// To close without losing an answer.
    Linger(Box<Lingering<T>>),
    /// To be dropped.
    Close,
    /// To be dropped, and with it an answer that was cut: the drop resets it.
    Reset,
}

impl<T, S: HttpService> Next<T, S> {
    pub(crate) fn linger(lingering: Lingering<T>) -> Self {
        Self::Linger(Box::new(lingering))
    }
}

impl<T: Transport, S: HttpService> Connection<T, S> {
    pub(super) fn new(crew: Arc<Crew<S>>, berth: Arc<Berth>, gate: Arc<Gate<T>>, io: T) -> Self {
        crew.side.tally.accepted.add_one();
        Self::woken(crew, berth, gate, State::Parked(Parked::fresh(io)))
    }

    /// One that was accepted before.
    pub(super) fn woken(crew: Arc<Crew<S>>, berth: Arc<Berth>, gate: Arc<Gate<T>>, state: State<T, S>) -> Self {
        if let Some(gauge) = state.gauge(&crew.counts) {
            gauge.add_one();
        }
        Self { crew, berth, gate, state, last_turns: LAST_TURNS }
    }
}

impl<T: Transport, S: HttpService> Future for Connection<T, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        me.berth.register(cx.waker());
        loop {
            if me.crew.side.is_cutting() && me.last_turns == 0 {
                me.cut();
                return Poll::Ready(());
            }
            let (crew, berth) = (&me.crew, &*me.berth);
            let next = match &mut me.state {
                State::Parked(parked) => parked.poll(cx, crew, berth, &me.gate),
                State::Http1(http1) => http1.poll(cx, crew, berth),
                State::Http2(http2) => http2.poll(cx, crew, berth),
                State::Lingering(lingering) => lingering.poll(cx, crew, berth),
                State::Asleep | State::Closed => return Poll::Ready(()),
            };
            let state = match next {
                Next::Wait => {
                    if me.crew.side.evicts_busy() && me.makes_room() {
                        me.oust();
                        return Poll::Ready(());
                    }
                    if me.crew.side.is_cutting() {
                        me.last_turns -= 1;
                        // After all who were woken before: a plain wake could overtake them.
                        let _ = pin!(yield_now()).poll(cx);
                    }
                    return Poll::Pending;
                }
                Next::Park(io, read) => State::Parked(Parked::again(io, &read)),
                Next::SpeakHttp1(io, read) => State::Http1(Box::new(Http1::new(crew, berth, io, read))),
                Next::HandOver(io, handover) => State::Http1(Box::new(Http1::taking_over(crew, io, *handover))),
                Next::SpeakHttp2(io, read) => State::Http2(Box::new(Http2::new(crew, berth, io, read))),
                Next::Sleep(io, since, heard) => {
                    let (peer, local) = (berth.peer.clone(), berth.local.clone());
                    // Its first poll may have come late.
                    let since = if heard == Heard::Nothing { berth.accepted } else { since };
                    let (announcement, responded) = (berth.announcement, berth.has_responded());
                    match me.gate.pass(io, Stay { since, peer, local, heard, announcement, responded }) {
                        Ok(()) => State::Asleep,
                        Err(io) => State::Parked(Parked::woken(io, &[], heard, since)),
                    }
                }
                Next::Linger(lingering) => State::Lingering(lingering),
                Next::Reset => {
                    crew.side.tally.reset.add_one();
                    State::Closed
                }
                Next::Close => {
                    if crew.side.phase() >= Phase::Draining {
                        crew.side.tally.drained.add_one();
                    }
                    State::Closed
                }
            };
            drop(me.enter(state));
        }
    }
}

impl<T: Transport, S: HttpService> Connection<T, S> {
    /// Goes over to another state; the one it was in.
    fn enter(&mut self, state: State<T, S>) -> State<T, S> {
        let counts = &self.crew.counts;
        if let Some(gauge) = state.gauge(counts) {
            gauge.add_one();
        }
        if let Some(gauge) = self.state.gauge(counts) {
            gauge.take_one();
        }
        self.berth.set_busy();
        std::mem::replace(&mut self.state, state)
    }

    /// Whether the connection is closed in the middle of something, to make room for another.
    fn makes_room(&self) -> bool {
        let berth = &self.berth;
        if berth.idle().is_some() {
            berth.clear_waiting();
            return false;
        }
        if berth.evictable().is_some() && berth.take_evicted() {
            return true;
        }
        let awaits_handler = match &self.state {
            State::Http1(http1) => http1.awaits_handler(),
            State::Http2(http2) => http2.awaits_handler(),
            State::Parked(_) | State::Lingering(_) | State::Asleep | State::Closed => false,
        };
        let awaited = if awaits_handler { Awaited::Handler } else { Awaited::Client };
        berth.set_waiting(awaited, self.crew.side.clock.now());
        false
    }

    fn oust(&mut self) {
        self.crew.side.tally.evicted.add_one();
        if let State::Http1(mut http1) = self.enter(State::Closed) {
            http1.oust();
        }
    }

    /// The drain and the cancel wait are over: whatever is left ends here, and must not look whole.
    fn cut(&mut self) {
        let was_reset = match self.enter(State::Closed) {
            State::Http1(mut http1) => http1.cut(Cutter::Shutdown),
            State::Http2(mut http2) => {
                http2.cut();
                false
            }
            State::Parked(parked) => {
                if parked.is_idle() {
                    self.crew.side.tally.note_untold(&self.berth);
                }
                false
            }
            State::Lingering(_) | State::Asleep | State::Closed => false,
        };
        let tally = &self.crew.side.tally;
        if was_reset { tally.reset.add_one() } else { tally.drained.add_one() }
    }
}

impl<T: Transport, S: HttpService> Drop for Connection<T, S> {
    fn drop(&mut self) {
        // Counted out first, dropped last.
        let last = self.enter(State::Closed);
        self.berth.leave();
        if matches!(last, State::Asleep) {
            return;
        }
        self.crew.side.tally.closed.add_one();
        self.crew.on_connection_closed();
    }
}

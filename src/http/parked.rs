//! A connection that waits for its first byte, or its next: no hyper, no buffer, no timer of its own.
//!
//! Plain requests are answered from here, and do not end the wait: see [`direct`](super::direct).

use super::{
    berth::Berth,
    connection::Next,
    crew::Crew,
    deep::Gate,
    direct::{Direct, Served},
    http1::after_the_last_answer,
    idle_policy::{Awaited, Idle},
    limits::PARK_AFTER,
    lingering::{Lingering, head_timed_out},
    patience::{ClientTimeout, Delivery},
    service::HttpService,
    sniff::{PREFACE, Sniffed, after_empty_lines, is_blank, sniff},
};
use crate::{
    env::{Look, Transport},
    lifecycle::{Moment, Phase},
};
use bytes::Bytes;
use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::ReadBuf;

/// A transport and the few bytes that do not yet tell a protocol.
pub(crate) struct Parked<T, S: HttpService> {
    /// `None` only once it was handed on.
    io: Option<T>,
    bytes: [u8; UNDECIDED_MAX],
    len: u8,
    history: Heard,
    /// When the current wait began; set at its first poll.
    since: Option<Moment>,
    /// Kept for a while after a plain request: the next one may be near.
    direct: Option<Box<Direct<S>>>,
    delivery: Delivery,
}

/// One byte more, and it is either the whole preface or none.
const UNDECIDED_MAX: usize = PREFACE.len() - 1;

/// Nearly every head is shorter, and so is read by one call and parsed once.
pub(super) const READ_AT_ONCE: usize = 4096;

/// Requests that are answered in one turn of the connection's task, as many as hyper answers: others want to be served too.
pub(super) const TURNS: u8 = 16;

/// Whether the client has ever sent anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Something,
}

impl<T: Transport, S: HttpService> Parked<T, S> {
    /// Just accepted.
    pub(crate) fn fresh(io: T) -> Self {
        Self {
            io: Some(io),
            bytes: [0; UNDECIDED_MAX],
            len: 0,
            history: Heard::Nothing,
            since: None,
            direct: None,
            delivery: Delivery::default(),
        }
    }

    /// Idle after requests. `read`: at most the first byte of an empty line.
    pub(crate) fn again(io: T, read: &[u8]) -> Self {
        let mut parked = Self::fresh(io);
        parked.history = Heard::Something;
        parked.keep(read);
        parked
    }

    /// Awake again, with the first bytes of something.
    pub(super) fn woken(io: T, read: &[u8], heard: Heard, since: Moment) -> Self {
        let mut me = Self::fresh(io);
        (me.history, me.since) = (heard, Some(since));
        me.keep(read);
        me
    }

    fn keep(&mut self, read: &[u8]) {
        let len = read.len().min(UNDECIDED_MAX);
        self.bytes[..len].copy_from_slice(&read[..len]);
        self.len = u8::try_from(len).unwrap_or(u8::MAX);
    }

    /// How much of a request was read: half an empty line is none.
    fn begun(&self) -> u8 {
        if is_blank(&self.bytes[..usize::from(self.len)]) { 0 } else { self.len }
    }

    /// Not inlined, so that only those who are parked have its large frame.
    #[inline(never)]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth, gate: &Gate<T>) -> Next<T, S> {
        let mut turns = TURNS;
        let mut answered = None;
        loop {
            if turns == 0 {
                // Others first.
                cx.waker().wake_by_ref();
                return Next::Wait;
            }
            let len = usize::from(self.len);
            let Some(io) = &mut self.io else { return Next::Close };
            let mut room = [MaybeUninit::uninit(); READ_AT_ONCE];
            let mut room = ReadBuf::uninit(&mut room);
            room.put_slice(&self.bytes[..len]);
            match Pin::new(io).poll_read(cx, &mut room) {
                Poll::Pending => {
                    let now = answered.unwrap_or_else(|| crew.side.clock.now());
                    return self.wait(now, cx, crew, berth, gate);
                }
                Poll::Ready(Err(_)) => return Next::Close,
                Poll::Ready(Ok(())) => {
                    let read = room.filled().len() - len;
                    let bytes = after_empty_lines(room.filled());
                    if is_blank(bytes) {
                        if read == 0 {
                            return Next::Close;
                        }
                        // No request yet, so the wait goes on, but not for as long as a client likes to send these.
                        self.keep(bytes);
                        turns -= 1;
                        continue;
                    }
                    self.history = Heard::Something;
                    match sniff(bytes) {
                        Sniffed::Undecided if read > 0 => {
                            if self.begun() == 0 {
                                self.since = Some(crew.side.clock.now());
                            }
                            self.keep(bytes);
                        }
                        // A few bytes of the preface, then the end: HTTP/1's parser shall refuse it.
                        Sniffed::Undecided | Sniffed::Http1 => match self.serve(cx, bytes, crew, berth, &mut turns) {
                            Ok(now) => answered = Some(now),
                            Err(next) => return next,
                        },
                        Sniffed::Http2 => {
                            let bytes = Bytes::copy_from_slice(bytes);
                            return self.io.take().map_or(Next::Close, |io| Next::SpeakHttp2(io, bytes));
                        }
                    }
                }
            }
        }
    }

    /// Answers what is plain, and if that was all, it was then.
    fn serve(
        &mut self,
        cx: &mut Context<'_>,
        read: &[u8],
        crew: &Crew<S>,
        berth: &Berth,
        turns: &mut u8,
    ) -> Result<Moment, Next<T, S>> {
        let Some(io) = &mut self.io else { return Err(Next::Close) };
        let direct = self.direct.get_or_insert_with(|| Box::new(Direct::new(crew, berth)));
        let served = direct.serve(cx, io, read, turns);
        if let Served::All(now) = served {
            self.len = 0;
            self.since = Some(now);
            berth.note_responses(direct.link());
            self.delivery = Delivery::default();
            if crew.is_crowded_directly() {
                self.direct = None;
            }
            return Ok(now);
        }
        let (Some(mut io), Some(direct)) = (self.io.take(), self.direct.take()) else { return Err(Next::Close) };
        Err(match served {
            Served::All(_) | Served::Lost => Next::Close,
            Served::Last(read) => {
                let _ = Pin::new(&mut io).poll_shutdown(cx);
                after_the_last_answer(io, &read, direct.link()).map_or(Next::Close, Next::linger)
            }
            Served::NotOurs(rest) => Next::HandOver(io, direct.hand_over(rest)),
            Served::Torn => {
                io.reset_on_drop();
                Next::Reset
            }
        })
    }

    /// Nothing to read: whether to go on waiting is the phase's to say.
    fn wait(&mut self, now: Moment, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth, gate: &Gate<T>) -> Next<T, S> {
        let side = &crew.side;
        let since = *self.since.get_or_insert(now);
        let draining = side.phase() >= Phase::Draining;
        let idle = self.idle(since, berth);
        let until = idle.deadline(&side.config.limits, side.draining_since());
        let evicted = idle.awaited != Awaited::Head && berth.take_evicted();
        if now < until && !evicted {
            berth.set_idle(idle);
            let until = match self.look_at_delivery(now, idle, crew) {
                Some(look_again) => until.min(look_again),
                None => return self.reset(crew, berth),
            };
            let mut again = until;
            if now < since + PARK_AFTER {
                again = until.min(since + PARK_AFTER);
            } else {
                self.direct = None;
            }
            // A connection that has announced its close is not kept as an idle one.
            let may_sleep = !draining && self.len == 0 && gate.is_open() && !berth.has_announced();
            // The runtime may not have heard yet of what is there, of a newcomer above all.
            if may_sleep && (now >= since + PARK_AFTER || crew.has_many_tasks() && !self.has_data()) {
                return self.io.take().map_or(Next::Close, |io| Next::Sleep(io, since, self.history));
            }
            crew.wake_at(berth, again);
            return Next::Wait;
        }
        let next = self.close(cx, crew, berth);
        if self.io.is_none() && !draining {
            match idle.awaited {
                _ if evicted => side.tally.evicted.add_one(),
                Awaited::FirstByte => side.tally.first_byte_timeouts.add_one(),
                Awaited::NextRequest | Awaited::Head | Awaited::Client | Awaited::Handler => {}
            }
        }
        next
    }

    /// When to ask again whether the client took the last response; `None` if it is given up.
    fn look_at_delivery(&mut self, now: Moment, idle: Idle, crew: &Crew<S>) -> Option<Moment> {
        if idle.awaited != Awaited::NextRequest {
            return Some(Moment::NEVER);
        }
        let timeout = crew.side.config.limits.send_timeout;
        if now >= self.delivery.look_at(idle.since, timeout) {
            let unacknowledged = self.io.as_ref().and_then(Transport::unacknowledged).unwrap_or(0);
            if self.delivery.is_over(unacknowledged as u64, now) {
                return None;
            }
        }
        Some(self.delivery.look_at(idle.since, timeout))
    }

    fn reset(&mut self, crew: &Crew<S>, berth: &Berth) -> Next<T, S> {
        crew.side.note_client_timeout(ClientTimeout::Send, &berth.peer, None);
        if let Some(io) = &mut self.io {
            io.reset_on_drop();
        }
        Next::Reset
    }

    fn idle(&self, since: Moment, berth: &Berth) -> Idle {
        match (self.begun(), self.history) {
            (0, Heard::Nothing) => Idle { awaited: Awaited::FirstByte, since: berth.accepted },
            (0, Heard::Something) => Idle { awaited: Awaited::NextRequest, since },
            (1.., _) => Idle { awaited: Awaited::Head, since },
        }
    }

    /// Whether it waits for a request of which no byte has come.
    pub(crate) const fn is_idle(&self) -> bool {
        self.len == 0
    }

    fn has_data(&self) -> bool {
        self.io.as_ref().is_some_and(|io| io.look() == Look::Data)
    }

    /// The last look, then a FIN (P5): what the kernel holds by now is still served; what comes later was sent into a close
    /// that nobody can prevent.
    fn close(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T, S> {
        let Some(mut io) = self.io.take() else { return Next::Close };
        if io.look() == Look::Data {
            // Its event is on the way.
            self.io = Some(io);
            cx.waker().wake_by_ref();
            return Next::Wait;
        }
        match self.begun() {
            0 if crew.side.phase() >= Phase::Draining => crew.side.tally.note_untold(berth),
            0 => {}
            // Perhaps the beginning of a POST.
            1..4 => return Next::linger(Lingering::saying(io, head_timed_out(&crew.side))),
            // RFC 9113 §3.4: only a client of HTTP/2 begins with "PRI ".
            4.. => return Next::linger(Lingering::dismissing(io)),
        }
        if crew.side.counts_races() {
            return Next::linger(Lingering::watching(io));
        }
        let _ = Pin::new(&mut io).poll_shutdown(cx);
        if io.look() == Look::Data { Next::linger(Lingering::dismissing(io)) } else { Next::Close }
    }
}

impl<T, S: HttpService> Drop for Parked<T, S> {
    /// If a service or a body panicked where nobody catches it, its request may wait to be settled, and would for ever.
    fn drop(&mut self) {
        if let Some(direct) = self.direct.take() {
            let link = direct.link().clone();
            drop(direct);
            link.settle_lost();
        }
    }
}

//! A connection that waits for its first byte, or its next: no hyper, no buffer, no timer of its own.

use super::{
    berth::Berth,
    connection::Next,
    crew::Crew,
    limits::{FIRST_BYTE_GRACE, HEAD_GRACE},
    lingering::{Lingering, head_timed_out},
    service::HttpService,
    sniff::{PREFACE, Sniffed, sniff},
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
pub(crate) struct Parked<T> {
    /// `None` only once it was handed on.
    io: Option<T>,
    bytes: [u8; UNDECIDED_MAX],
    len: u8,
    history: Heard,
    /// When the current wait began; set at its first poll.
    since: Option<Moment>,
}

/// One byte more, and it is either the whole preface or none.
const UNDECIDED_MAX: usize = PREFACE.len() - 1;

/// Nearly every head is shorter, and so is read by one call and parsed once.
const READ_AT_ONCE: usize = 4096;

/// Whether the client has ever sent anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Something,
}

impl<T: Transport> Parked<T> {
    /// Just accepted.
    pub(crate) fn fresh(io: T) -> Self {
        Self { io: Some(io), bytes: [0; UNDECIDED_MAX], len: 0, history: Heard::Nothing, since: None }
    }

    /// Idle after requests.
    pub(crate) fn again(io: T) -> Self {
        Self { history: Heard::Something, ..Self::fresh(io) }
    }

    /// Not inlined, so that only those who are parked have its large frame.
    #[inline(never)]
    pub(crate) fn poll<S: HttpService>(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T> {
        loop {
            let len = usize::from(self.len);
            let Some(io) = &mut self.io else { return Next::Close };
            let mut room = [MaybeUninit::uninit(); READ_AT_ONCE];
            let mut room = ReadBuf::uninit(&mut room);
            room.put_slice(&self.bytes[..len]);
            match Pin::new(io).poll_read(cx, &mut room) {
                Poll::Pending => return self.wait(cx, crew, berth),
                Poll::Ready(Err(_)) => return Next::Close,
                Poll::Ready(Ok(())) => {
                    let bytes = room.filled();
                    let read = bytes.len() - len;
                    if read == 0 && len == 0 {
                        return Next::Close;
                    }
                    if len == 0 {
                        self.since = Some(crew.side.clock.now());
                    }
                    self.history = Heard::Something;
                    match sniff(bytes) {
                        Sniffed::Undecided if read > 0 => {
                            self.bytes[..bytes.len()].copy_from_slice(bytes);
                            self.len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
                        }
                        // A few bytes of the preface, then the end: HTTP/1's parser shall refuse it.
                        Sniffed::Undecided | Sniffed::Http1 => {
                            let bytes = Bytes::copy_from_slice(bytes);
                            return self.io.take().map_or(Next::Close, |io| Next::SpeakHttp1(io, bytes));
                        }
                        Sniffed::Http2 => {
                            let bytes = Bytes::copy_from_slice(bytes);
                            return self.io.take().map_or(Next::Close, |io| Next::SpeakHttp2(io, bytes));
                        }
                    }
                }
            }
        }
    }

    /// Nothing to read: whether to go on waiting is the phase's to say.
    fn wait<S: HttpService>(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T> {
        let side = &crew.side;
        let now = side.clock.now();
        let since = *self.since.get_or_insert(now);
        let draining = side.phase() >= Phase::Draining;
        let until = match (draining, self.len, self.history) {
            (false, 0, _) => since + side.keep_alive(),
            (false, 1.., _) => since + side.config.limits.header_timeout,
            (true, 0, Heard::Nothing) => berth.accepted + FIRST_BYTE_GRACE,
            (true, 0, Heard::Something) => now,
            (true, 1.., _) => since.max(side.draining_since()) + HEAD_GRACE,
        };
        if now < until {
            crew.wake_at(berth, until);
            return Next::Wait;
        }
        self.close(cx, crew)
    }

    /// The last look, then a FIN (P5): what the kernel holds by now is still served; what comes later was sent into a close
    /// that nobody can prevent.
    fn close<S: HttpService>(&mut self, cx: &mut Context<'_>, crew: &Crew<S>) -> Next<T> {
        let Some(mut io) = self.io.take() else { return Next::Close };
        if io.look() == Look::Data {
            // Its event is on the way.
            self.io = Some(io);
            cx.waker().wake_by_ref();
            return Next::Wait;
        }
        match self.len {
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

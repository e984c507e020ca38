//! A connection that speaks HTTP/1, with hyper as its guest.
//!
//! hyper is taken apart again (`into_parts`) once nothing is in flight, buffered or unflushed. It is never asked to shut down
//! gracefully: that closes a connection from which it has not read yet, and one with half a second head, whatever the kernel
//! holds for them. Instead responses after the stop request close their connections (see
//! [`announcement`](super::announcement)), and idleness is ours to see.

use super::{
    HalfClose,
    berth::Berth,
    connection::Next,
    crew::Crew,
    direct::Handover,
    guest_io::GuestIo,
    idle_policy::{Awaited, Idle},
    limits::{GONE_CHECK, PARK_AFTER, SENT_AT_ONCE},
    lingering::{Lingering, head_timed_out},
    link::{Link, Protocol},
    patience::{ClientTimeout, Patience, Signs},
    plain::After,
    request::Cutter,
    service::{Guarded, HttpService},
    sniff::{after_empty_lines, is_blank},
};
use crate::{
    env::{Look, Transport},
    lifecycle::{Moment, Phase},
};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

type Connection<T, S> = http1::Connection<TokioIo<GuestIo<T>>, Guarded<S>>;

/// hyper's connection, with upgrades only once a handler has agreed to one: a request that merely asked for one may let hyper give
/// the transport away before it has flushed the response.
enum Hyper<T: Transport, S: HttpService> {
    Plain(Connection<T, S>),
    Upgradeable(http1::UpgradeableConnection<TokioIo<GuestIo<T>>, Guarded<S>>),
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

    /// The transport, and what was read of it but belongs to no request yet. `None` if it was upgraded.
    fn into_transport(self) -> Option<(T, Bytes)> {
        let parts = match self {
            Self::Plain(connection) => connection.into_parts(),
            Self::Upgradeable(connection) => connection.into_parts()?,
        };
        let (io, prefix) = parts.io.into_inner().into_transport()?;
        Some((io, joined(parts.read_buf, prefix)))
    }
}

/// hyper's connection and what we see of it.
pub(crate) struct Http1<T: Transport, S: HttpService> {
    /// `None` only once it was taken apart.
    guest: Option<Hyper<T, S>>,
    link: Arc<Link>,
    mood: Mood,
    patience: Patience,
    /// Counts this connection among the live ones.
    crew: Arc<Crew<S>>,
}

/// What the connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// A request is in flight.
    Busy,
    /// Part of a head was read, the first of it then.
    Reading { since: Moment },
    /// Nothing was read since the last answer was flushed, which was then.
    Idle { since: Moment },
}

impl<T: Transport, S: HttpService> Http1<T, S> {
    pub(crate) fn new(crew: &Arc<Crew<S>>, berth: &Berth, io: T, read: Bytes) -> Self {
        let link = Arc::new(Link::new(Protocol::Http1, crew, berth));
        let service = Guarded::new(crew.service.clone(), link.clone());
        let io = GuestIo::lent(io, read, link.clone());
        Self::serving(crew, io, service, link)
    }

    /// Goes on with what was begun without hyper.
    pub(crate) fn taking_over(crew: &Arc<Crew<S>>, io: T, handover: Handover<S>) -> Self {
        let Handover { service, read, unwritten, after } = handover;
        let link = service.link().clone();
        let mut io = GuestIo::lent(io, read, link.clone());
        io.write_first(unwritten);
        if after == After::Ends {
            io.end_reading();
        }
        Self::serving(crew, io, service, link)
    }

    fn serving(crew: &Arc<Crew<S>>, io: GuestIo<T>, service: Guarded<S>, link: Arc<Link>) -> Self {
        let guest = crew.http1().serve_connection(TokioIo::new(io), service);
        crew.counts.http1.add_one();
        Self { guest: Some(Hyper::Plain(guest)), link, mood: Mood::Busy, patience: Patience::default(), crew: crew.clone() }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T, S> {
        // Read before hyper runs: a body dropped elsewhere in the meantime is one that hyper has not seen dropped.
        let bodies_held = self.link.are_bodies_held();
        let was_half_closed = self.link.is_half_closed();
        self.link.before_poll();
        if self.poll_hyper(cx).is_ready() {
            return self.end(crew);
        }
        if self.link.is_half_closed() && !was_half_closed && self.link.is_in_flight() {
            if crew.side.config.limits.half_close == HalfClose::Drop {
                return self.drop_request();
            }
            // The handler, or the body of its response, notices.
            if self.poll_hyper(cx).is_ready() {
                return self.end(crew);
            }
        }
        let now = crew.side.clock.now();
        if self.link.is_flushed() {
            self.link.settle_flushed(|| now);
        } else {
            self.link.list_ended();
        }
        let quiet = !self.link.is_in_flight() && self.link.is_flushed() && !bodies_held;
        if quiet { self.on_quiet(crew, berth, now) } else { self.on_busy(crew, berth, now) }
    }

    /// Ready when hyper is done with the connection, and all that it had to write is flushed, or never will be.
    fn poll_hyper(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(guest) = &mut self.guest else { return Poll::Ready(()) };
        let mut polled = guest.poll(cx);
        if polled.is_pending() && self.link.take_switching() {
            // A handler agreed to another protocol, and its response waits for this.
            self.guest = self.guest.take().map(Hyper::with_upgrades);
            polled = self.guest.as_mut().map_or(Poll::Ready(Ok(())), |guest| guest.poll(cx));
        }
        let is_final = self.link.is_flushed() || self.link.is_broken() || self.link.is_torn();
        if polled.is_pending() || is_final {
            return polled.map(drop);
        }
        // hyper returns an upgrade that a client asked for, and errors, without flushing what it has buffered. Polled once more it
        // flushes, and then shuts the connection down.
        self.guest.as_mut().map_or(Poll::Ready(()), |guest| guest.poll(cx).map(drop))
    }

    fn on_busy(&mut self, crew: &Crew<S>, berth: &Berth, now: Moment) -> Next<T, S> {
        if self.mood == Mood::Busy {
            self.link.want_look();
        }
        self.mood = Mood::Busy;
        berth.set_busy();
        let side = &crew.side;
        let link = &self.link;
        if !link.is_write_blocked() {
            self.patience.rest();
            crew.wake_at(berth, now + GONE_CHECK);
            return Next::Wait;
        }
        let signs = Signs { moved: [0, link.written()], unacknowledged: link.unacknowledged() };
        let since = self.patience.last_progress(signs, now);
        let until = side.gives_up(since, ClientTimeout::Send);
        if now < until {
            crew.wake_at(berth, until.min(now + GONE_CHECK));
            return Next::Wait;
        }
        // Its response has begun, and nothing of it gets through any more: it is cut, and must not look complete.
        side.note_client_timeout(ClientTimeout::Send, &berth.peer, None);
        let cutter = side.given_up_by(since, ClientTimeout::Send, now);
        if self.cut(cutter) { Next::Reset } else { Next::Close }
    }

    fn on_quiet(&mut self, crew: &Crew<S>, berth: &Berth, now: Moment) -> Next<T, S> {
        let called = self.link.take_called();
        berth.note_responses(&self.link);
        if self.mood == Mood::Busy && called {
            // What was read since the call was the request's body. A next head that came with it stays in hyper's buffer, and
            // is found there when the connection is taken apart.
            self.link.clear_received();
        }
        let draining = crew.side.phase() >= Phase::Draining;
        if self.link.has_received() {
            let since = match self.mood {
                Mood::Reading { since } => since,
                Mood::Busy | Mood::Idle { .. } => now,
            };
            self.mood = Mood::Reading { since };
            berth.set_busy();
            let head = Idle { awaited: Awaited::Head, since };
            let until = head.deadline(&crew.side.config.limits, crew.side.draining_since());
            if now >= until {
                if self.link.may_have_unread() {
                    berth.wake();
                    return Next::Wait;
                }
                return self
                    .take_apart()
                    .map_or(Next::Close, |(io, _)| Next::linger(Lingering::saying(io, head_timed_out(&crew.side))));
            }
            crew.wake_at(berth, until);
            return Next::Wait;
        }
        let since = match self.mood {
            Mood::Idle { since } => since,
            Mood::Busy | Mood::Reading { .. } => now,
        };
        self.mood = Mood::Idle { since };
        berth.set_idle(Idle { awaited: Awaited::NextRequest, since });
        if draining || now >= since + PARK_AFTER || (called && crew.is_crowded()) || berth.is_evicted() {
            return match self.take_apart() {
                Some((io, read)) if is_blank(&read) => {
                    let rest = read.slice_ref(after_empty_lines(&read));
                    Next::Park(io, rest)
                }
                // Part of a next head: it gets a guest of its own, and the time for a head.
                Some((io, read)) => Next::SpeakHttp1(io, read),
                None => Next::Close,
            };
        }
        if self.link.has_sent_large() {
            // hyper decides for the life of a guest how it writes; the next one knows better.
            berth.note_large();
            return self.take_apart().map_or(Next::Close, |(io, read)| Next::SpeakHttp1(io, read));
        }
        crew.wake_at(berth, since + PARK_AFTER);
        Next::Wait
    }

    /// hyper is done with the connection.
    fn end(&mut self, crew: &Crew<S>) -> Next<T, S> {
        if self.link.is_flushed() {
            self.link.settle_flushed(|| crew.side.clock.now());
        }
        self.link.settle_lost();
        let Some((mut io, read)) = self.take_apart() else {
            self.hand_over(crew);
            return Next::Close;
        };
        if self.link.is_torn() {
            io.reset_on_drop();
            return Next::Reset;
        }
        after_the_last_answer(io, &read, &self.link).map_or(Next::Close, Next::linger)
    }

    /// Drops the request that runs, because its client has shut its side.
    fn drop_request(&mut self) -> Next<T, S> {
        let is_cut = self.link.written() > 0;
        let io = self.take_apart();
        self.link.settle_lost();
        match io {
            Some((mut io, _)) if is_cut => {
                io.reset_on_drop();
                Next::Reset
            }
            Some(_) | None => Next::Close,
        }
    }

    /// The connection speaks another protocol now. It stays in the drain until its io is dropped.
    fn hand_over(&self, crew: &Crew<S>) {
        crew.side.tally.upgraded.add_one();
        self.link.begin_upgrade(crew.tasks.token());
        if self.link.is_io_dropped() && self.link.end_upgrade() {
            crew.side.tally.upgraded_closed.add_one();
        }
    }

    /// The transport, and what was read of it but belongs to no request yet. `None` if it was upgraded.
    fn take_apart(&mut self) -> Option<(T, Bytes)> {
        self.guest.take()?.into_transport()
    }

    /// Whether the next step is the service's, and not the client's.
    pub(crate) fn awaits_handler(&self) -> bool {
        self.mood == Mood::Busy && !self.link.is_write_blocked() && !self.link.is_body_awaited()
    }

    /// Makes room for another connection. A response that was begun must not look whole.
    pub(crate) fn oust(&mut self) {
        let is_cut = self.link.is_in_flight() || self.link.has_ended();
        let io = self.take_apart();
        self.link.settle_lost();
        if let Some((mut io, _)) = io
            && is_cut
        {
            io.reset_on_drop();
        }
    }

    /// Ends whatever goes on; true if a request was cut by it.
    pub(crate) fn cut(&mut self, cutter: Cutter) -> bool {
        let is_cut = self.link.is_in_flight() || self.link.has_ended() || self.link.is_torn();
        if is_cut {
            self.link.on_torn(cutter);
        }
        let io = self.take_apart();
        self.link.settle_lost();
        if let Some((mut io, _)) = io
            && is_cut
        {
            io.reset_on_drop();
        }
        is_cut
    }
}

/// What was read, and what is to be read behind it.
pub(super) fn joined(read: Bytes, more: Bytes) -> Bytes {
    match (read.is_empty(), more.is_empty()) {
        (_, true) => read,
        (true, false) => more,
        (false, false) => [read, more].concat().into(),
    }
}

/// What becomes of a connection whose last answer was written, and whose side of ours is shut; `None`: it may be closed. `read`: what was
/// read behind the last request.
pub(super) fn after_the_last_answer<T: Transport>(io: T, read: &Bytes, link: &Link) -> Option<Lingering<T>> {
    let is_own_unread = link.is_body_unread() || link.are_bodies_held();
    let is_next_unread = !is_blank(read) || io.look() == Look::Data;
    let is_our_end = link.has_announced();
    if is_next_unread && !is_own_unread && is_our_end {
        // Requests behind the last answer are left for the client to send again, as if they had come after the close.
        link.side.tally.raced.add_one();
    }
    if is_own_unread || is_next_unread {
        return Some(Lingering::saying(io, Bytes::new()));
    }
    // If we end the connection, more of the client may still come, and the reset it would cause must find nothing left to
    // destroy. So too if it is the client who ends it, with an answer that did not leave at once.
    let is_at_risk = is_our_end || link.written() > SENT_AT_ONCE;
    if is_at_risk && io.unacknowledged().is_some_and(|bytes| bytes > 0) {
        return Some(Lingering::delivering(io));
    }
    None
}

impl<T: Transport, S: HttpService> Drop for Http1<T, S> {
    fn drop(&mut self) {
        self.crew.counts.http1.take_one();
        // Its runtime may be dropped, and the connection with it: a response that is cut by that
        // must not look complete (P5d).
        let is_cut = self.link.is_in_flight() || self.link.has_ended() || self.link.is_torn();
        if let Some((mut io, _)) = self.take_apart()
            && is_cut
        {
            io.reset_on_drop();
        }
        self.link.settle_lost();
    }
}

//! A connection that speaks HTTP/2, with hyper as its guest.
//!
//! It announces its close with one graceful GOAWAY: in the lame duck delay at a moment that is drawn
//! from the seed, so that a fleet of clients does not reconnect at once (P4, see
//! [`announcement`](super::announcement)). hyper waits without a timer for the PONG behind the GOAWAY and for a
//! handshake that never ends; both have timers here (P6).

use super::{
    announcement::Announcement,
    berth::Berth,
    connection::Next,
    crew::Crew,
    guest_io::{GuestIo, Home},
    idle_policy::{Awaited, Idle},
    inflow::Partial,
    limits::{FIRST_BYTE_GRACE, GONE_CHECK, HEAD_GRACE, PONG_WAIT, STREAMS_FIRST},
    lingering::Lingering,
    link::{Link, Protocol},
    patience::{ClientTimeout, Delivery, Patience, Signs},
    request::Cutter,
    service::{Guarded, HttpService},
    streams::StreamExecutor,
};
use crate::{
    env::{Look, Transport},
    lifecycle::{Moment, Phase},
};
use bytes::Bytes;
use hyper::server::conn::http2::Connection as Guest;
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::ReadBuf;

/// hyper's connection and what we see of it.
pub(crate) struct Http2<T: Transport, S: HttpService> {
    /// `None` only once it was dropped.
    guest: Option<Guest<TokioIo<GuestIo<T>>, Guarded<S>, StreamExecutor>>,
    home: Home<T>,
    link: Arc<Link>,
    /// Chooses the moment of the GOAWAY within the delay.
    jitter: u64,
    announcement: Announcement,
    /// A response was handed to hyper before it was last polled, and so has left before a GOAWAY.
    responded: bool,
    goaway: Goaway,
    began: Moment,
    /// When the last stream ended, or the connection began.
    idle_since: Option<Moment>,
    spoke: Spoke,
    /// A frame or a header block is incomplete, since then: its kind, what it is known by, and when it was first seen so.
    partial: Option<(Partial, u64, Moment)>,
    patience: Patience,
    /// The client's, with the last bytes of a response.
    last_bytes: Patience,
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
enum Spoke {
    No,
    Yes,
}

impl<T: Transport, S: HttpService> Http2<T, S> {
    pub(crate) fn new(crew: &Arc<Crew<S>>, berth: &Berth, io: T, read: Bytes) -> Self {
        let link = Arc::new(Link::new(Protocol::Http2, crew, berth));
        let service = Guarded::new(crew.service.clone(), link.clone());
        let (io, home) = GuestIo::homing(io, read, link.clone());
        let guest = crew.http2(link.clone()).serve_connection(TokioIo::new(io), service);
        let (began, number) = (crew.side.clock.now(), crew.next_number());
        Self {
            guest: Some(guest),
            home,
            link,
            jitter: crew.side.config.seed.nth(number),
            // One that was opened earlier and is only now used for HTTP/2 begins now.
            announcement: crew.side.announcement(began, || number),
            responded: false,
            goaway: Goaway::NotYet,
            began,
            idle_since: None,
            spoke: Spoke::No,
            partial: None,
            patience: Patience::default(),
            last_bytes: Patience::default(),
            delivery: Delivery::default(),
            asked: false,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T, S> {
        self.link.inflow.begin_turn();
        let mut looked = false;
        loop {
            let Some(guest) = &mut self.guest else { return Next::Close };
            self.link.before_poll();
            self.responded = self.link.has_responded();
            if let Poll::Ready(result) = Pin::new(guest).poll(cx) {
                return self.end(crew, result.is_ok());
            }
            self.link.after_poll();
            let now = crew.side.clock.now();
            if self.link.is_flushed() {
                self.link.settle_flushed(|| now);
            } else {
                self.link.list_ended();
            }
            self.link.settle_thrown_away();
            if self.link.inflow.take_held() && !self.link.must_hold_reads() {
                continue;
            }
            if self.link.take_called() {
                self.spoke = Spoke::Yes;
            }
            if self.goaway == Goaway::NotYet && now >= self.goaway_moment(crew) {
                self.start_goaway(now);
                // Polled once more, so that the GOAWAY leaves.
                continue;
            }
            if now >= self.partial_until(crew, now) {
                if looked {
                    return self.give_up();
                }
                // What has arrived by now is read first.
                looked = true;
                self.link.inflow.want_look();
                self.link.inflow.begin_turn();
                continue;
            }
            return self.wait(crew, berth, now);
        }
    }

    /// When the frame or the header block must be complete that the client has begun; `NEVER` if it has begun none, or is not read
    /// from. A body may come slowly: for a frame of it only the time counts in which no byte comes.
    fn partial_until(&mut self, crew: &Crew<S>, now: Moment) -> Moment {
        let limits = &crew.side.config.limits;
        let partial = self.link.inflow.awaited();
        let (unit, wait) = match partial {
            Partial::None => (0, Duration::MAX),
            Partial::Head => (self.link.inflow.whole(), limits.header_timeout),
            Partial::Data => (self.link.read(), limits.body_timeout.max(limits.header_timeout)),
        };
        let since = match self.partial {
            Some((last, of, since)) if (last, of) == (partial, unit) => since,
            _ => now,
        };
        self.partial = (partial != Partial::None).then_some((partial, unit, since));
        since + wait
    }

    /// The client takes too long for a head or a frame. Nothing else can come of it: HTTP/2 has no way around an incomplete frame.
    fn give_up(&mut self) -> Next<T, S> {
        let goaway = if self.link.is_write_blocked() { Bytes::new() } else { self.link.inflow.goaway() };
        drop(self.guest.take());
        self.link.settle_lost();
        self.take_home().map_or(Next::Close, |io| Next::linger(Lingering::saying(io, goaway)))
    }

    fn wait(&mut self, crew: &Crew<S>, berth: &Berth, now: Moment) -> Next<T, S> {
        let partial_until = self.partial_until(crew, now);
        let draining = crew.side.phase() >= Phase::Draining;
        // An answer in a handler's place is nobody's any more, and may not have left yet.
        let busy = self.link.is_in_flight() || self.link.has_ended() || !self.link.is_flushed();
        if busy {
            berth.set_busy();
            self.idle_since = None;
            self.delivery = Delivery::default();
            self.asked = false;
            let goaway = if self.goaway == Goaway::NotYet { self.goaway_moment(crew) } else { Moment::NEVER };
            let (since, until) = self.stalled(crew, now);
            if now >= until {
                return self.cut_stalled(crew, berth, since, now);
            }
            if self.has_stuck_response(crew, now) && self.goaway == Goaway::NotYet {
                crew.side.note_client_timeout(ClientTimeout::Send, &berth.peer, None);
                self.start_goaway(now);
                berth.wake();
            }
            self.link.want_look();
            crew.wake_at(berth, goaway.min(until).min(partial_until).min(now + GONE_CHECK));
            return Next::Wait;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        let evicted = self.goaway == Goaway::NotYet && berth.take_evicted();
        let until = match (self.goaway, self.spoke) {
            // However busy it was meanwhile: a peer that never answers may ask for more as long as it likes.
            (Goaway::Sent { at }, Spoke::Yes) => idle_since.max(at + PONG_WAIT),
            (Goaway::Sent { at }, Spoke::No) => at + HEAD_GRACE,
            (Goaway::NotYet, _) if evicted => now,
            (Goaway::NotYet, Spoke::Yes) => idle_since + crew.side.config.limits.keep_alive,
            (Goaway::NotYet, Spoke::No) => self.began + crew.side.config.limits.header_timeout,
        };
        if now < until {
            if self.goaway == Goaway::NotYet {
                berth.set_idle(match self.spoke {
                    Spoke::Yes => Idle { awaited: Awaited::NextRequest, since: idle_since },
                    Spoke::No => Idle { awaited: Awaited::FirstByte, since: self.began },
                });
            }
            let goaway = if self.goaway == Goaway::NotYet { self.goaway_moment(crew) } else { Moment::NEVER };
            let timeout = crew.side.config.limits.send_timeout;
            if now >= self.delivery.look_at(idle_since, timeout) {
                if !std::mem::replace(&mut self.asked, true) {
                    self.link.want_unacknowledged();
                    berth.wake();
                    return Next::Wait;
                }
                self.asked = false;
                if self.delivery.is_over(self.link.unacknowledged(), now) {
                    return self.cut_stalled(crew, berth, idle_since, now);
                }
            }
            let delivery = self.delivery.look_at(idle_since, timeout);
            crew.wake_at(berth, until.min(goaway).min(delivery).min(partial_until));
            return Next::Wait;
        }
        if evicted && !crew.side.counts_races() {
            // A client of the internal server asks again; a new connection waits for the place.
            crew.side.tally.evicted.add_one();
            return Next::Close;
        }
        if self.goaway == Goaway::NotYet && !draining {
            // Idle for longer than anybody keeps a connection, or to make room: told to go like in a stop.
            self.start_goaway(now);
            berth.set_busy();
            if evicted {
                crew.side.tally.evicted.add_one();
            }
            crew.wake_at(berth, now + PONG_WAIT);
            berth.wake();
            return Next::Wait;
        }
        // A peer that owes us a PONG, or the rest of a handshake, and has no stream open.
        if self.link.may_have_unread() {
            berth.wake();
            return Next::Wait;
        }
        self.end(crew, true)
    }

    /// Whether the next step is the service's on a stream, and not the client's.
    pub(crate) fn awaits_handler(&self) -> bool {
        self.link.is_anybody_at_work()
    }

    /// Since when the client makes no progress on the whole connection, and when it is given up; `NEVER` if it is not waited for.
    ///
    /// Bytes that cannot be written are its fault, whatever the handlers do. Those that its windows hold back are if nothing else
    /// happens; a PING that it sends, and we answer, is no sign that it reads then. A stream has a timeout of its own
    /// ([`streams`](super::streams)), which comes first.
    fn stalled(&mut self, crew: &Crew<S>, now: Moment) -> (Moment, Moment) {
        let link = &self.link;
        let is_held_back = link.is_held_back() && !link.is_anybody_at_work();
        if link.is_flushed() && !is_held_back {
            self.patience.rest();
            return (now, Moment::NEVER);
        }
        let (written, grace) = if link.is_flushed() { (0, STREAMS_FIRST) } else { (link.written(), Duration::ZERO) };
        let signs = Signs { moved: [link.delivered(), written], unacknowledged: link.unacknowledged() };
        let since = self.patience.last_progress(signs, now);
        (since, crew.side.gives_up(since, ClientTimeout::Send) + grace)
    }

    fn start_goaway(&mut self, now: Moment) {
        self.goaway = Goaway::Sent { at: now };
        if let Some(guest) = &mut self.guest {
            Pin::new(guest).graceful_shutdown();
        }
    }

    /// Whether the last bytes of a response wait for the client for too long. Its stream is out of hyper's hands and cannot be reset. So
    /// the connection takes no other one, and is cut when nothing else moves.
    fn has_stuck_response(&mut self, crew: &Crew<S>, now: Moment) -> bool {
        let Some(moved) = self.link.first_unwritten().filter(|_| self.link.is_flushed()) else {
            self.last_bytes.rest();
            return false;
        };
        let since = self.last_bytes.last_progress(Signs { moved, unacknowledged: 0 }, now);
        now >= crew.side.gives_up(since, ClientTimeout::Send)
    }

    /// Nothing of a response gets through any more: the connection is cut.
    fn cut_stalled(&mut self, crew: &Crew<S>, berth: &Berth, since: Moment, now: Moment) -> Next<T, S> {
        crew.side.note_client_timeout(ClientTimeout::Send, &berth.peer, None);
        let cutter = crew.side.given_up_by(since, ClientTimeout::Send, now);
        self.link.on_torn(cutter);
        if cutter == Cutter::Shutdown {
            self.cut();
            return Next::Close;
        }
        drop(self.guest.take());
        self.link.settle_lost();
        let Some(mut io) = self.take_home() else { return Next::Close };
        // The kernel would keep for minutes what it holds for this client.
        io.reset_on_drop();
        Next::Reset
    }

    /// When this connection is told to go; `NEVER` before a stop.
    fn goaway_moment(&self, crew: &Crew<S>) -> Moment {
        let side = &crew.side;
        match side.phase() {
            Phase::Starting | Phase::Serving => Moment::NEVER,
            Phase::LameDuck => {
                self.announcement.goaway_at(side.lame_duck(), self.jitter, self.responded).max(self.first_request_until())
            }
            Phase::Draining => self.first_request_until(),
            Phase::Cancelling | Phase::CleaningUp | Phase::Stopped => Moment::EPOCH,
        }
    }

    /// Who has just connected may wait for our SETTINGS before it asks. Told to go at once it would never ask anything, here nor
    /// at its next connect.
    fn first_request_until(&self) -> Moment {
        match self.spoke {
            Spoke::Yes => Moment::EPOCH,
            Spoke::No => self.began + FIRST_BYTE_GRACE,
        }
    }

    /// hyper is done with the connection, or we are.
    fn end(&mut self, crew: &Crew<S>, clean: bool) -> Next<T, S> {
        drop(self.guest.take());
        if clean || self.link.is_flushed() {
            self.link.settle_flushed(|| crew.side.clock.now());
        }
        self.link.settle_lost();
        let Some(io) = self.take_home() else { return Next::Close };
        if self.spoke == Spoke::No {
            return Next::linger(Lingering::dismissing(io));
        }
        if io.look() == Look::Data {
            return Next::linger(Lingering::saying(io, Bytes::new()));
        }
        // A client that receives sends, too: the windows that it opens would meet a closed connection, and the reset destroys what
        // it has not received.
        let may_send = crew.side.phase() < Phase::Draining;
        if may_send || io.unacknowledged().is_some_and(|bytes| bytes > 0) {
            return Next::linger(Lingering::delivering(io));
        }
        Next::Close
    }

    fn take_home(&self) -> Option<T> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends whatever goes on. A stream that did not come to its end is whole to nobody, so that the connection need not be reset: that
    /// would destroy answers on other streams that are whole, and still on their way.
    pub(crate) fn cut(&mut self) {
        drop(self.guest.take());
        self.link.settle_lost();
        let Some(mut io) = self.take_home() else { return };
        let cx = &mut Context::from_waker(Waker::noop());
        let mut waste = [0; 4096];
        for _ in 0..64 {
            // Bytes that lie unread would turn the close into a reset.
            let mut unread = ReadBuf::new(&mut waste);
            let read = Pin::new(&mut io).poll_read(cx, &mut unread);
            if !matches!(read, Poll::Ready(Ok(()))) || unread.filled().is_empty() {
                break;
            }
        }
        let _ = Pin::new(&mut io).poll_shutdown(cx);
    }
}

impl<T: Transport, S: HttpService> Drop for Http2<T, S> {
    fn drop(&mut self) {
        drop(self.guest.take());
        self.link.settle_lost();
    }
}

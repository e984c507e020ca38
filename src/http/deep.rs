//! Connections that are parked deep: idle, without a task each.
//!
//! ```text
//!              idle for a while, or in a crowd
//!  Connection ────────── gate ──────────────▶ asleep ──▶ something to read ──▶ answered here, and asleep again
//!      ▲                                        │                │
//!      │                                        │ the drain      │ not plain, takes time, or the last
//!      │                                        ▼                │
//!      │                 last look, FIN, a watch for the race    │
//!      └────────────────────── still awaited, or bytes there ◀───┘
//! ```
//!
//! All of a worker's sleepers wait in one [`Lot`]. What they do there is what a [`Parked`] connection does; a sleeper is awakened, which
//! is to say gets a task again, for whatever takes more than one turn.

use super::{
    Limits,
    announcement::Announcement,
    berth::Berth,
    connection::{Connection, State},
    crew::Crew,
    direct::{Direct, Handover, Served},
    http1::{Http1, after_the_last_answer, joined},
    http2::Http2,
    idle_policy::{Awaited, Idle},
    limits::RACE_WATCH,
    lingering::Lingering,
    parked::{Heard, Parked, READ_AT_ONCE, TURNS},
    patience::{ClientTimeout, Delivery},
    service::HttpService,
    sniff::{Sniffed, after_empty_lines, is_blank, sniff},
};
use crate::{
    env::{Address, Look, Lot, Transport},
    lifecycle::{Moment, Phase},
    unwind::catch,
};
use bytes::Bytes;
use slab::Slab;
use std::{
    future::poll_fn,
    mem::{self, MaybeUninit},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// What is remembered of a sleeper.
#[derive(Debug)]
pub(super) struct Stay {
    /// When its wait began; of one that has not said anything, its accept.
    pub(super) since: Moment,
    pub(super) peer: Address,
    pub(super) local: Arc<Address>,
    pub(super) heard: Heard,
    pub(super) announcement: Announcement,
    /// A response began since the stop request.
    pub(super) responded: bool,
}

impl<D> Sleeper<D> {
    /// When to ask whether the client took the last response.
    fn look_at_delivery(&self, limits: &Limits) -> Moment {
        match self.stay.heard {
            Heard::Nothing => Moment::NEVER,
            Heard::Something => self.delivery.look_at(self.stay.since, limits.send_timeout),
        }
    }
}

impl Stay {
    const fn idle(&self) -> Idle {
        let awaited = match self.heard {
            Heard::Nothing => Awaited::FirstByte,
            Heard::Something => Awaited::NextRequest,
        };
        Idle { awaited, since: self.since }
    }
}

/// Whether a connection makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    Yes,
    No,
}

/// The way from a task into the lot.
#[derive(Debug)]
pub(super) struct Gate<T> {
    open: AtomicBool,
    waiting: Mutex<Vec<(T, Stay)>>,
    come: Notify,
}

impl<T> Gate<T> {
    fn new(open: bool) -> Self {
        Self { open: AtomicBool::new(open), waiting: Mutex::default(), come: Notify::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Whoever passes is looked after from now on.
    ///
    /// # Errors
    /// The connection, if the gate is closed by now.
    pub(super) fn pass(&self, io: T, stay: Stay) -> Result<(), T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_open() {
            return Err(io);
        }
        waiting.push((io, stay));
        drop(waiting);
        self.come.notify_one();
        Ok(())
    }

    /// Ready when somebody has passed.
    pub(super) async fn come(&self) {
        self.come.notified().await;
    }

    fn take(&self) -> Vec<(T, Stay)> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody passes any more.
    fn close(&self) -> Vec<(T, Stay)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.store(false, Relaxed);
        mem::take(&mut *waiting)
    }
}

/// The sleepers of one worker.
pub(super) struct Deep<L: Lot, S: HttpService> {
    crew: Arc<Crew<S>>,
    gate: Arc<Gate<L::Io>>,
    lot: Option<L>,
    sleepers: Slab<Sleeper<L::Deep>>,
    found: Vec<usize>,
    /// Those whose time had come at the last sweep, and who were not seen to yet.
    due: Vec<usize>,
    /// Those who were awakened, for the worker's table.
    awake: Vec<Arc<Berth>>,
}

/// So many sleepers are told to go in one turn of the drain: in a crowd, others have deadlines.
const ENDS_AT_ONCE: usize = 256;

struct Sleeper<D> {
    io: D,
    stay: Stay,
    state: Sleep,
    delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Asleep,
    /// Our side is shut since its stay's moment, and a request that crossed that is looked for.
    Leaving(Race),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    Open,
    Seen,
}

impl<L: Lot, S: HttpService> Deep<L, S> {
    pub(super) fn new(crew: Arc<Crew<S>>, lot: Option<L>) -> Self {
        Self {
            crew,
            gate: Arc::new(Gate::new(lot.is_some())),
            lot,
            sleepers: Slab::new(),
            found: Vec::new(),
            due: Vec::new(),
            awake: Vec::new(),
        }
    }

    pub(super) const fn gate(&self) -> &Arc<Gate<L::Io>> {
        &self.gate
    }

    /// Whether nobody sleeps here, or is about to.
    pub(super) fn is_empty(&self) -> bool {
        self.sleepers.is_empty() && !self.gate.is_open()
    }

    pub(super) fn awakened(&mut self) -> impl Iterator<Item = Arc<Berth>> + use<'_, L, S> {
        self.awake.drain(..)
    }

    /// Ready when sleepers have something to read.
    ///
    /// # Cancel safety
    /// They are found again.
    pub(super) async fn ready(&mut self) {
        let Self { lot, sleepers, found, .. } = self;
        poll_fn(|cx| match lot {
            Some(lot) if !sleepers.is_empty() => lot.poll_ready(cx, found),
            Some(_) | None => Poll::Pending,
        })
        .await;
    }

    /// Takes in who has passed the gate.
    pub(super) fn take_in(&mut self) {
        let waiting = if self.is_draining() { self.gate.close() } else { self.gate.take() };
        for (io, stay) in waiting {
            let Err((io, stay)) = self.lay_down(io, stay) else { continue };
            let parked = Parked::woken(io, &[], stay.heard, stay.since);
            // It has been idle for long enough to ask again at once, and would for ever.
            let no_way = Arc::new(Gate::new(false));
            self.awaken_behind(no_way, berth_of(&stay), State::Parked(parked));
        }
    }

    fn lay_down(&mut self, io: L::Io, stay: Stay) -> Result<(), (L::Io, Stay)> {
        let Some(lot) = self.lot.as_mut().filter(|_| self.gate.is_open()) else { return Err((io, stay)) };
        let bed = self.sleepers.vacant_entry();
        match lot.enter(io, bed.key()) {
            Ok(io) => {
                bed.insert(Sleeper { io, stay, state: Sleep::Asleep, delivery: Delivery::default() });
                Ok(())
            }
            Err(io) => Err((io, stay)),
        }
    }

    /// Sees to those who were found to have something to read.
    pub(super) async fn serve(&mut self) {
        poll_fn(|cx| {
            self.serve_found(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// The same, if there are any.
    pub(super) async fn serve_if_any(&mut self) {
        poll_fn(|cx| {
            if let Some(lot) = self.lot.as_mut().filter(|_| !self.sleepers.is_empty())
                && lot.poll_ready(cx, &mut self.found).is_ready()
            {
                self.serve_found(cx);
            }
            Poll::Ready(())
        })
        .await;
    }

    fn serve_found(&mut self, cx: &mut Context<'_>) {
        let mut found = mem::take(&mut self.found);
        for key in found.drain(..) {
            let Some(sleeper) = self.sleepers.get(key) else { continue };
            match sleeper.state {
                Sleep::Leaving(_) => self.watch(cx, key),
                Sleep::Asleep if self.is_draining() => self.wake(key, Bytes::new()),
                Sleep::Asleep => self.answer(cx, key),
            }
        }
        self.found = found;
    }

    /// Sees to those whose time has come, the first of them at least; when the next one's does.
    pub(super) fn sweep(&mut self, now: Moment) -> Moment {
        if self.is_draining() && self.gate.is_open() {
            self.take_in();
        }
        let mut next = Moment::NEVER;
        if self.due.is_empty() {
            for (key, sleeper) in &self.sleepers {
                let until = self.until(sleeper, now);
                if until <= now { self.due.push(key) } else { next = next.min(until) }
            }
        }
        next.min(self.end_due(now))
    }

    /// Whether some are left whose time has come.
    pub(super) const fn is_behind(&self) -> bool {
        !self.due.is_empty()
    }

    /// Sees to some of them, when others have had a turn; when their time comes again.
    pub(super) fn end_due(&mut self, now: Moment) -> Moment {
        let mut next = Moment::NEVER;
        let left = self.due.len().saturating_sub(ENDS_AT_ONCE);
        while self.due.len() > left
            && let Some(key) = self.due.pop()
        {
            if self.sleepers.get(key).is_some_and(|sleeper| self.until(sleeper, now) <= now) {
                next = next.min(self.end(key, now));
            }
        }
        next
    }

    fn is_draining(&self) -> bool {
        self.crew.side.phase() >= Phase::Draining
    }

    /// Until when a sleeper may stay as it is.
    fn until(&self, sleeper: &Sleeper<L::Deep>, now: Moment) -> Moment {
        let side = &self.crew.side;
        match sleeper.state {
            _ if side.is_cutting() => now,
            Sleep::Leaving(_) => sleeper.stay.since + RACE_WATCH,
            Sleep::Asleep => {
                let idle = sleeper.stay.idle();
                let limits = &side.config.limits;
                idle.deadline(limits, side.draining_since()).min(sleeper.look_at_delivery(limits))
            }
        }
    }

    /// Connections that may be closed to make room, by their keys.
    pub(super) fn idle(&self) -> impl Iterator<Item = (Idle, usize)> {
        let waiting = self.sleepers.iter().filter(|(_, sleeper)| sleeper.state == Sleep::Asleep);
        waiting.map(|(key, sleeper)| (sleeper.stay.idle(), key))
    }

    /// Closes a connection to make room, if it is still as idle as it was.
    pub(super) fn evict(&mut self, key: usize, idle: Idle) -> Evicted {
        let sleeper = self.sleepers.get(key).filter(|sleeper| sleeper.state == Sleep::Asleep && sleeper.stay.idle() == idle);
        if sleeper.is_none_or(|sleeper| sleeper.io.look() == Look::Data) {
            return Evicted::No;
        }
        let Some((stay, berth, io, read)) = self.leave(key) else { return Evicted::Yes };
        if read.is_empty() {
            berth.evict();
        }
        self.resume(&stay, berth, io, &read);
        Evicted::Yes
    }

    /// Its time has come; when it comes again.
    fn end(&mut self, key: usize, now: Moment) -> Moment {
        let is_draining = self.is_draining();
        let Some(sleeper) = self.sleepers.get(key) else { return Moment::NEVER };
        if self.crew.side.is_cutting() {
            if sleeper.state == Sleep::Asleep {
                self.crew.side.tally.untold.add_one();
            }
            self.close(key);
            return Moment::NEVER;
        }
        if matches!(sleeper.state, Sleep::Leaving(_)) {
            // Its time may be over before anybody found the time to look.
            self.watch(&mut Context::from_waker(Waker::noop()), key);
        }
        let Some(sleeper) = self.sleepers.get_mut(key) else { return Moment::NEVER };
        match sleeper.state {
            Sleep::Leaving(race) if sleeper.io.unacknowledged().is_some_and(|bytes| bytes > 1) => {
                if let Some((_, berth, io, _)) = self.leave(key) {
                    let lingering = match race {
                        Race::Open => Lingering::watching(io),
                        Race::Seen => Lingering::delivering(io),
                    };
                    self.awaken(berth, State::Lingering(Box::new(lingering)));
                }
            }
            Sleep::Leaving(_) => self.close(key),
            Sleep::Asleep if !is_draining && sleeper.look_at_delivery(&self.crew.side.config.limits) <= now => {
                let unacknowledged = sleeper.io.unacknowledged().unwrap_or(0) as u64;
                if sleeper.delivery.is_over(unacknowledged, now) {
                    sleeper.io.reset_on_drop();
                    self.crew.side.note_client_timeout(ClientTimeout::Send, &sleeper.stay.peer, None);
                    self.crew.side.tally.reset.add_one();
                    self.close(key);
                }
            }
            // It closes itself.
            Sleep::Asleep if !is_draining => self.wake(key, Bytes::new()),
            // The last look, then a FIN (P5).
            Sleep::Asleep => match sleeper.io.look() {
                Look::Data => self.wake(key, Bytes::new()),
                Look::Ended | Look::Broken => self.close(key),
                Look::Empty | Look::Unknown => {
                    let _ = Pin::new(&mut sleeper.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
                    sleeper.stay.since = now;
                    sleeper.state = Sleep::Leaving(Race::Open);
                    self.crew.side.tally.untold.add_one();
                    return now + RACE_WATCH;
                }
            },
        }
        Moment::NEVER
    }

    /// What comes behind our FIN gets no answer, and is counted (RFC 9112 §9.5).
    fn watch(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(Sleeper { io, state: Sleep::Leaving(race), .. }) = self.sleepers.get_mut(key) else { return };
        let mut waste = [0; READ_AT_ONCE];
        let mut unread = ReadBuf::new(&mut waste);
        match Pin::new(io).poll_read(cx, &mut unread) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !unread.filled().is_empty() => {
                if !is_blank(unread.filled()) && mem::replace(race, Race::Seen) == Race::Open {
                    self.crew.side.tally.raced.add_one();
                }
            }
            Poll::Ready(Ok(()) | Err(_)) => self.close(key),
        }
    }

    /// Answers what is plain, and lets it sleep on.
    fn answer(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(Sleeper { io, stay, delivery, .. }) = self.sleepers.get_mut(key) else { return };
        let mut room = [MaybeUninit::uninit(); READ_AT_ONCE];
        let mut room = ReadBuf::uninit(&mut room);
        match Pin::new(&mut *io).poll_read(cx, &mut room) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) if !room.filled().is_empty() => {}
            Poll::Ready(Ok(()) | Err(_)) => return self.close(key),
        }
        let read = after_empty_lines(room.filled());
        if read.is_empty() {
            return;
        }
        match sniff(read) {
            Sniffed::Http1 => {}
            Sniffed::Undecided | Sniffed::Http2 => return self.wake(key, Bytes::copy_from_slice(read)),
        }
        stay.heard = Heard::Something;
        let mut direct = Direct::new(&self.crew, &berth_of(stay));
        let mut turns = TURNS;
        // What a body panics where nobody else catches it costs a connection its task; this task is everybody's.
        let Ok(served) = catch(|| direct.serve(cx, io, read, &mut turns)) else {
            let link = direct.link().clone();
            drop(direct);
            link.settle_lost();
            return self.close(key);
        };
        match served {
            Served::All(now) => {
                stay.since = now;
                stay.responded |= direct.link().has_responded();
                *delivery = Delivery::default();
            }
            Served::NotOurs(rest) => self.hand_over(key, *direct.hand_over(rest.on_another_task())),
            Served::Last(read) => {
                let _ = Pin::new(io).poll_shutdown(cx);
                let Some((_, berth, io, more)) = self.leave(key) else { return };
                match after_the_last_answer(io, &joined(read, more), direct.link()) {
                    Some(lingering) => self.awaken(berth, State::Lingering(Box::new(lingering))),
                    None => self.count_closed(),
                }
            }
            Served::Torn => {
                io.reset_on_drop();
                self.crew.side.tally.reset.add_one();
                drop(self.sleepers.try_remove(key));
                self.count_closed();
            }
            Served::Lost => self.close(key),
        }
    }

    fn hand_over(&mut self, key: usize, mut handover: Handover<S>) {
        let Some((_, berth, io, more)) = self.leave(key) else { return };
        handover.read = joined(handover.read, more);
        let http1 = Http1::taking_over(&self.crew, io, handover);
        self.awaken(berth, State::Http1(Box::new(http1)));
    }

    /// Gives it a task again, and these bytes to begin with.
    fn wake(&mut self, key: usize, read: Bytes) {
        let Some((stay, berth, io, more)) = self.leave(key) else { return };
        self.resume(&stay, berth, io, &joined(read, more));
    }

    fn resume(&mut self, stay: &Stay, berth: Berth, io: L::Io, read: &Bytes) {
        let read = read.slice_ref(after_empty_lines(read));
        let state = match sniff(&read) {
            Sniffed::Undecided if is_blank(&read) => State::Parked(Parked::woken(io, &read, stay.heard, stay.since)),
            Sniffed::Undecided => State::Parked(Parked::woken(io, &read, Heard::Something, self.crew.side.clock.now())),
            Sniffed::Http1 => State::Http1(Box::new(Http1::new(&self.crew, &berth, io, read))),
            Sniffed::Http2 => State::Http2(Box::new(Http2::new(&self.crew, &berth, io, read))),
        };
        self.awaken(berth, state);
    }

    fn awaken(&mut self, berth: Berth, state: State<L::Io, S>) {
        self.awaken_behind(self.gate.clone(), berth, state);
    }

    fn awaken_behind(&mut self, gate: Arc<Gate<L::Io>>, berth: Berth, state: State<L::Io, S>) {
        let berth = Arc::new(berth);
        self.awake.push(berth.clone());
        let connection = Connection::woken(self.crew.clone(), berth, gate, state);
        self.crew.spawn(connection);
    }

    /// Takes a sleeper out; `None` if it was lost.
    fn leave(&mut self, key: usize) -> Option<(Stay, Berth, L::Io, Bytes)> {
        let sleeper = self.sleepers.try_remove(key)?;
        match self.lot.as_mut()?.leave(sleeper.io) {
            Ok((io, read)) => {
                let berth = berth_of(&sleeper.stay);
                Some((sleeper.stay, berth, io, read))
            }
            Err(error) => {
                crate::log::warn!(%error, "an idle connection could not be awakened");
                self.count_closed();
                None
            }
        }
    }

    fn close(&mut self, key: usize) {
        if self.sleepers.try_remove(key).is_some() {
            self.count_closed();
        }
    }

    fn count_closed(&self) {
        let tally = &self.crew.side.tally;
        if self.is_draining() {
            tally.drained.add_one();
        }
        tally.closed.add_one();
        self.crew.on_connection_closed();
    }
}

fn berth_of(stay: &Stay) -> Berth {
    let (peer, local) = (stay.peer.clone(), stay.local.clone());
    let berth = Berth::new(stay.since, peer, local, stay.announcement);
    if stay.responded {
        berth.note_responded();
    }
    berth
}

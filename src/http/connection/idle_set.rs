//! Idle connections of one worker, which have no task each.
//!
//! ```text
//!             idle for 1 s, or too many tasks
//!  Connection ───────── IdleHandoff ─────────▶ Waiting ◀──▶ readable: served here
//!    ▲                                           │ │
//!    │                                     drain │ │ needs hyper, takes time, or the last response
//!    │                                           ▼ └───────────────────────────────────────┐
//!    │                 final read, FIN, then Closing: watch for a close race               │
//!    │                                           │                                         │
//!    │                                           │ input found, or unacknowledged bytes    │
//!    │                                           ▼                                         │
//!    └───────────────────────────── the connection gets a task again ◀─────────────────────┘
//! ```
//!
//! All idle connections of a worker are polled by one [`IdlePoller`]. Here a connection behaves
//! like a [`Parked`] one. It is resumed, which gives it a task again, for all that takes more than
//! one poll.

use super::{
    http1::Http1,
    http2::Http2,
    idle_handoff::{IdleHandoff, IdleInfo, IdleState},
    lingering::{FIN_BYTES, Lingering, Race, close_after_response},
    parked::{Parked, READ_BUF_SIZE, read_buf},
    stall_timer::Delivery,
    task::{Connection, State},
    transition::ReceivedAny,
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        http_service::HttpService,
        sniff::{Sniffed, after_empty_lines, is_blank, sniff_as},
        tracked_io::joined,
    },
    fast_path::serve::{FastPath, FastPathOutcome, HyperHandoff},
    server::{
        client_timeout::ClientTimeout, connection_slot::ConnectionSlot, idle_policy::Idle,
        limits::RACE_WATCH,
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{IdlePoller, Peek, Transport},
};
use bytes::Bytes;
use slab::Slab;
use std::{
    collections::BTreeMap,
    future::poll_fn,
    mem::{self, MaybeUninit},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Number of watches that end together, from which on one query for all connections is cheaper than
/// one query each. It walks through all connections of the machine, which takes some milliseconds.
const QUERY_AT_ONCE_FROM: usize = 512;

/// Entries that the table has room for as soon as there is one. The allocator gives so large a
/// table separate pages, and only pages with an entry take memory. A table that grows from nothing
/// leaves a hole of each size in the worker's heap.
const FIRST_CAPACITY: usize = 2048;

/// Whether a connection makes room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    Yes,
    No,
}

/// The idle connections of one worker.
pub(crate) struct IdleSet<L: IdlePoller, S: HttpService> {
    worker: Arc<WorkerContext<S>>,
    handoff: Arc<IdleHandoff<L::Io>>,
    poller: Option<L>,
    connections: Slab<IdleConnection<L::Idle>>,
    /// What clients had not acknowledged when the kernel was last queried about their connections.
    /// Not in the entries, since there are few of them.
    undelivered: BTreeMap<usize, Delivery>,
    found: Vec<usize>,
    /// Keys of connections whose deadlines had expired at the last sweep, and that were not handled
    /// yet.
    expired: Vec<usize>,
    /// The last sweep did not look at the other connections, because these were left.
    sweep_skipped: bool,
    /// Slots of resumed connections, for the worker's table.
    resumed: Vec<Arc<ConnectionSlot>>,
}

struct IdleConnection<D> {
    io: D,
    info: IdleInfo,
}

impl<L: IdlePoller, S: HttpService> IdleSet<L, S> {
    pub(crate) fn new(worker: Arc<WorkerContext<S>>, poller: Option<L>) -> Self {
        Self {
            worker,
            handoff: Arc::new(IdleHandoff::new(poller.is_some())),
            poller,
            connections: Slab::new(),
            undelivered: BTreeMap::new(),
            found: Vec::new(),
            expired: Vec::new(),
            sweep_skipped: false,
            resumed: Vec::new(),
        }
    }

    pub(crate) const fn handoff(&self) -> &Arc<IdleHandoff<L::Io>> {
        &self.handoff
    }

    /// Whether the set is empty and accepts no more connections.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && !self.handoff.is_open()
    }

    pub(crate) fn drain_resumed(
        &mut self,
    ) -> impl Iterator<Item = Arc<ConnectionSlot>> + use<'_, L, S> {
        self.resumed.drain(..)
    }

    /// Ready when connections are readable.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: readable connections are found again.
    pub(crate) async fn ready(&mut self) {
        let Self { poller, connections, found, .. } = self;
        poll_fn(|cx| match poller {
            Some(poller) if !connections.is_empty() => poller.poll_ready(cx, found),
            Some(_) | None => Poll::Pending,
        })
        .await;
    }

    /// Moves connections from the handoff into the set. One that cannot be inserted is resumed.
    /// Returns whether there were any.
    pub(crate) fn drain_handoff(&mut self) -> bool {
        let waiting = if self.is_draining() { self.handoff.close() } else { self.handoff.take() };
        let has_any = !waiting.is_empty();
        for (io, info) in waiting {
            let Err((io, info)) = self.insert(io, info) else { continue };
            let parked = Parked::resumed(io, &[], info.received_any, info.since);
            // It would ask to be suspended again at once, in a loop. Give it a closed handoff.
            let closed = Arc::new(IdleHandoff::new(false));
            self.resume_with(closed, slot_of(&info), State::Parked(parked));
        }
        has_any
    }

    fn insert(&mut self, io: L::Io, info: IdleInfo) -> Result<(), (L::Io, IdleInfo)> {
        let Some(poller) = self.poller.as_mut().filter(|_| self.handoff.is_open()) else {
            return Err((io, info));
        };
        if self.connections.capacity() == 0 {
            self.connections.reserve(FIRST_CAPACITY);
        }
        let entry = self.connections.vacant_entry();
        match poller.insert(io, entry.key()) {
            Ok(io) => {
                entry.insert(IdleConnection { io, info });
                Ok(())
            }
            Err(io) => Err((io, info)),
        }
    }

    /// Serves the connections that were found to be readable.
    pub(crate) async fn serve(&mut self) {
        poll_fn(|cx| {
            self.serve_found(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Serves connections that are readable now, if there are any.
    pub(crate) async fn serve_ready_now(&mut self) {
        poll_fn(|cx| {
            if let Some(poller) = self.poller.as_mut().filter(|_| !self.connections.is_empty())
                && poller.poll_ready(cx, &mut self.found).is_ready()
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
            let Some(connection) = self.connections.get(key) else { continue };
            match connection.info.state {
                IdleState::Closing(_) => self.count_race(cx, key),
                IdleState::Waiting if self.is_draining() => self.wake_task(key, Bytes::new()),
                IdleState::Waiting => self.serve_one(cx, key),
            }
        }
        self.found = found;
    }

    /// Handles connections whose deadlines have expired, up to a batch. Returns the next deadline.
    pub(crate) fn sweep(&mut self, now: Moment) -> Moment {
        if self.is_draining() && self.handoff.is_open() {
            self.drain_handoff();
        }
        let mut next = Moment::NEVER;
        self.sweep_skipped = !self.expired.is_empty();
        if self.expired.is_empty() {
            for (key, connection) in &self.connections {
                let until = self.until(key, connection, now);
                if until <= now { self.expired.push(key) } else { next = next.min(until) }
            }
            self.query_closing();
        }
        next.min(self.handle_expired(now))
    }

    /// Queries the kernel once about all closing connections, if many of them end their watch.
    /// Nothing is written after a FIN, so the result stays true for all of them.
    fn query_closing(&mut self) {
        let needs_answer = |key: &&usize| {
            let connection = self.connections.get(**key);
            connection.is_some_and(|closing| closing.info.awaits_acknowledgement())
        };
        let Some(poller) = &mut self.poller else { return };
        if self.expired.iter().filter(needs_answer).count() < QUERY_AT_ONCE_FROM
            || !poller.query_shut()
        {
            return;
        }
        for (_, IdleConnection { io, info }) in &mut self.connections {
            if info.awaits_acknowledgement() {
                info.delivered = poller.unacknowledged(io).is_none_or(|bytes| bytes <= FIN_BYTES);
            }
        }
    }

    /// Whether expired connections are left that were not handled yet.
    pub(crate) const fn has_more_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// Handles a batch of expired connections. Returns the next deadline among them.
    pub(crate) fn handle_expired(&mut self, now: Moment) -> Moment {
        let mut next = Moment::NEVER;
        let batch = self.worker.server().caps().close_batch;
        batch.note(self.expired.len());
        let left = self.expired.len().saturating_sub(batch.get());
        while self.expired.len() > left
            && let Some(key) = self.expired.pop()
        {
            if self
                .connections
                .get(key)
                .is_some_and(|connection| self.until(key, connection, now) <= now)
            {
                next = next.min(self.on_expired(key, now));
            }
        }
        let is_late = self.expired.is_empty() && mem::take(&mut self.sweep_skipped);
        if is_late { now } else { next }
    }

    fn is_draining(&self) -> bool {
        self.worker.server().phase() >= Phase::Draining
    }

    /// Returns the moment until which a connection may stay in its state.
    fn until(&self, key: usize, connection: &IdleConnection<L::Idle>, now: Moment) -> Moment {
        let server = &self.worker.server();
        match connection.info.state {
            _ if server.is_cutting() => now,
            IdleState::Closing(_) => connection.info.since + RACE_WATCH,
            IdleState::Waiting => {
                let idle = connection.info.idle();
                let limits = &server.config.limits;
                idle.deadline(limits, server.draining_since())
                    .min(self.next_delivery_check(key, &connection.info))
            }
        }
    }

    /// Returns when to check whether the client has received the last response.
    fn next_delivery_check(&self, key: usize, info: &IdleInfo) -> Moment {
        match info.received_any {
            ReceivedAny::Yes if !info.delivered => {
                let delivery = self.undelivered.get(&key).unwrap_or(&Delivery::Unknown);
                delivery.next_check(info.since, self.worker.server().config.limits.send_timeout)
            }
            ReceivedAny::Yes | ReceivedAny::No | ReceivedAny::Handshake => Moment::NEVER,
        }
    }

    /// Returns the connections that may be closed to make room, with their keys.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (Idle, usize)> {
        let waiting = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.info.state == IdleState::Waiting);
        waiting.map(|(key, connection)| (connection.info.idle(), key))
    }

    /// Closes a connection to make room, if it has been idle since the search.
    pub(crate) fn evict(&mut self, key: usize, idle: Idle) -> Evicted {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| {
            connection.info.state == IdleState::Waiting && connection.info.idle() == idle
        }) else {
            return Evicted::No;
        };
        if final_read(&mut connection.io) == Peek::Data {
            self.wake_if_buffered(key);
            return Evicted::No;
        }
        let Some((info, slot, io, read)) = self.remove(key) else { return Evicted::Yes };
        if read.is_empty() {
            slot.evict();
        }
        self.resume_sniffed(&info, slot, io, &read);
        Evicted::Yes
    }

    /// Handles a connection whose deadline has expired. Returns its next deadline.
    fn on_expired(&mut self, key: usize, now: Moment) -> Moment {
        let is_draining = self.is_draining();
        let Some(connection) = self.connections.get(key) else { return Moment::NEVER };
        if self.worker.server().is_cutting() {
            if connection.info.state == IdleState::Waiting {
                self.worker.server().metrics.unannounced.add_one();
            }
            self.close(key);
            return Moment::NEVER;
        }
        if matches!(connection.info.state, IdleState::Closing(_)) {
            // The deadline may pass before the socket was polled; poll it once more.
            self.count_race(&mut Context::from_waker(Waker::noop()), key);
        }
        let Some(connection) = self.connections.get(key) else { return Moment::NEVER };
        let delivery_is_due = self.next_delivery_check(key, &connection.info) <= now;
        let Some(connection) = self.connections.get_mut(key) else { return Moment::NEVER };
        let is_unacknowledged = connection.info.awaits_acknowledgement()
            && connection.io.unacknowledged().is_some_and(|bytes| bytes > FIN_BYTES);
        match connection.info.state {
            IdleState::Closing(race) if is_unacknowledged => {
                if let Some((_, slot, io, _)) = self.remove(key) {
                    let lingering = match race {
                        Race::Open => Lingering::counting_races(io),
                        Race::NotCounted | Race::Seen => Lingering::until_acked(io),
                    };
                    self.resume(slot, State::Lingering(Box::new(lingering)));
                }
            }
            IdleState::Closing(_) => self.close(key),
            IdleState::Waiting if !is_draining && delivery_is_due => {
                let unacknowledged = connection.io.unacknowledged().unwrap_or(0) as u64;
                let delivery = self.undelivered.entry(key).or_default();
                if delivery.expired(unacknowledged, now) {
                    connection.io.reset_on_drop();
                    self.worker.server().note_client_timeout(
                        ClientTimeout::Send,
                        &connection.info.peer,
                        None,
                    );
                    self.worker.server().metrics.reset.add_one();
                    self.close(key);
                } else if unacknowledged == 0 {
                    connection.info.delivered = true;
                    self.undelivered.remove(&key);
                }
            }
            // The resumed connection closes itself.
            IdleState::Waiting if !is_draining => self.wake_task(key, Bytes::new()),
            // Final read, then FIN (P5b).
            IdleState::Waiting => match final_read(&mut connection.io) {
                Peek::Data => self.wake_task(key, Bytes::new()),
                Peek::Ended | Peek::Broken => self.close(key),
                Peek::Empty | Peek::Unknown => {
                    let _ = Pin::new(&mut connection.io)
                        .poll_shutdown(&mut Context::from_waker(Waker::noop()));
                    connection.info.since = now;
                    connection.info.state = IdleState::Closing(Race::Open);
                    self.worker.server().metrics.unannounced.add_one();
                    return now + RACE_WATCH;
                }
            },
        }
        Moment::NEVER
    }

    /// Discards input after our FIN. It gets no response, but is counted as a close race (RFC 9112
    /// §9.5).
    fn count_race(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(IdleConnection { io, info, .. }) = self.connections.get_mut(key) else { return };
        let IdleState::Closing(race) = &mut info.state else { return };
        let mut discard = [0; READ_BUF_SIZE];
        let mut unread = ReadBuf::new(&mut discard);
        match Pin::new(io).poll_read(cx, &mut unread) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !unread.filled().is_empty() => {
                if !is_blank(unread.filled()) && mem::replace(race, Race::Seen) == Race::Open {
                    self.worker.server().metrics.close_races.add_one();
                }
            }
            Poll::Ready(Ok(()) | Err(_)) => self.close(key),
        }
    }

    /// Serves fast-path requests. The connection stays in the set unless its last response was sent
    /// or hyper must take over.
    fn serve_one(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(IdleConnection { io, info }) = self.connections.get_mut(key) else { return };
        let caps = self.worker.server().caps();
        let mut buf = [MaybeUninit::uninit(); READ_BUF_SIZE];
        let mut buf = read_buf(&mut buf, caps);
        match Pin::new(&mut *io).poll_read(cx, &mut buf) {
            Poll::Pending => return self.wake_if_buffered(key),
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            Poll::Ready(Ok(()) | Err(_)) => return self.close(key),
        }
        let read = after_empty_lines(buf.filled());
        if read.is_empty() {
            return self.wake_if_buffered(key);
        }
        match sniff_as(io.negotiated(), read) {
            Sniffed::Http1 => {}
            Sniffed::Undecided | Sniffed::Http2 => {
                return self.wake_task(key, Bytes::copy_from_slice(read));
            }
        }
        info.received_any = ReceivedAny::Yes;
        let mut fast_path =
            FastPath::new(&self.worker.service, &self.worker.shared, &slot_of(info));
        let mut requests_left = caps.requests_per_poll.get_u32();
        match fast_path.serve(cx, io, read, &mut requests_left) {
            FastPathOutcome::AllServed(now) => {
                info.since = now;
                info.responded |= fast_path.connection().responses.has_responded();
                info.delivered = false;
                self.undelivered.remove(&key);
                self.wake_if_buffered(key);
            }
            FastPathOutcome::Fallback(leftover) => {
                self.resume_http1(key, *fast_path.into_handoff(leftover.for_another_task()));
            }
            FastPathOutcome::LastSent(read) => {
                let _ = Pin::new(io).poll_shutdown(cx);
                let Some((_, slot, io, more)) = self.remove(key) else { return };
                match close_after_response(io, &joined(read, more), fast_path.connection()) {
                    Some(lingering) => self.resume(slot, State::Lingering(Box::new(lingering))),
                    None => self.count_closed(),
                }
            }
            FastPathOutcome::Disconnected => self.close(key),
        }
    }

    fn resume_http1(&mut self, key: usize, mut handoff_to_hyper: HyperHandoff<S>) {
        let Some((_, slot, io, more)) = self.remove(key) else { return };
        handoff_to_hyper.read = joined(handoff_to_hyper.read, more);
        let http1 = Http1::resume(&self.worker, io, handoff_to_hyper);
        self.resume(slot, State::Http1(Box::new(http1)));
    }

    /// Resumes a connection if its transport has taken bytes out of the kernel, where the poller
    /// does not see them. An incomplete record has its own timeout, like a partial head.
    fn wake_if_buffered(&mut self, key: usize) {
        if self.connections.get(key).is_some_and(|connection| connection.io.has_buffered()) {
            self.wake_task(key, Bytes::new());
        }
    }

    /// Resumes a connection, which begins with these bytes.
    fn wake_task(&mut self, key: usize, read: Bytes) {
        let Some((info, slot, io, more)) = self.remove(key) else { return };
        self.resume_sniffed(&info, slot, io, &joined(read, more));
    }

    fn resume_sniffed(&mut self, info: &IdleInfo, slot: ConnectionSlot, io: L::Io, read: &Bytes) {
        let read = read.slice_ref(after_empty_lines(read));
        let state = match sniff_as(io.negotiated(), &read) {
            _ if is_blank(&read) => {
                State::Parked(Parked::resumed(io, &read, info.received_any, info.since))
            }
            Sniffed::Undecided => State::Parked(Parked::resumed(
                io,
                &read,
                ReceivedAny::Yes,
                self.worker.server().clock.now(),
            )),
            Sniffed::Http1 => State::Http1(Box::new(Http1::new(&self.worker, &slot, io, read))),
            Sniffed::Http2 => State::Http2(Box::new(Http2::new(&self.worker, &slot, io, read))),
        };
        self.resume(slot, state);
    }

    fn resume(&mut self, slot: ConnectionSlot, state: State<L::Io, S>) {
        self.resume_with(self.handoff.clone(), slot, state);
    }

    fn resume_with(
        &mut self,
        handoff: Arc<IdleHandoff<L::Io>>,
        slot: ConnectionSlot,
        state: State<L::Io, S>,
    ) {
        let slot = Arc::new(slot);
        self.resumed.push(slot.clone());
        let connection = Connection::resumed(self.worker.clone(), slot, handoff, state);
        self.worker.spawn(connection);
    }

    /// Removes a connection from the set; `None` if that failed and the connection was lost.
    fn remove(&mut self, key: usize) -> Option<(IdleInfo, ConnectionSlot, L::Io, Bytes)> {
        self.undelivered.remove(&key);
        let connection = self.connections.try_remove(key)?;
        match self.poller.as_mut()?.remove(connection.io) {
            Ok((io, read)) => {
                let slot = slot_of(&connection.info);
                Some((connection.info, slot, io, read))
            }
            Err(error) => {
                crate::log::warn!(%error, "cannot resume an idle connection; closing it");
                self.count_closed();
                None
            }
        }
    }

    fn close(&mut self, key: usize) {
        self.undelivered.remove(&key);
        if let Some(mut connection) = self.connections.try_remove(key) {
            connection.io.end_cleanly();
            self.count_closed();
        }
    }

    fn count_closed(&self) {
        let metrics = &self.worker.server().metrics;
        if self.is_draining() {
            metrics.drained.add_one();
        }
        metrics.closed.add_one();
        self.worker.on_connection_closed();
    }
}

/// Looks for bytes of a request in the kernel and in the transport's own buffer.
fn final_read<T: Transport>(io: &mut T) -> Peek {
    io.read_ahead();
    if io.has_buffered() { Peek::Data } else { io.peek() }
}

fn slot_of(info: &IdleInfo) -> ConnectionSlot {
    let (peer, local) = (info.peer.clone(), info.local.clone());
    let slot = ConnectionSlot::new(info.since, peer, local, info.announcement);
    if info.responded {
        slot.note_responded();
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::IdleConnection;

    #[test]
    fn an_idle_connection_takes_72_bytes() {
        // As large as a descriptor with its kind and its flags.
        type Socket = [u32; 2];
        assert_eq!(size_of::<IdleConnection<Socket>>(), 72);
    }
}

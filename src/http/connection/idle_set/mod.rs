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
//!
//! | file | what it does |
//! |---|---|
//! | [`serve`] | serves readable connections |
//! | [`sweep`] | acts on deadlines, and closes |
//! | [`resume`] | gives a connection a task again |

mod resume;
mod serve;
mod sweep;

use super::{
    idle_handoff::{IdleHandoff, IdleInfo, IdleState},
    parked::Parked,
    stall_timer::Delivery,
    task::State,
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::http_service::HttpService,
    server::{connection_slot::ConnectionSlot, idle_policy::Idle},
};
use crate::{
    lifecycle::Phase,
    runtime::{IdlePoller, Peek, Transport},
};
use bytes::Bytes;
use slab::Slab;
use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll};

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

    fn is_draining(&self) -> bool {
        self.worker.server().phase() >= Phase::Draining
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
        // With a part of a request it stays.
        let evicted = if read.is_empty() { Evicted::Yes } else { Evicted::No };
        if evicted == Evicted::Yes {
            slot.evict();
        }
        self.resume_sniffed(&info, slot, io, &read);
        evicted
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
        self.worker.capacity.on_connection_closed();
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
    slot.record_sent(info.sent.into());
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

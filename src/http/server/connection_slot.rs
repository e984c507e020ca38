//! A connection's slot in its worker's table: its waker, and the latest moment to wake it.

use super::{
    announcement::Announcement,
    idle_policy::{Awaited, Idle},
};
use crate::{lifecycle::Moment, runtime::Address};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

/// Shared by a connection and its worker's sweep. The sweep is the connection's only timer.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) accepted: Moment,
    peer: Address,
    /// The client that a proxy has announced. Boxed, since most connections have none.
    client: OnceLock<Box<Address>>,
    pub(crate) local: Arc<Address>,
    pub(crate) announcement: Announcement,
    /// Whether a response began since the stop request.
    responded: AtomicBool,
    /// Set once: each connection is a task of its own, and a task keeps one waker from its first
    /// poll to its last.
    waker: OnceLock<Waker>,
    wake_at: AtomicU64,
    /// Set by [`Self::set_idle`]; `BUSY` while the connection is busy.
    idle: AtomicU64,
    /// What a busy connection waits for, and since when. Set by [`Self::set_busy_awaiting`].
    busy_awaits: AtomicU64,
    /// [`EVICTED`] and [`CHOSEN`].
    eviction: AtomicU8,
    /// Set by [`Self::make_room`].
    makes_room: AtomicBool,
    closed: AtomicBool,
    sent: AtomicU64,
    sends_large: AtomicBool,
}

/// Marks a connection that is not idle, in place of a moment.
const BUSY: u64 = u64::MAX;

/// Bit of a connection that closes if it still waits. The state of the connection takes it.
const EVICTED: u8 = 1;
/// Bit of a connection that was chosen to make room, until it closes or another is to be chosen.
/// One atomic has both bits, since another thread may choose the connection while it is polled.
const CHOSEN: u8 = 2;

/// How responses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteStrategy {
    /// Copies head and body together and writes them with one call. For small responses this is
    /// cheaper than a vectored write.
    Flatten,
    /// Writes the buffers as they are.
    Vectored,
}

impl ConnectionSlot {
    pub(crate) fn new(
        accepted: Moment,
        peer: Address,
        local: Arc<Address>,
        announcement: Announcement,
    ) -> Self {
        Self {
            accepted,
            peer,
            client: OnceLock::new(),
            local,
            announcement,
            responded: AtomicBool::new(false),
            waker: OnceLock::new(),
            wake_at: AtomicU64::new(Moment::NEVER.as_nanos()),
            idle: AtomicU64::new(BUSY),
            busy_awaits: AtomicU64::new(BUSY),
            eviction: AtomicU8::new(0),
            makes_room: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            sends_large: AtomicBool::new(false),
        }
    }

    /// The address of the client: of the socket's peer, unless a proxy has announced another.
    pub(crate) fn peer(&self) -> &Address {
        self.client.get().map_or(&self.peer, |client| client)
    }

    pub(crate) fn set_client(&self, client: Address) {
        self.client.get_or_init(|| Box::new(client));
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    /// Sets the moment from which the next sweep wakes the connection: see
    /// `WorkerContext::wake_at`.
    pub(crate) fn set_due(&self, at: Moment) {
        self.wake_at.store(at.as_nanos(), Relaxed);
    }

    /// Wakes the connection. Without a waker it was never polled, and its first poll is about to
    /// come.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Wakes the connection if it is due. Returns the moment at which it is due, `NEVER` once it
    /// was woken.
    pub(crate) fn wake_if_due(&self, now: Moment) -> Moment {
        let due = Moment::from_nanos(self.wake_at.load(Relaxed));
        if due > now {
            return due;
        }
        self.wake_at.store(Moment::NEVER.as_nanos(), Relaxed);
        self.wake();
        Moment::NEVER
    }

    /// Marks the connection as idle. It may then be closed to make room for another.
    pub(crate) fn set_idle(&self, idle: Idle) {
        let packed = match idle.awaited {
            Awaited::FirstByte => idle.since.as_nanos() << 1 | 1,
            Awaited::NextRequest => idle.since.as_nanos() << 1,
            Awaited::Handshake | Awaited::Head | Awaited::Client | Awaited::Handler => BUSY,
        };
        self.idle.store(packed, Relaxed);
    }

    /// Marks the connection as not idle.
    pub(crate) fn set_busy(&self) {
        self.idle.store(BUSY, Relaxed);
    }

    /// Records what a busy connection waits for. Although it is in the middle of a request or a
    /// response, it is then evictable.
    pub(crate) fn set_busy_awaiting(&self, awaited: Awaited, now: Moment) {
        let kind = u64::from(awaited == Awaited::Handler);
        let last = self.busy_awaits.load(Relaxed);
        if last == BUSY || last & 1 != kind {
            self.busy_awaits.store(now.as_nanos() << 1 | kind, Relaxed);
        }
    }

    pub(crate) fn clear_busy_awaiting(&self) {
        self.busy_awaits.store(BUSY, Relaxed);
    }

    /// Returns what the connection waits for, if it may be closed to make room. It may have become
    /// busy in the meantime.
    pub(crate) fn evictable(&self) -> Option<Idle> {
        self.idle().or_else(|| {
            let packed = self.busy_awaits.load(Relaxed);
            let awaited = if packed & 1 == 1 { Awaited::Handler } else { Awaited::Client };
            (packed != BUSY).then_some(Idle { awaited, since: Moment::from_nanos(packed >> 1) })
        })
    }

    /// Returns what the connection waits for, if it is idle.
    pub(crate) fn idle(&self) -> Option<Idle> {
        let packed = self.idle.load(Relaxed);
        let awaited = if packed & 1 == 1 { Awaited::FirstByte } else { Awaited::NextRequest };
        (packed != BUSY).then_some(Idle { awaited, since: Moment::from_nanos(packed >> 1) })
    }

    /// Makes the connection close, if it still waits when it is polled.
    pub(crate) fn evict(&self) {
        self.eviction.store(EVICTED | CHOSEN, Relaxed);
        self.wake();
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.eviction.load(Relaxed) & EVICTED != 0
    }

    /// Whether [`Self::evict`] was called since the last call. A connection that is busy when it is
    /// polled stays.
    pub(crate) fn take_evicted(&self) -> bool {
        self.is_evicted() && self.eviction.fetch_and(!EVICTED, Relaxed) & EVICTED != 0
    }

    /// Whether the connection was chosen to make room, and has not decided yet whether it does.
    pub(crate) fn is_chosen(&self) -> bool {
        self.eviction.load(Relaxed) & CHOSEN != 0
    }

    /// Whether the connection was chosen and stays after all. If another thread has chosen it after
    /// its state has looked, and it still waits, its next poll decides.
    pub(crate) fn stays(&self) -> bool {
        self.is_chosen() && !(self.is_evicted() && self.evictable().is_some())
    }

    /// Records that the connection stays.
    pub(crate) fn clear_chosen(&self) {
        self.eviction.store(0, Relaxed);
    }

    /// Records that the connection is being closed because it was chosen to make room.
    pub(crate) fn make_room(&self) {
        self.makes_room.store(true, Relaxed);
    }

    pub(crate) fn makes_room(&self) -> bool {
        self.makes_room.load(Relaxed)
    }

    /// Records that the connection stays for a request that has arrived since. Returns whether it
    /// was being closed to make room.
    pub(crate) fn take_makes_room(&self) -> bool {
        self.makes_room() && self.makes_room.swap(false, Relaxed)
    }

    /// Switches to vectored writes, because the responses on this connection have proved to be
    /// large.
    pub(crate) fn use_vectored_writes(&self) {
        self.sends_large.store(true, Relaxed);
    }

    pub(crate) fn write_strategy(&self) -> WriteStrategy {
        if self.sends_large.load(Relaxed) {
            WriteStrategy::Vectored
        } else {
            WriteStrategy::Flatten
        }
    }

    /// Records for the next protocol state of the connection that a response began since the stop
    /// request.
    pub(crate) fn note_responded(&self) {
        self.responded.store(true, Relaxed);
    }

    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Relaxed)
    }

    /// Records for the next protocol state of the connection how many bytes were written.
    pub(crate) fn record_sent(&self, bytes: u64) {
        self.sent.store(bytes, Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(crate) fn mark_closed(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // On the internal server a client that sends byte by byte makes its connection be polled all
    // the time. If each poll began its wait again, it would never make room (P16).
    #[test]
    fn a_busy_connection_waits_since_it_began_to_wait_for_the_same() {
        let local = Arc::new(Address::Unix(None));
        let (peer, announcement) = (Address::Unix(None), Announcement::OPENED_BEFORE);
        let slot = ConnectionSlot::new(Moment::EPOCH, peer, local, announcement);
        let waits = |awaited, now: u64| {
            slot.set_busy_awaiting(awaited, Moment::from_nanos(now));
            slot.evictable().map(|idle| (idle.awaited, idle.since.as_nanos()))
        };
        assert_eq!(waits(Awaited::Client, 10), Some((Awaited::Client, 10)));
        assert_eq!(waits(Awaited::Client, 20), Some((Awaited::Client, 10)));
        assert_eq!(waits(Awaited::Handler, 30), Some((Awaited::Handler, 30)));
        assert_eq!(waits(Awaited::Handler, 40), Some((Awaited::Handler, 30)));
        slot.clear_busy_awaiting();
        assert_eq!(slot.evictable(), None);
        assert_eq!(waits(Awaited::Handler, 50), Some((Awaited::Handler, 50)));
    }
}

//! A connection's place in its worker's table: how to wake it, and when at the latest.

use super::{
    announcement::Announcement,
    idle_policy::{Awaited, Idle},
};
use crate::{lifecycle::Moment, runtime::Address};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

/// Shared by a connection and its worker's sweep. The sweep is the connection's only timer.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) accepted: Moment,
    pub(crate) peer: Address,
    pub(crate) local: Arc<Address>,
    pub(crate) announcement: Announcement,
    /// A response began since the stop request.
    responded: AtomicBool,
    /// A response announced the close of the connection.
    announced: AtomicBool,
    /// A connection is a task of its own, and a task has one waker from its first poll to its last.
    waker: OnceLock<Waker>,
    wake_at: AtomicU64,
    /// See [`Self::set_idle`]; `NEVER` while busy.
    idle: AtomicU64,
    /// See [`Self::set_waiting`].
    waiting: AtomicU64,
    evicted: AtomicBool,
    left: AtomicBool,
    sends_large: AtomicBool,
}

/// In place of a moment: not idle.
const BUSY: u64 = u64::MAX;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteStrategy {
    /// Head and body copied together, then written: for small answers it is cheaper than to name the parts to the kernel.
    Flatten,
    /// As they are.
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
            local,
            announcement,
            responded: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            waker: OnceLock::new(),
            wake_at: AtomicU64::new(Moment::NEVER.as_nanos()),
            idle: AtomicU64::new(BUSY),
            waiting: AtomicU64::new(BUSY),
            evicted: AtomicBool::new(false),
            left: AtomicBool::new(false),
            sends_large: AtomicBool::new(false),
        }
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    /// The sweep wakes the connection at its first round from `at` on: see `WorkerContext::wake_at`.
    pub(crate) fn set_due(&self, at: Moment) {
        self.wake_at.store(at.as_nanos(), Relaxed);
    }

    /// Wakes the connection; one that was never polled is about to be.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// When it is due, if it is not yet; `NEVER` once it was woken.
    pub(crate) fn wake_if_due(&self, now: Moment) -> Moment {
        let due = Moment::from_nanos(self.wake_at.load(Relaxed));
        if due > now {
            return due;
        }
        self.wake_at.store(Moment::NEVER.as_nanos(), Relaxed);
        self.wake();
        Moment::NEVER
    }

    /// The connection is idle, and may be closed to make room.
    pub(crate) fn set_idle(&self, idle: Idle) {
        let packed = match idle.awaited {
            Awaited::FirstByte => idle.since.as_nanos() << 1 | 1,
            Awaited::NextRequest => idle.since.as_nanos() << 1,
            Awaited::Head | Awaited::Client | Awaited::Handler => BUSY,
        };
        self.idle.store(packed, Relaxed);
    }

    /// The connection is not idle.
    pub(crate) fn set_busy(&self) {
        self.idle.store(BUSY, Relaxed);
    }

    /// The connection is in the middle of something, and may be closed to make room all the same.
    pub(crate) fn set_waiting(&self, awaited: Awaited, now: Moment) {
        let kind = u64::from(awaited == Awaited::Handler);
        let last = self.waiting.load(Relaxed);
        if last == BUSY || last & 1 != kind {
            self.waiting.store(now.as_nanos() << 1 | kind, Relaxed);
        }
    }

    pub(crate) fn clear_waiting(&self) {
        self.waiting.store(BUSY, Relaxed);
    }

    /// What the connection waits for, if it may be closed to make room. It may have become busy meanwhile.
    pub(crate) fn evictable(&self) -> Option<Idle> {
        self.idle().or_else(|| {
            let packed = self.waiting.load(Relaxed);
            let awaited = if packed & 1 == 1 { Awaited::Handler } else { Awaited::Client };
            (packed != BUSY).then_some(Idle { awaited, since: Moment::from_nanos(packed >> 1) })
        })
    }

    /// What the connection waits for, if it is idle.
    pub(crate) fn idle(&self) -> Option<Idle> {
        let packed = self.idle.load(Relaxed);
        let awaited = if packed & 1 == 1 { Awaited::FirstByte } else { Awaited::NextRequest };
        (packed != BUSY).then_some(Idle { awaited, since: Moment::from_nanos(packed >> 1) })
    }

    /// Lets the connection close if it still waits when it is polled.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Relaxed);
        self.wake();
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Whether the connection shall make room. Asked once: a connection that was found busy stays.
    pub(crate) fn take_evicted(&self) -> bool {
        self.is_evicted() && self.evicted.swap(false, Relaxed)
    }

    /// The answers on this connection are large, as far as it is known.
    pub(crate) fn use_vectored_writes(&self) {
        self.sends_large.store(true, Relaxed);
    }

    pub(crate) fn writes(&self) -> WriteStrategy {
        if self.sends_large.load(Relaxed) {
            WriteStrategy::Vectored
        } else {
            WriteStrategy::Flatten
        }
    }

    /// Records for the next protocol state of the connection that a response began since the stop request, and whether the last
    /// one announced the close.
    pub(crate) fn record_response(&self, announced: bool) {
        self.responded.store(true, Relaxed);
        self.announced.store(announced, Relaxed);
    }

    pub(crate) fn note_responded(&self) {
        self.responded.store(true, Relaxed);
    }

    pub(crate) fn has_responded(&self) -> bool {
        self.responded.load(Relaxed)
    }

    pub(crate) fn has_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
}

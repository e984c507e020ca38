//! Readiness events that may come later than the bytes.
//!
//! A runtime reads a socket only after a readiness event. On a busy thread the event comes late:
//! the bytes are in the kernel, but a read returns `Pending`. A host that takes this for an empty
//! socket loses a request. Here some events are delayed by a few scheduler turns, within the same
//! virtual instant.

use lameduck::runtime::Seed;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};
use tokio::sync::Notify;

/// One event in this many is late.
const LATE_ONE_IN: u64 = 4;
/// Number of scheduler turns by which it is late.
const YIELDS: usize = 6;

/// Delays events. A world has one.
#[derive(Debug)]
pub(super) struct ReadinessDelay {
    seed: Seed,
    events: AtomicU64,
    late: Mutex<Vec<Arc<Wakeup>>>,
    some_are_late: Notify,
}

impl ReadinessDelay {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            events: AtomicU64::new(0),
            late: Mutex::default(),
            some_are_late: Notify::new(),
        }
    }

    /// Delivers the late events, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.some_are_late.notified().await;
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            let late =
                std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
            late.iter().for_each(|wakeup| wakeup.ring());
        }
    }
}

/// Readiness of one socket's read side.
#[derive(Debug)]
pub(super) struct Wakeup {
    readiness_delay: Arc<ReadinessDelay>,
    /// False after a read that returned `Pending`, until the next event.
    rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Wakeup {
    /// Creates the state of a new socket, which may be read at once.
    pub(super) fn new(readiness_delay: Arc<ReadinessDelay>) -> Arc<Self> {
        Arc::new(Self { readiness_delay, rung: AtomicBool::new(true), listener: Mutex::new(None) })
    }

    /// Returns whether a read may find bytes. If not, `listener` is woken at the next event.
    pub(super) fn is_ready(&self, listener: &Waker) -> bool {
        self.rung.load(Relaxed) || {
            self.listen(listener);
            false
        }
    }

    /// Notes that a read returned `Pending`; `listener` is woken at the next event.
    pub(super) fn clear_ready(&self, listener: &Waker) {
        self.rung.store(false, Relaxed);
        self.listen(listener);
    }

    /// Notes that a read returned `Pending`. Whoever waits for the next event still does.
    pub(super) fn clear(&self) {
        self.rung.store(false, Relaxed);
    }

    fn listen(&self, listener: &Waker) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener.clone());
    }

    fn ring(&self) {
        self.rung.store(true, Relaxed);
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.wake();
        }
    }
}

/// Woken by the kernel when the socket has an event.
impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        let event = self.readiness_delay.events.fetch_add(1, Relaxed);
        if self.readiness_delay.seed.nth(event).is_multiple_of(LATE_ONE_IN) {
            let readiness_delay = Arc::clone(&self.readiness_delay);
            readiness_delay.late.lock().unwrap_or_else(PoisonError::into_inner).push(self);
            readiness_delay.some_are_late.notify_one();
        } else {
            self.ring();
        }
    }
}

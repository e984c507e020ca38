//! Readiness as an event, which may come a moment after the bytes.
//!
//! A runtime reads a socket only after an event said that there is something to read, and on a busy thread the event comes late: the
//! bytes lie in the kernel, and a read says that there is none. Whoever takes that for the truth loses a request. Here some events
//! are delayed by a few turns of the world, in the same virtual instant.

use lameduck::runtime::Seed;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};
use tokio::sync::Notify;

/// One event in so many is late.
const LATE_ONE_IN: u64 = 4;
/// By so many turns.
const TURNS: usize = 6;

/// What delays events: one a world.
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

    /// Rings what is late, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.some_are_late.notified().await;
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            let late =
                std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
            late.iter().for_each(|wakeup| wakeup.ring());
        }
    }
}

/// The events of one socket's reading side.
#[derive(Debug)]
pub(super) struct Wakeup {
    readiness_delay: Arc<ReadinessDelay>,
    /// Nothing says that there is nothing to read.
    rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Wakeup {
    /// A new socket may be read.
    pub(super) fn new(readiness_delay: Arc<ReadinessDelay>) -> Arc<Self> {
        Arc::new(Self { readiness_delay, rung: AtomicBool::new(true), listener: Mutex::new(None) })
    }

    /// Whether a read is worth a try. If not, `listener` is told when it is.
    pub(super) fn is_rung(&self, listener: &Waker) -> bool {
        self.rung.load(Relaxed) || {
            self.listen(listener);
            false
        }
    }

    /// A read found nothing: `listener` is told of the next event.
    pub(super) fn muffle(&self, listener: &Waker) {
        self.rung.store(false, Relaxed);
        self.listen(listener);
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

/// The kernel has an event.
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

//! A clock that the test advances.

use crate::{
    lifecycle::Moment,
    runtime::{Clock, Sleep},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

#[derive(Clone, Debug)]
pub(super) struct ManualClock {
    nanos: Arc<AtomicU64>,
    sleepers: Arc<Mutex<Vec<Waker>>>,
    epoch: Instant,
}

impl ManualClock {
    #[expect(clippy::disallowed_methods, reason = "no moment is measured from this epoch")]
    pub(super) fn new() -> Self {
        Self { nanos: Arc::default(), sleepers: Arc::default(), epoch: Instant::now() }
    }

    /// Moves the clock forward, and wakes all sleeps. Each checks its own time.
    pub(super) fn advance(&self, span: Duration) {
        self.nanos.store((self.now() + span).as_nanos(), Relaxed);
        let sleepers = std::mem::take(&mut *self.sleepers.lock().unwrap());
        sleepers.into_iter().for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.nanos.load(Relaxed))
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(ManualSleep { clock: self.clone(), at })
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.now().since_epoch()
    }

    fn epoch(&self) -> Instant {
        self.epoch
    }
}

struct ManualSleep {
    clock: ManualClock,
    at: Moment,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.at {
            return Poll::Ready(());
        }
        self.clock.sleepers.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    }
}

impl Sleep for ManualSleep {
    fn reset(mut self: Pin<&mut Self>, at: Moment) {
        self.at = at;
    }
}

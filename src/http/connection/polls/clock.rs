//! A clock that the test advances.

use super::script::lock;
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
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[derive(Clone, Debug)]
pub(in crate::http) struct ManualClock {
    nanos: Arc<AtomicU64>,
    sleepers: Arc<Mutex<Vec<Waker>>>,
}

impl ManualClock {
    pub(in crate::http) fn new() -> Self {
        Self { nanos: Arc::default(), sleepers: Arc::default() }
    }

    /// Moves the clock forward, and wakes all sleeps. Each checks its own time.
    pub(super) fn advance(&self, span: Duration) {
        self.nanos.store((self.now() + span).as_nanos(), Relaxed);
        let sleepers = std::mem::take(&mut *lock(&self.sleepers));
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
        lock(&self.clock.sleepers).push(cx.waker().clone());
        Poll::Pending
    }
}

impl Sleep for ManualSleep {
    fn reset(mut self: Pin<&mut Self>, at: Moment) {
        self.at = at;
    }
}

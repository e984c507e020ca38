//! The injected clock as a timer of hyper.

use crate::{
    lifecycle::Moment,
    runtime::{Clock, Sleep},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// A timer for hyper. It overrides `now` and `reset`, because their defaults read the real clock
/// and allocate a new timer.
#[derive(Clone, Debug)]
pub(super) struct HyperTimer(pub(super) Arc<dyn Clock>);

struct HyperSleep(Pin<Box<dyn Sleep>>);

impl HyperTimer {
    fn moment(&self, at: Instant) -> Moment {
        Moment::EPOCH + at.saturating_duration_since(self.0.epoch())
    }
}

impl hyper::rt::Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(HyperSleep(self.0.sleep_until(self.0.now() + duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(HyperSleep(self.0.sleep_until(self.moment(deadline))))
    }

    fn now(&self) -> Instant {
        self.0.epoch() + self.0.now().since_epoch()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        if let Some(mut sleep) = sleep.as_mut().downcast_mut_pin::<HyperSleep>() {
            sleep.0.as_mut().reset(self.moment(deadline));
        } else {
            *sleep = self.sleep_until(deadline);
        }
    }
}

impl Future for HyperSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for HyperSleep {}

//! Time in production: tokio's clock for spans, the system's calendar for dates.
//!
//! It asks tokio and not the system for the moment, so that a test that pauses tokio's time pauses this clock too. The
//! calendar is never paused.

use crate::{
    env::{Calendar, Clock, Sleep},
    lifecycle::Moment,
};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

/// The clock of tokio. Its epoch is the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    epoch: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch: tokio::time::Instant::now() }
    }

    /// The instant of `at`; for one that no instant can hold, an instant that is as good as never.
    fn instant(&self, at: Moment) -> tokio::time::Instant {
        const AS_GOOD_AS_NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        self.epoch.checked_add(at.since_epoch()).unwrap_or_else(|| self.epoch + AS_GOOD_AS_NEVER)
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::EPOCH + self.epoch.elapsed()
    }

    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(TokioSleep { clock: *self, sleep: tokio::time::sleep_until(self.instant(at)) })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn calendar(&self) -> Calendar {
        Calendar::System
    }

    fn epoch(&self) -> Instant {
        self.epoch.into_std()
    }
}

pin_project! {
    struct TokioSleep {
        clock: TokioClock,
        #[pin]
        sleep: tokio::time::Sleep,
    }
}

impl Future for TokioSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().sleep.poll(cx)
    }
}

impl Sleep for TokioSleep {
    fn reset(self: Pin<&mut Self>, at: Moment) {
        let this = self.project();
        let instant = this.clock.instant(at);
        this.sleep.reset(instant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_at_its_moment_and_not_before() {
        let clock = TokioClock::new();
        let at = clock.now() + Duration::from_secs(5);
        clock.sleep_until(at).await;
        assert!(clock.now() >= at);
        assert!(clock.now() <= at + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_that_is_reset_ends_at_the_new_moment() {
        let clock = TokioClock::new();
        let mut sleep = clock.sleep_until(Moment::NEVER);
        assert!(futures_util::poll!(sleep.as_mut()).is_pending());
        let at = clock.now() + Duration::from_secs(1);
        sleep.as_mut().reset(at);
        sleep.await;
        assert!(clock.now() >= at && clock.now() <= at + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn moments_count_from_the_epoch() {
        let clock = TokioClock::new();
        assert_eq!(clock.now(), Moment::EPOCH);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now().since_epoch(), Duration::from_secs(3));
        assert_eq!(clock.epoch() + Duration::from_secs(3), tokio::time::Instant::now().into_std());
    }
}

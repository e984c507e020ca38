//! Time in production: tokio's clock for durations, the system clock for dates.
//!
//! Inside a caller's runtime, the clock reads tokio's time, so a test that pauses tokio's time
//! pauses this clock too. In lameduck's own process nothing can pause time. There the clock reads
//! the kernel directly, because every request is stamped twice. The wall clock is never paused.

use crate::{
    lifecycle::Moment,
    runtime::{Clock, Sleep},
};
#[cfg(target_os = "linux")]
use nix::time::{ClockId, clock_gettime};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

/// tokio's clock. Its epoch is the moment of its creation.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    epoch: tokio::time::Instant,
    source: Source,
}

/// Source of the current time.
#[derive(Clone, Copy, Debug)]
enum Source {
    Tokio,
    /// The kernel's monotonic clock, and its reading at the epoch in nanoseconds.
    #[cfg(target_os = "linux")]
    Kernel(u64),
}

impl TokioClock {
    /// Returns a clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch: tokio::time::Instant::now(), source: Source::Tokio }
    }

    /// Returns a clock that starts now and cannot be paused. A reading costs a third of a tokio
    /// reading.
    #[must_use]
    pub fn unpausable() -> Self {
        // Read before tokio's epoch. This clock is then slightly ahead of tokio's timers, so no
        // timer is early by this clock.
        #[cfg(target_os = "linux")]
        let source = Source::Kernel(kernel_nanos());
        #[cfg(not(target_os = "linux"))]
        let source = Source::Tokio;
        Self { epoch: tokio::time::Instant::now(), source }
    }

    /// Converts `at` to an instant. Moments beyond `Instant`'s range map to thirty years from the
    /// epoch.
    fn instant(&self, at: Moment) -> tokio::time::Instant {
        const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        self.epoch.checked_add(at.since_epoch()).unwrap_or_else(|| self.epoch + FAR_FUTURE)
    }
}

/// Reads the clock that `std::time::Instant` also reads.
#[cfg(target_os = "linux")]
fn kernel_nanos() -> u64 {
    // Every Linux has this clock; tokio's clock would panic without it.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .unwrap_or_else(|error| panic!("no monotonic clock: {error}"));
    // Counted from the boot of the machine, so not negative.
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        match self.source {
            Source::Tokio => Moment::EPOCH + self.epoch.elapsed(),
            #[cfg(target_os = "linux")]
            Source::Kernel(epoch) => Moment::from_nanos(kernel_nanos().saturating_sub(epoch)),
        }
    }

    /// # Panics
    /// Panics outside of a tokio runtime with time enabled.
    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(TokioSleep { clock: *self, sleep: tokio::time::sleep_until(self.instant(at)) })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
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

    #[tokio::test]
    async fn an_unpausable_clock_keeps_pace_with_tokio() {
        let [kernel, tokio] = [TokioClock::unpausable(), TokioClock::new()];
        let at = kernel.now() + Duration::from_millis(20);
        kernel.sleep_until(at).await;
        assert!(kernel.now() >= at, "a sleep of its own is not early by it");
        let apart = kernel.now().since_epoch().abs_diff(tokio.now().since_epoch());
        assert!(apart < Duration::from_secs(1), "they are {apart:?} apart");
    }

    #[tokio::test(start_paused = true)]
    async fn moments_count_from_the_epoch() {
        let clock = TokioClock::new();
        assert_eq!(clock.now(), Moment::EPOCH);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now().since_epoch(), Duration::from_secs(3));
    }
}

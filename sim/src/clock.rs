//! A clock on the paused runtime's time, which may run fast or slow.
#![expect(
    clippy::disallowed_methods,
    reason = "this clock is what the rest asks instead of tokio's time"
)]

use crate::spins;
use lameduck::{
    lifecycle::Moment,
    runtime::{Clock, Seed, Sleep},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

/// 2030-01-01T00:00:00Z, the wall time at which every clock begins.
const WALL_AT_EPOCH: Duration = Duration::from_secs(1_893_456_000);

/// Longer waits are cut to this. It is longer than any simulation.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parts per million.
const MILLION: i128 = 1_000_000;

/// How far a skewed clock goes on in one instant of the world, whose instants are a millisecond
/// apart, and from one read to the next, in nanoseconds.
const WITHIN_INSTANT_MAX: u64 = 800_000;
const BETWEEN_READS_MAX: u64 = 1 << 16;

/// A host's clock. Its epoch is its construction; its wall time begins at 2030-01-01T00:00:00Z.
///
/// With a skew it runs at a different rate than the world. At `skew_ppm = 100_000` it shows 1.1 s
/// after one second of the world, so its host's timers fire early as seen from outside. Moments,
/// waits and wall time are in the host's time; only the runtime underneath uses the world's time.
/// State the bounds of a host in the host's clock.
///
/// In an instant of the world a skewed clock goes on by up to 800 µs, some of them from each read
/// to the next: a deadline may pass between two reads in one poll.
#[derive(Clone, Debug)]
pub struct SimClock {
    epoch: tokio::time::Instant,
    skew_ppm: i64,
    /// What it showed at its last read, in nanoseconds.
    shown: Arc<AtomicU64>,
}

impl SimClock {
    /// Creates a clock that runs at the rate of the world.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_skew(0)
    }

    /// Creates a clock that runs `skew_ppm` parts per million faster than the world, or slower if
    /// negative.
    ///
    /// # Panics
    /// If the clock would stand still or go back, at -1,000,000 and below.
    #[must_use]
    pub fn with_skew(skew_ppm: i64) -> Self {
        assert!(
            skew_ppm > -1_000_000,
            "a clock with a skew of {skew_ppm} ppm would not go forward"
        );
        Self { epoch: tokio::time::Instant::now(), skew_ppm, shown: Arc::default() }
    }

    /// Returns how much faster than the world the clock runs, in parts per million.
    #[must_use]
    pub const fn skew_ppm(&self) -> i64 {
        self.skew_ppm
    }

    /// Returns the time that this clock shows after `span` of the world's time, rounded down.
    fn to_host_time(&self, span: Duration) -> u64 {
        if self.skew_ppm == 0 {
            return u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        }
        let shown = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / (2 * MILLION))
            * self.rate()
            / MILLION;
        u64::try_from(shown).unwrap_or(u64::MAX)
    }

    /// Returns the world's time until this clock shows `at`, rounded up so that a wait never ends
    /// early.
    fn to_world_time(&self, at: Moment) -> Duration {
        if self.skew_ppm == 0 {
            return Duration::from_nanos(at.as_nanos());
        }
        let rate = self.rate();
        let nanos = (i128::from(at.as_nanos()) * MILLION + rate - 1) / rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn rate(&self) -> i128 {
        MILLION + i128::from(self.skew_ppm)
    }

    fn wake_at(&self, at: Moment) -> tokio::time::Instant {
        let latest = tokio::time::Instant::now() + WAIT_MAX;
        self.epoch.checked_add(self.to_world_time(at)).map_or(latest, |wake| wake.min(latest))
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Moment {
        spins::note_poll();
        let begun = self.to_host_time(self.epoch.elapsed());
        if self.skew_ppm == 0 {
            return Moment::from_nanos(begun);
        }
        let last = self.shown.load(Relaxed);
        let step = Seed(last).nth(0) % BETWEEN_READS_MAX;
        let shown = begun.max((last + step).min(begun + WITHIN_INSTANT_MAX));
        self.shown.store(shown, Relaxed);
        Moment::from_nanos(shown)
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(SimSleep {
            inner: Box::pin(tokio::time::sleep_until(self.wake_at(at))),
            clock: self.clone(),
        })
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_AT_EPOCH + self.now().since_epoch()
    }
}

struct SimSleep {
    inner: Pin<Box<tokio::time::Sleep>>,
    clock: SimClock,
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.as_mut().poll(cx)
    }
}

impl Sleep for SimSleep {
    fn reset(mut self: Pin<&mut Self>, at: Moment) {
        let wake = self.clock.wake_at(at);
        self.inner.as_mut().reset(wake);
    }
}

//! Injected time.

use crate::lifecycle::Moment;
use std::{
    fmt,
    future::{Future, Pending},
    pin::Pin,
    time::SystemTime,
};

/// The only source of time. All code that waits or takes timestamps uses it. hyper does neither.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time. Never goes back.
    fn now(&self) -> Moment;

    /// Returns a future that is ready at `at` or a little later. Check expiry by
    /// [`now`](Self::now), not by this future: a runtime may return `Pending` for a deadline that
    /// has passed.
    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>>;

    /// The time of day, for the `Date` header and logs.
    fn wall(&self) -> SystemTime;
}

/// A sleep that can be reset without a new allocation.
pub trait Sleep: Future<Output = ()> + Send + Sync {
    /// Waits until `at` instead.
    fn reset(self: Pin<&mut Self>, at: Moment);
}

/// A sleep that never ends, for a clock that stands still.
impl Sleep for Pending<()> {
    fn reset(self: Pin<&mut Self>, _: Moment) {}
}

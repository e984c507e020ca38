//! Time, injected.

use crate::lifecycle::Moment;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Instant, SystemTime},
};

/// The one source of time. Everything that waits or stamps asks it, hyper included.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The moment of now. Never goes back.
    fn now(&self) -> Moment;

    /// A future that is ready at `at` or a little later. Check expiry by [`now`](Self::now), not by this future: a runtime may
    /// return `Pending` for a deadline that has passed.
    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>>;

    /// The time of day, for the `Date` header and logs.
    fn wall(&self) -> SystemTime;

    /// This clock's epoch as an [`Instant`], for libraries that speak in those.
    fn epoch(&self) -> Instant;
}

/// A wait that can be set anew without a new allocation.
pub trait Sleep: Future<Output = ()> + Send + Sync {
    /// Waits until `at` instead.
    fn reset(self: Pin<&mut Self>, at: Moment);
}

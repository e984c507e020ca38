//! What the host says to whoever listens, which is users' code: a subscriber whose reader is gone may panic, and that must cost its
//! line alone, not the driver, a check or a request (P15). One that blocks holds up who speaks:
//! [`main`](crate::main) says which writers do not.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says it, and survives that.
pub(crate) fn contained(say: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(say));
}

/// Whether an error of the host reaches a log. A subscriber that cannot say so does not.
pub(crate) fn takes_errors() -> bool {
    let enabled = || tracing::event_enabled!(target: "lameduck", tracing::Level::ERROR);
    catch_unwind(AssertUnwindSafe(enabled)).unwrap_or(false)
}

macro_rules! info_event {
    ($($said:tt)*) => { $crate::log::contained(|| ::tracing::info!($($said)*)) };
}
macro_rules! warn_event {
    ($($said:tt)*) => { $crate::log::contained(|| ::tracing::warn!($($said)*)) };
}
macro_rules! error_event {
    ($($said:tt)*) => { $crate::log::contained(|| ::tracing::error!($($said)*)) };
}
pub(crate) use {error_event as error, info_event as info, warn_event as warn};

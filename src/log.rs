//! Contained logging. A subscriber is users' code: one whose reader is gone may panic, and that
//! must cost only its line, not the driver, a check or a request (P15). A subscriber that blocks
//! holds up the thread that logs; [`run`](crate::run#the-log) lists writers that do not block.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a logging closure and discards its panic.
pub(crate) fn contained(say: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(say));
}

/// Whether the subscriber accepts errors of the host. False if it panics.
pub(crate) fn takes_errors() -> bool {
    let enabled = || tracing::event_enabled!(target: "lameduck", tracing::Level::ERROR);
    catch_unwind(AssertUnwindSafe(enabled)).unwrap_or(false)
}

macro_rules! debug_event {
    ($($said:tt)*) => { $crate::log::contained(|| ::tracing::debug!($($said)*)) };
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
pub(crate) use {
    debug_event as debug, error_event as error, info_event as info, warn_event as warn,
};

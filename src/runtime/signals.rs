//! The source of stop signals.

use crate::lifecycle::Signal;
use std::{fmt, future::Future};

/// Receives signals. It does not interpret them: escalation is decided by the lifecycle (P12).
pub trait SignalSource: fmt::Debug + Send + 'static {
    /// Returns the next signal. Never ready if no further signal can arrive.
    ///
    /// # Cancel safety
    /// A signal is not lost when the future is dropped before it is ready.
    fn recv(&mut self) -> impl Future<Output = Signal> + Send;

    /// Returns whether a signal has arrived that [`recv`](Self::recv) still holds back, in case
    /// another was sent with it. A stop that code requests waits until `recv` has returned it: code
    /// of the app may have received the same signal. Default: no source holds signals.
    fn is_holding(&self) -> bool {
        false
    }
}

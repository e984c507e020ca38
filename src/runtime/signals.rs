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
}

//! Where stop signals come from.

use crate::lifecycle::Signal;
use std::{fmt, future::Future};

/// Reports signals. It does not judge them: escalation is the lifecycle's (P12).
pub trait SignalSource: fmt::Debug + Send + 'static {
    /// The next signal. If there can be none any more, it is never ready.
    ///
    /// # Cancel safety
    /// A signal is not lost when the future is dropped before it is ready.
    fn recv(&mut self) -> impl Future<Output = Signal> + Send;
}

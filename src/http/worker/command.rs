//! Commands from the driver to a worker.

/// A command from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerCommand {
    /// The phase changed: every connection is polled.
    Wake,
    /// Keep new connections out, accept those that the kernel completed, then close the listeners.
    Quiesce,
    /// Accept the connections that the listeners hold, then close the listeners at once: for a
    /// server whose clients retry.
    Close,
    /// Close the listeners, whatever they hold.
    Abort,
}

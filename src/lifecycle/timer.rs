//! The reasons of the machine's deadlines.

/// The reason of a deadline. Each state has at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The limit of the start.
    Start,
    /// The limit of the wait for the result of a cancelled start hook.
    StartResult,
    /// The end of the lame duck delay.
    LameDuck,
    /// The limit of the drain, or of its streams.
    Drain,
    /// The limit of the drain for requests that are not long streams.
    RequestDrain,
    /// The time at which such requests are dropped.
    RequestAbort,
    /// The time by which their responses must be flushed.
    RequestFlush,
    /// The time at which handlers and tasks that ignore the cancellation are dropped.
    Abort,
    /// The time by which the responses of dropped handlers must be flushed.
    Flush,
    /// The limit of the running stop hook.
    StopHook,
    /// The limit of the wait for a dropped start hook that has not returned.
    LateStart,
    /// The limit of the wait for the workers' end.
    WorkerRelease,
    /// The limit of the internal server's drain.
    InternalClose,
}

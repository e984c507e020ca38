//! Why the machine wants to be woken.

/// The reason of a deadline. A state waits for at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The limit of the start.
    Start,
    /// The limit of the wait for the result of a cancelled start hook.
    StartResult,
    /// The end of the lame duck delay.
    LameDuck,
    /// The limit of the drain.
    Drain,
    /// When handlers and tasks that ignore the cancellation are dropped.
    Abort,
    /// When the answers to what was dropped must be flushed.
    Flush,
    /// The limit of the running stop hook.
    StopHook,
    /// The limit of the wait for a dropped start hook that has not returned.
    LateStart,
    /// The limit of the workers' end.
    WorkerRelease,
    /// The limit of the internal server's drain.
    InternalClose,
}

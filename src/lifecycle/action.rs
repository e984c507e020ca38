//! The actions that the machine requests from the host.

use super::{HookIndex, Moment, Phase};

/// An action that the host must perform now, in the order in which
/// [`Lifecycle::poll_action`](super::Lifecycle::poll_action) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish the phase to probes, requests and logs.
    Publish(Phase),
    /// Start this hook; then report `StartHookEnded`.
    RunStartHook(HookIndex),
    /// Cancel the running start hook; once it returns, report `StartHookEnded` or
    /// `StartHookCancelled`.
    CancelStartHook(HookIndex),
    /// Report that this start hook was dropped. If it has not returned yet, its result still
    /// counts.
    DropStartHook(HookIndex),
    /// Listen on the reserved ports; then report `Listening` or `ListenFailed`.
    Listen,
    /// Give up the main server before it has served: release the reserved ports.
    Abandon,
    /// End the process at this time, whatever happens (P7).
    ArmWatchdog(Moment),
    /// Stop the listeners without losing completed connections, then drain; then report
    /// `MainClosed`.
    Quiesce,
    /// Cancel the contexts of all requests that are not long streams. Only in a plan whose
    /// `streams` exceeds its `drain`.
    CancelRequests,
    /// Drop the handlers and bodies of such requests that ignored the cancellation.
    AbortRequests,
    /// Close the remaining connections that carry no long stream.
    CutRequests,
    /// Cancel the root context (P10).
    CancelRoot,
    /// Drop the handlers and tasks that ignored the cancellation. Their clients get a 503 or a
    /// reset.
    Abort,
    /// Close all remaining connections, flushed or not.
    Cut,
    /// Start this hook; then report `StopHookEnded`.
    RunStopHook(HookIndex),
    /// Drop this hook and report it.
    GiveUpStopHook(HookIndex, GiveUp),
    /// End the workers and their runtimes; then report `WorkersReleased`.
    ReleaseWorkers,
    /// Close the internal server after its own short drain; then report `InternalClosed`.
    CloseInternal,
    /// Close the internal server now, drained or not.
    CutInternal,
    /// Nothing is left to do: report and exit. Always the last action.
    Exit,
}

/// The reason why a stop hook was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// Its time expired.
    Overran,
    /// A further SIGINT or SIGQUIT (P12).
    Impatience,
}

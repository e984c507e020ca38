//! What the machine asks of the host.

use super::{HookIndex, Moment, Phase};

/// Something the host must do now, in the order in which [`Lifecycle::poll_action`](super::Lifecycle::poll_action) hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make the phase known: probes, requests, logs.
    Publish(Phase),
    /// Start this hook; answer with `StartHookEnded`.
    RunStartHook(HookIndex),
    /// Cancel the running start hook; answer with `StartHookEnded` or `StartHookCancelled` once it returns.
    CancelStartHook(HookIndex),
    /// Report that this start hook was dropped. If it has not returned yet, its result still matters.
    DropStartHook(HookIndex),
    /// Listen on the reserved ports; answer with `Listening` or `ListenFailed`.
    Listen,
    /// Give up the main side before it ever served: release the reserved ports.
    Abandon,
    /// End the process at this moment, whatever happens (P7).
    ArmWatchdog(Moment),
    /// Stop the listeners without losing what they completed, then drain; answer with `MainEmpty`.
    Quiesce,
    /// Cancel the root context (P10).
    CancelRoot,
    /// Drop the handlers and tasks that ignored the cancellation; their clients get a 503 or a reset.
    Abort,
    /// Close every connection that is left, flushed or not.
    Cut,
    /// Start this hook; answer with `StopHookEnded`.
    RunStopHook(HookIndex),
    /// Drop this hook and report it.
    GiveUpStopHook(HookIndex, GiveUp),
    /// End the workers and their runtimes; answer with `WorkersReleased`.
    ReleaseWorkers,
    /// Close the internal server after its own short drain; answer with `InternalClosed`.
    CloseInternal,
    /// Close the internal server now, drained or not.
    CutInternal,
    /// Nothing is left to do: report and exit. The last action of a life.
    Exit,
}

/// Why a stop hook was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// Its time was up.
    Overran,
    /// A further SIGINT or SIGQUIT asked for it (P12).
    Impatience,
}

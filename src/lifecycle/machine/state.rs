//! The states of the machine.

use super::super::{HookIndex, Moment, Stop, Timer, requests::Requests};

/// One variant for each phase (two for `Starting`). All data is inside the variants; there are no
/// additional flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting {
        until: Moment,
        step: StartStep,
    },
    /// The start is abandoned. Its running hook was cancelled, and its result is awaited.
    EndingStart {
        stop: Stop,
        hook: HookIndex,
        until: Moment,
    },
    Serving,
    LameDuck {
        stop: Stop,
        until: Moment,
    },
    Draining {
        stop: Stop,
        until: Moment,
        requests: Requests,
    },
    Cancelling {
        stop: Stop,
        until: Moment,
        step: CancelStep,
        requests: Requests,
    },
    CleaningUp {
        stop: Stop,
        until: Moment,
        step: CleanUpStep,
        late: LateStart,
    },
    Stopped {
        stop: Stop,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartStep {
    /// This hook runs; all hooks before it have finished.
    Hook(HookIndex),
    /// All start hooks have finished; the host is about to listen.
    Listen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelStep {
    /// Handlers and tasks were cancelled and may return.
    Asked,
    /// Handlers and tasks that did not return were dropped; their responses are being flushed.
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CleanUpStep {
    /// This stop hook runs; those with a lower index follow.
    Hook(HookIndex),
    /// All other stop hooks have ended. The dropped start hook of this pair has not returned yet.
    LateStart(HookIndex),
    /// The stop hook of a start that finished late runs, after all others.
    LateHook(HookIndex),
    /// The workers and their runtimes end.
    Workers,
    /// The internal server closes.
    Internal,
}

/// A start hook that was dropped and did not return in time. If it still finishes, its stop hook
/// runs (P11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateStart {
    None,
    Running(HookIndex),
    Finished(HookIndex),
}

impl CleanUpStep {
    pub(super) const fn timer(self) -> Timer {
        match self {
            Self::Hook(_) | Self::LateHook(_) => Timer::StopHook,
            Self::LateStart(_) => Timer::LateStart,
            Self::Workers => Timer::WorkerRelease,
            Self::Internal => Timer::InternalClose,
        }
    }
}

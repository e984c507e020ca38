//! The machine's record of a run, and the exit code that follows from it (P13).

use super::{GiveUp, HookIndex, HookResult, Moment, Phase, StopReason};
use alloc::vec::Vec;
use core::fmt;

/// The stop that ends a run. Set once, by the first stop request or failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stop {
    /// Why the shutdown began.
    pub reason: StopReason,
    /// When it began.
    pub at: Moment,
    /// When the process must have exited (P7).
    pub deadline: Moment,
}

/// The record of a run until now. Entries are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// Every phase entered, in order.
    pub phases: Vec<PhaseSpan>,
    /// The stop, once one was requested.
    pub stop: Option<Stop>,
    /// The first failure of the service itself. This is the reason of the stop, or that of a task
    /// that failed after it and before the root context was cancelled.
    pub failure: Option<StopReason>,
    /// Every hook that ended, start and stop, in the order in which they ended.
    pub hooks: Vec<HookRecord>,
}

/// The time in which a phase lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseSpan {
    /// The phase.
    pub phase: Phase,
    /// When it was entered.
    pub from: Moment,
    /// When it was left; `None` while it lasts.
    pub to: Option<Moment>,
}

/// The end of one stage of a hook pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookRecord {
    /// The hook pair.
    pub hook: HookIndex,
    /// The stage, start or stop, and how it ended.
    pub verdict: HookVerdict,
}

/// How one stage of a hook pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookVerdict {
    /// The start hook ended.
    Started(HookResult),
    /// The start hook was dropped, because the start was abandoned before the hook ended.
    StartDropped,
    /// The stop hook ended.
    Stopped(HookResult),
    /// The stop hook was given up.
    GivenUp(GiveUp),
}

impl HookVerdict {
    /// Whether a stop hook failed or was given up. The exit code is then 4 unless something worse
    /// happened.
    #[must_use]
    pub const fn is_stop_failure(self) -> bool {
        match self {
            Self::Stopped(HookResult::Done) | Self::Started(_) | Self::StartDropped => false,
            Self::Stopped(HookResult::Failed | HookResult::BadSetting | HookResult::Panicked)
            | Self::GivenUp(_) => true,
        }
    }
}

impl fmt::Display for HookVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(result) => write!(f, "start {}", result.name()),
            Self::StartDropped => f.write_str("start dropped"),
            Self::Stopped(result) => write!(f, "stop {}", result.name()),
            Self::GivenUp(GiveUp::Overran) => f.write_str("stop given up: overran"),
            Self::GivenUp(GiveUp::Impatience) => f.write_str("stop given up: impatience"),
        }
    }
}

/// The verdict on a run. The exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Everything that was requested was done.
    Clean,
    /// The host could not start, a background task failed, or tracked work panicked.
    Failed,
    /// The shutdown cut requests or work.
    Aborted,
    /// A stop hook failed or was given up.
    HookFailed,
    /// The watchdog ended the process.
    Watchdog,
    /// The plan or a setting is unusable, so nothing was served.
    BadPlan,
}

impl Verdict {
    /// Returns the verdict on a run. If several apply, the first of these counts: a bad setting, a
    /// failure, cut requests or work, panicked work (which is a failure), a failed hook. Never
    /// returns [`Watchdog`](Self::Watchdog): no verdict is computed after the watchdog ends the
    /// process.
    #[must_use]
    pub fn of(history: &History, requests_aborted: u64, work_panicked: u64) -> Self {
        let bad_setting = HookVerdict::Started(HookResult::BadSetting);
        if history.hooks.iter().any(|hook| hook.verdict == bad_setting) {
            Self::BadPlan
        } else if history.failure.is_some() {
            Self::Failed
        } else if requests_aborted > 0 {
            Self::Aborted
        } else if work_panicked > 0 {
            Self::Failed
        } else if history.hooks.iter().any(|hook| hook.verdict.is_stop_failure()) {
            Self::HookFailed
        } else {
            Self::Clean
        }
    }

    /// The exit code: 0 clean, 1 could not start, a background task failed or tracked work
    /// panicked, 2 bad plan or setting, 3 the shutdown cut requests or work, 4 a hook failed or was
    /// given up, 5 the watchdog.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Aborted => 3,
            Self::HookFailed => 4,
            Self::Watchdog => 5,
            Self::BadPlan => 2,
        }
    }

    /// The name used in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::HookFailed => "hook_failed",
            Self::Watchdog => "watchdog",
            Self::BadPlan => "bad_plan",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

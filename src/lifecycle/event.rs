//! The events that the host reports to the machine.

use core::fmt;

/// The index of a start and stop hook pair in the order of registration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookIndex(pub usize);

/// The four signals that request a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `SIGTERM`, sent by platforms.
    Terminate,
    /// `SIGINT`, sent by Ctrl-C.
    Interrupt,
    /// `SIGQUIT`, sent by Ctrl-\.
    Quit,
    /// `SIGHUP`, sent when the terminal is gone.
    Hangup,
}

impl Signal {
    /// All four signals.
    pub const ALL: [Self; 4] = [Self::Terminate, Self::Interrupt, Self::Quit, Self::Hangup];

    /// Whether a further one ends the current wait (P12). These signals come from a keyboard, so a
    /// person wants the process to end.
    #[must_use]
    pub const fn is_impatient(self) -> bool {
        match self {
            Self::Interrupt | Self::Quit => true,
            Self::Terminate | Self::Hangup => false,
        }
    }

    /// `SIGTERM`, `SIGINT`, `SIGQUIT` or `SIGHUP`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reason why a shutdown began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A signal was received.
    Signal(Signal),
    /// Code requested the stop.
    Requested,
    /// A background task of the host failed while it was needed. After a stop request such a
    /// failure is no longer the reason. It counts for the exit code until the root context is
    /// cancelled (P13).
    TaskFailed,
    /// A start hook failed, or a listener could not listen. Set by the machine; a host does not
    /// report it.
    StartFailed,
    /// The limit of the start expired. Set by the machine, too.
    StartTimedOut,
}

impl StopReason {
    /// Whether the stop was requested from outside the process. Such a request usually comes from
    /// the platform, which also withdraws the endpoint. No other system sees a stop that the
    /// process began itself (P2b).
    #[must_use]
    pub const fn is_external(self) -> bool {
        match self {
            Self::Signal(_) => true,
            Self::Requested | Self::TaskFailed | Self::StartFailed | Self::StartTimedOut => false,
        }
    }

    /// Whether this is a failure of the service itself, which makes the exit code 1 (P13).
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Signal(_) | Self::Requested => false,
            Self::TaskFailed | Self::StartFailed | Self::StartTimedOut => true,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => signal.fmt(f),
            Self::Requested => f.write_str("requested"),
            Self::TaskFailed => f.write_str("task failed"),
            Self::StartFailed => f.write_str("start failed"),
            Self::StartTimedOut => f.write_str("start timed out"),
        }
    }
}

/// The result of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookResult {
    /// It returned `Ok`.
    Done,
    /// It returned an error.
    Failed,
    /// It returned an error that a setting caused: failed, but with a different exit code (P13).
    BadSetting,
    /// It panicked.
    Panicked,
}

impl HookResult {
    /// The name used in logs and metrics: `done`, `failed` or `panicked`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed | Self::BadSetting => "failed",
            Self::Panicked => "panicked",
        }
    }
}

/// A fact that the host reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A start hook ended.
    StartHookEnded(HookIndex, HookResult),
    /// A cancelled start hook returned without a result.
    StartHookCancelled(HookIndex),
    /// Every main listener listens.
    Listening,
    /// A main listener could not listen.
    ListenFailed,
    /// A stop was requested.
    StopRequested(StopReason),
    /// The main listeners are closed, and no connection and no tracked task is left. Ignored before
    /// the action `Quiesce`.
    MainClosed,
    /// A stop hook ended.
    StopHookEnded(HookIndex, HookResult),
    /// Every worker and its runtime ended.
    WorkersReleased,
    /// The internal server is closed.
    InternalClosed,
}

/// The effect of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Outcome {
    /// It changed the state or the history.
    Applied,
    /// It changed nothing: it was late, a repetition, or does not matter in this phase.
    Ignored,
}

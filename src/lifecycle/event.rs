//! What the host tells the machine.

use core::fmt;

/// A start and stop hook pair's place in the order of registration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookIndex(pub usize);

/// The four signals that ask for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `SIGTERM`, what platforms send.
    Terminate,
    /// `SIGINT`, Ctrl-C.
    Interrupt,
    /// `SIGQUIT`, Ctrl-\.
    Quit,
    /// `SIGHUP`, the terminal is gone.
    Hangup,
}

impl Signal {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Terminate, Self::Interrupt, Self::Quit, Self::Hangup];

    /// Whether a further one ends the current wait (P12): somebody sits at a keyboard and wants it over.
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

/// Why a shutdown began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A signal was heard.
    Signal(Signal),
    /// Code asked for it.
    Requested,
    /// A background task of the host failed while it was needed. After a stop request it is no cause any more, but until the
    /// root context is cancelled it still counts for the exit code (P13).
    TaskFailed,
    /// A start hook failed, or a listener could not listen. The machine's own conclusion: a host has no need to say it.
    StartFailed,
    /// The limit of the start ran out. The machine's own conclusion, too.
    StartTimedOut,
}

impl StopReason {
    /// Whether the stop was requested from outside the process. Such a request usually comes from the platform, which
    /// also withdraws the endpoint. A stop that the process began itself is known to nothing else (P2b).
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

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookResult {
    /// It returned `Ok`.
    Done,
    /// It returned an error.
    Failed,
    /// It returned an error that a setting caused. Failed, and told apart by the exit code (P13).
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

/// A fact, told by the host.
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
    /// Somebody or something asks for a stop.
    StopRequested(StopReason),
    /// Listeners are closed and neither a connection nor a tracked task is left. Counts only after `Quiesce` was asked for.
    MainClosed,
    /// A stop hook ended.
    StopHookEnded(HookIndex, HookResult),
    /// Every worker ended, and with it its runtime.
    WorkersReleased,
    /// The internal server is closed.
    InternalClosed,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Outcome {
    /// It changed the state, or at least what history will say.
    Applied,
    /// It changed nothing: it came too late, twice, or is one that this phase does not listen to.
    Ignored,
}

//! The phases of a process.

use core::fmt;

/// The phase of a process. Ordered: a process only moves to a later phase (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Ports are reserved, start hooks run. Not ready.
    Starting = 0,
    /// Requests are served. Ready as long as every readiness check passes.
    Serving = 1,
    /// No longer ready, but everything is still accepted and served. Connections announce their
    /// close (P4).
    LameDuck = 2,
    /// The listeners close once their queues are accepted; requests in flight finish.
    Draining = 3,
    /// The root context is cancelled. What still runs may return, and is then cut.
    Cancelling = 4,
    /// Stop hooks run, then the internal server closes.
    CleaningUp = 5,
    /// Nothing is left. The process may exit.
    Stopped = 6,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Serving,
        Self::LameDuck,
        Self::Draining,
        Self::Cancelling,
        Self::CleaningUp,
        Self::Stopped,
    ];

    /// The name used in logs, metrics and `/status`: `starting`, `lame_duck`, ….
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::LameDuck => "lame_duck",
            Self::Draining => "draining",
            Self::Cancelling => "cancelling",
            Self::CleaningUp => "cleaning_up",
            Self::Stopped => "stopped",
        }
    }

    /// The phase with this discriminant, if there is one.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

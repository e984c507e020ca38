//! The limits of ordinary requests in a plan that gives long streams a longer budget.

use super::{Action, Moment, Timer};

/// How far the shutdown of ordinary requests has come, while streams may take longer (P7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// No limit apart from that of the phase.
    WithPhase,
    /// They may finish until this moment.
    Served { until: Moment },
    /// They were cancelled and may return.
    Cancelled { abort_at: Moment, cut_at: Moment },
    /// Those that did not return were dropped; their responses are being flushed.
    Aborted { cut_at: Moment },
    /// Their connections were closed.
    Cut,
}

impl Requests {
    /// Whether they were cancelled before the root context.
    pub(super) const fn are_cancelled(self) -> bool {
        matches!(self, Self::Cancelled { .. } | Self::Aborted { .. } | Self::Cut)
    }

    /// The next limit, if it comes before the limit of the phase.
    pub(super) fn timeout_before(self, phase: Moment) -> Option<(Moment, Timer)> {
        let next = match self {
            Self::WithPhase | Self::Cut => return None,
            Self::Served { until } => (until, Timer::RequestDrain),
            Self::Cancelled { abort_at, .. } => (abort_at, Timer::RequestAbort),
            Self::Aborted { cut_at } => (cut_at, Timer::RequestFlush),
        };
        (next.0 < phase).then_some(next)
    }

    /// The next step at its limit, and its action. `cancelled`: the step after the cancellation.
    pub(super) fn next(self, cancelled: impl FnOnce() -> Self) -> Option<(Self, Action)> {
        match self {
            Self::WithPhase | Self::Cut => None,
            Self::Served { .. } => Some((cancelled(), Action::CancelRequests)),
            Self::Cancelled { cut_at, .. } => {
                Some((Self::Aborted { cut_at }, Action::AbortRequests))
            }
            Self::Aborted { .. } => Some((Self::Cut, Action::CutRequests)),
        }
    }

    /// The limits that remain once the root context is cancelled.
    pub(super) const fn after_root_cancelled(self) -> Self {
        match self {
            Self::Served { .. } => Self::WithPhase,
            Self::WithPhase | Self::Cancelled { .. } | Self::Aborted { .. } | Self::Cut => self,
        }
    }

    /// The limits that remain once everything was aborted.
    pub(super) const fn after_abort(self) -> Self {
        match self {
            Self::Cancelled { cut_at, .. } => Self::Aborted { cut_at },
            Self::Served { .. } | Self::WithPhase | Self::Aborted { .. } | Self::Cut => {
                self.after_root_cancelled()
            }
        }
    }
}

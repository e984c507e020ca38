//! The time limit of each step of a shutdown, and their sum, the worst case (P7).

use alloc::vec::Vec;
use core::{fmt, time::Duration};

/// The last part of the cancel wait, reserved for flushing the 503s of requests that were cut: 250
/// ms, or the whole wait if it is shorter.
pub const ABORT_FLUSH: Duration = Duration::from_millis(250);

/// The time from the worst case until the watchdog ends the process: 500 ms.
pub const WATCHDOG_SLACK: Duration = Duration::from_millis(500);

/// The time that a cancelled start hook has to return: 50 ms. If `lame_duck`, `drain` (or
/// `streams`) and `cancel` add up to less, the difference is taken from the clean-up. If the hook
/// finishes in this time, its stop hook runs in order. If it finishes later, its stop hook runs
/// after all others.
pub const START_RESULT_WAIT: Duration = Duration::from_millis(50);

/// The time that workers have to end after the stop hooks: 50 ms, or less if the deadline of the
/// stop is nearer.
pub const WORKER_RELEASE_MAX: Duration = Duration::from_millis(50);

/// The time that workers have even past that deadline, after a pause of the whole process: 20 ms,
/// which is less than [`WATCHDOG_SLACK`].
pub const WORKER_RELEASE_MIN: Duration = Duration::from_millis(20);

/// The time limits of all steps, from start to exit. Every step ends as soon as nothing is left to
/// wait for (P8). The exception is the lame duck delay, which lasts in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Plan {
    /// Limit of the start: start hooks and listening. Default 60 s.
    pub start: Duration,
    /// Delay between the stop request and the close of the listeners. Default 5 s; zero skips it.
    pub lame_duck: Duration,
    /// Limit of the drain: listeners closed, requests in flight finish. Default 10 s.
    pub drain: Duration,
    /// Budget of long streams, counted from the start of the drain. If it is longer than `drain`,
    /// only responses and connections of the class
    /// [`EndSpread`](crate::StreamShutdown::EndSpread) may use the rest. Default zero: none.
    pub streams: Duration,
    /// Limit of the wait after the cancellation. Its last [`ABORT_FLUSH`] is for flushing the
    /// responses of what was cut. Default 3 s.
    pub cancel: Duration,
    /// Common budget of all stop hooks. Default 5 s. With zero each of them is given up at once,
    /// perhaps before it runs, and the exit code is 4.
    pub cleanup: Duration,
    /// Limit of the internal server's own drain. Default 1 s.
    pub internal_close: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// Setters for a chain: `Plan::new().drain(Duration::from_secs(20))`.
impl Plan {
    /// The default plan.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            start: Duration::from_secs(60),
            lame_duck: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            streams: Duration::ZERO,
            cancel: Duration::from_secs(3),
            cleanup: Duration::from_secs(5),
            internal_close: Duration::from_secs(1),
        }
    }

    /// Sets [`start`](#structfield.start).
    #[must_use]
    pub const fn start(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    /// Sets [`lame_duck`](#structfield.lame_duck).
    #[must_use]
    pub const fn lame_duck(mut self, lame_duck: Duration) -> Self {
        self.lame_duck = lame_duck;
        self
    }

    /// Sets [`drain`](#structfield.drain).
    #[must_use]
    pub const fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Sets [`streams`](#structfield.streams).
    #[must_use]
    pub const fn streams(mut self, streams: Duration) -> Self {
        self.streams = streams;
        self
    }

    /// Sets [`cancel`](#structfield.cancel).
    #[must_use]
    pub const fn cancel(mut self, cancel: Duration) -> Self {
        self.cancel = cancel;
        self
    }

    /// Sets [`cleanup`](#structfield.cleanup).
    #[must_use]
    pub const fn cleanup(mut self, cleanup: Duration) -> Self {
        self.cleanup = cleanup;
        self
    }

    /// Sets [`internal_close`](#structfield.internal_close).
    #[must_use]
    pub const fn internal_close(mut self, internal_close: Duration) -> Self {
        self.internal_close = internal_close;
        self
    }
}

impl Plan {
    /// The longest time from stop request to exit (P7):
    /// `lame_duck + max(drain, streams) + cancel + cleanup + internal_close`. A stop before Serving
    /// skips the first three.
    #[must_use]
    pub fn worst_case(&self) -> Duration {
        self.lame_duck
            .saturating_add(self.drain.max(self.streams))
            .saturating_add(self.cancel)
            .saturating_add(self.cleanup)
            .saturating_add(self.internal_close)
    }

    /// Checks the worst case against the platform's grace period. A grace period of zero disables
    /// the check.
    ///
    /// # Errors
    /// [`PlanError::ExceedsGracePeriod`] if the worst case is longer.
    pub fn check_grace_period(&self, grace_period: Duration) -> Result<(), PlanError> {
        let worst_case = self.worst_case();
        if grace_period.is_zero() || worst_case <= grace_period {
            return Ok(());
        }
        Err(PlanError::ExceedsGracePeriod { worst_case, grace_period })
    }

    /// Checks the hooks' own budgets against the common one.
    ///
    /// # Errors
    /// [`PlanError::HooksExceedCleanup`] if they add up to more, or leave nothing for hooks without
    /// their own. A hook that hangs could then use up the time of another (P11).
    pub fn check_hooks(&self, hooks: &[HookBudget]) -> Result<(), PlanError> {
        let own = own_budgets(hooks);
        let leaves_nothing = own == self.cleanup && !own.is_zero();
        if own > self.cleanup || leaves_nothing && hooks.contains(&HookBudget::Shared) {
            return Err(PlanError::HooksExceedCleanup { hooks: own, cleanup: self.cleanup });
        }
        Ok(())
    }

    /// Returns the time that each hook is guaranteed, whatever the others do: its own budget, or an
    /// equal share of the rest.
    pub(super) fn hook_shares(&self, hooks: &[HookBudget]) -> Vec<Duration> {
        let open = hooks.iter().filter(|hook| **hook == HookBudget::Shared).count();
        let left = self.cleanup.saturating_sub(own_budgets(hooks));
        let share = u32::try_from(open)
            .ok()
            .and_then(|open| left.checked_div(open))
            .unwrap_or(Duration::ZERO);
        hooks
            .iter()
            .map(|hook| match hook {
                HookBudget::Own(own) => *own,
                HookBudget::Shared => share,
            })
            .collect()
    }
}

fn own_budgets(hooks: &[HookBudget]) -> Duration {
    hooks.iter().fold(Duration::ZERO, |sum, hook| match hook {
        HookBudget::Own(own) => sum.saturating_add(*own),
        HookBudget::Shared => sum,
    })
}

/// The time limit of one stop hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HookBudget {
    /// An equal share of the time that hooks with their own budget leave, plus what earlier hooks
    /// did not use. The default.
    #[default]
    Shared,
    /// At most this long. All of these together must fit into [`Plan::cleanup`].
    Own(Duration),
}

/// The reason why a plan is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlanError {
    /// The platform would kill the process before the worst case.
    ExceedsGracePeriod {
        /// The worst case of the plan.
        worst_case: Duration,
        /// The platform's grace period.
        grace_period: Duration,
    },
    /// The stop hooks' own budgets do not fit into the common one, or leave nothing of it for the
    /// other hooks.
    HooksExceedCleanup {
        /// The sum of the hooks' own budgets.
        hooks: Duration,
        /// The common budget.
        cleanup: Duration,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExceedsGracePeriod { worst_case, grace_period } => write!(
                f,
                "worst-case shutdown {worst_case:?} exceeds the grace period {grace_period:?}; \
                 lower lame_duck, drain, streams, cancel, cleanup or internal_close, or raise the \
                 grace period"
            ),
            Self::HooksExceedCleanup { hooks, cleanup } => {
                let why = if hooks > cleanup { "exceeds" } else { "leaves nothing for others of" };
                write!(
                    f,
                    "the budgets of the stop hooks add up to {hooks:?}, which {why} \
                     cleanup={cleanup:?}; lower a hook's budget or raise cleanup"
                )
            }
        }
    }
}

impl core::error::Error for PlanError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&BadSetting)
    }
}

/// The last cause of every error that makes the exit code 2 (P13). An error wrapped by a library is
/// no longer found by its type, but its causes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadSetting;

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad setting")
    }
}

impl core::error::Error for BadSetting {}

//! Requests for a stop: the first begins the shutdown, a further one may end a wait.

use super::{
    super::{
        ABORT_FLUSH, Action, GiveUp, Moment, Outcome, Phase, Stop, StopReason, WATCHDOG_SLACK,
        WORKER_RELEASE_MIN,
    },
    Lifecycle,
    state::{CancelStep, CleanUpStep, LateStart, State},
};
use core::time::Duration;

impl Lifecycle {
    pub(super) fn on_stop_request(&mut self, now: Moment, reason: StopReason) -> Outcome {
        if let Some(stop) = self.history.stop {
            return self.on_further_stop_request(now, stop, reason);
        }
        match self.state {
            State::Starting { step, .. } => self.abandon_start(now, step, reason),
            State::Serving => {
                let stop = self.stop(now, reason, self.plan.worst_case());
                self.enter(
                    now,
                    Phase::LameDuck,
                    State::LameDuck { stop, until: now + self.plan.lame_duck },
                );
            }
            State::EndingStart { .. }
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => unreachable!("{:?} without a stop", self.state),
        }
        Outcome::Applied
    }

    /// P12: a further SIGINT or SIGQUIT ends the current wait; a further SIGTERM or SIGHUP changes
    /// nothing.
    fn on_further_stop_request(&mut self, now: Moment, stop: Stop, reason: StopReason) -> Outcome {
        match reason {
            StopReason::Signal(signal) if signal.is_impatient() => self.end_wait(now, stop),
            StopReason::TaskFailed => self.on_task_failed_after_stop(),
            StopReason::Signal(_)
            | StopReason::Requested
            | StopReason::StartFailed
            | StopReason::StartTimedOut => Outcome::Ignored,
        }
    }

    /// P13: a task that fails during the shutdown does not change its course, but counts for the
    /// exit code. This ends when the contexts of tasks are cancelled: from then on every task has
    /// to end, and a failure no longer counts.
    fn on_task_failed_after_stop(&mut self) -> Outcome {
        match self.state {
            State::Draining { requests, .. } if requests.are_cancelled() => Outcome::Ignored,
            State::EndingStart { .. } | State::LameDuck { .. } | State::Draining { .. }
                if self.history.failure.is_none() =>
            {
                self.history.failure = Some(StopReason::TaskFailed);
                Outcome::Applied
            }
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn end_wait(&mut self, now: Moment, stop: Stop) -> Outcome {
        match self.state {
            State::Starting { .. } | State::Serving | State::Stopped { .. } => {
                return Outcome::Ignored;
            }
            State::EndingStart { hook, .. } => {
                self.drop_start(now, stop, hook, LateStart::Running(hook));
            }
            State::LameDuck { .. } => self.drain(now, stop),
            State::Draining { .. } => self.cancel(now, stop),
            State::Cancelling { step: CancelStep::Asked, until, .. } => {
                let flushed = now + ABORT_FLUSH.min(self.plan.cancel);
                self.abort(stop, until.min(flushed));
            }
            State::Cancelling { step: CancelStep::Aborted, .. } => self.cut(now, stop),
            // Workers keep their minimum time, because they must still drop what was cut.
            State::CleaningUp { until, step: step @ CleanUpStep::Workers, late, .. } => {
                let least = now + WORKER_RELEASE_MIN;
                if until <= least {
                    return Outcome::Ignored;
                }
                self.state = State::CleaningUp { stop, until: least, step, late };
            }
            State::CleaningUp { step, late, .. } => {
                self.end_clean_up_step(now, stop, step, late, GiveUp::Impatience);
            }
        }
        Outcome::Applied
    }

    pub(super) fn stop(&mut self, now: Moment, reason: StopReason, worst_case: Duration) -> Stop {
        assert!(self.history.stop.is_none(), "P1: a process has one stop");
        let stop = Stop { reason, at: now, deadline: now + worst_case };
        self.history.stop = Some(stop);
        self.history.failure = reason.is_failure().then_some(reason);
        self.actions.push_back(Action::ArmWatchdog(stop.deadline + WATCHDOG_SLACK));
        stop
    }
}

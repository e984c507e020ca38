//! The start: hooks one after another, then the listeners; or a stop before Serving.

use super::{
    super::{
        Action, HookIndex, HookResult, HookVerdict, Moment, Outcome, Phase, START_RESULT_WAIT,
        Stop, StopReason,
    },
    Lifecycle,
    state::{LateStart, StartStep, State},
};

impl Lifecycle {
    pub(super) fn on_start_hook_ended(
        &mut self,
        now: Moment,
        ended: HookIndex,
        result: HookResult,
    ) -> Outcome {
        match self.state {
            State::Starting { until, step: StartStep::Hook(hook) } if hook == ended => {
                self.record(hook, HookVerdict::Started(result));
                match result {
                    HookResult::Done => self.start_from(HookIndex(hook.0 + 1), until),
                    HookResult::Failed | HookResult::BadSetting | HookResult::Panicked => {
                        self.stop_before_serving(now, StopReason::StartFailed, hook);
                    }
                }
            }
            // The hook finished despite the cancellation, so its stop hook must run (P11).
            State::EndingStart { stop, hook, .. } if hook == ended => {
                self.record(hook, HookVerdict::Started(result));
                let is_started = result == HookResult::Done;
                if !is_started {
                    self.history.failure.get_or_insert(StopReason::StartFailed);
                }
                self.abandon(
                    now,
                    stop,
                    HookIndex(hook.0 + usize::from(is_started)),
                    LateStart::None,
                );
            }
            State::CleaningUp { stop, until, step, late: LateStart::Running(hook) }
                if hook == ended =>
            {
                let late = match result {
                    HookResult::Done => LateStart::Finished(hook),
                    HookResult::Failed | HookResult::BadSetting | HookResult::Panicked => {
                        LateStart::None
                    }
                };
                self.on_late_start(now, State::CleaningUp { stop, until, step, late });
            }
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => return Outcome::Ignored,
        }
        Outcome::Applied
    }

    pub(super) fn on_start_hook_cancelled(&mut self, now: Moment, ended: HookIndex) -> Outcome {
        match self.state {
            State::EndingStart { stop, hook, .. } if hook == ended => {
                self.drop_start(now, stop, hook, LateStart::None);
            }
            State::CleaningUp { stop, until, step, late: LateStart::Running(hook) }
                if hook == ended =>
            {
                self.on_late_start(
                    now,
                    State::CleaningUp { stop, until, step, late: LateStart::None },
                );
            }
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => return Outcome::Ignored,
        }
        Outcome::Applied
    }

    pub(super) fn on_listening(&mut self, now: Moment) -> Outcome {
        if !matches!(self.state, State::Starting { step: StartStep::Listen, .. }) {
            return Outcome::Ignored;
        }
        self.enter(now, Phase::Serving, State::Serving);
        Outcome::Applied
    }

    pub(super) fn on_listen_failed(&mut self, now: Moment) -> Outcome {
        if !matches!(self.state, State::Starting { step: StartStep::Listen, .. }) {
            return Outcome::Ignored;
        }
        self.stop_before_serving(now, StopReason::StartFailed, HookIndex(self.shares.len()));
        Outcome::Applied
    }

    /// Runs the start hooks from this one on, then listens.
    pub(super) fn start_from(&mut self, hook: HookIndex, until: Moment) {
        let (step, action) = if hook.0 < self.shares.len() {
            (StartStep::Hook(hook), Action::RunStartHook(hook))
        } else {
            (StartStep::Listen, Action::Listen)
        };
        self.state = State::Starting { until, step };
        self.actions.push_back(action);
    }

    /// Abandons the start. A running hook is cancelled first: it may finish at this moment, and
    /// then its stop hook must run (P11).
    pub(super) fn abandon_start(&mut self, now: Moment, step: StartStep, reason: StopReason) {
        match step {
            StartStep::Hook(hook) => {
                let clean_up = self.clean_up_budget();
                let worst_case =
                    clean_up.saturating_add(START_RESULT_WAIT).min(self.plan.worst_case());
                let stop = self.stop(now, reason, worst_case);
                let until = self.bounded(now, stop, START_RESULT_WAIT, self.plan.internal_close);
                self.state = State::EndingStart { stop, hook, until };
                self.actions.push_back(Action::CancelStartHook(hook));
            }
            StartStep::Listen => {
                self.stop_before_serving(now, reason, HookIndex(self.shares.len()));
            }
        }
    }

    /// Stops waiting for the result of the cancelled start hook.
    pub(super) fn drop_start(&mut self, now: Moment, stop: Stop, hook: HookIndex, late: LateStart) {
        self.actions.push_back(Action::DropStartHook(hook));
        self.record(hook, HookVerdict::StartDropped);
        self.abandon(now, stop, hook, late);
    }

    fn stop_before_serving(&mut self, now: Moment, reason: StopReason, first_unstarted: HookIndex) {
        let stop = self.stop(now, reason, self.clean_up_budget());
        self.abandon(now, stop, first_unstarted, LateStart::None);
    }

    /// P1: a stop before Serving skips to CleaningUp. `first_unstarted` is the first hook whose
    /// start did not finish.
    fn abandon(&mut self, now: Moment, stop: Stop, first_unstarted: HookIndex, late: LateStart) {
        self.actions.push_back(Action::Abandon);
        self.actions.push_back(Action::CancelRoot);
        self.enter_clean_up(now, stop, first_unstarted, late);
    }
}

//! The clean-up: stop hooks, workers, the internal server, the exit.

use super::{
    super::{
        Action, GiveUp, HookBudget, HookIndex, HookResult, HookVerdict, Moment, Outcome, Phase,
        Stop, WORKER_RELEASE_MAX, WORKER_RELEASE_MIN,
    },
    Lifecycle,
    state::{CleanUpStep, LateStart, State},
};
use core::time::Duration;

impl Lifecycle {
    pub(super) fn on_stop_hook_ended(
        &mut self,
        now: Moment,
        ended: HookIndex,
        result: HookResult,
    ) -> Outcome {
        let State::CleaningUp { stop, step, late, .. } = self.state else {
            return Outcome::Ignored;
        };
        match step {
            CleanUpStep::Hook(hook) | CleanUpStep::LateHook(hook) if hook == ended => {
                self.record(hook, HookVerdict::Stopped(result));
                self.after_stop_hook(now, stop, step, late);
                Outcome::Applied
            }
            CleanUpStep::Hook(_)
            | CleanUpStep::LateStart(_)
            | CleanUpStep::LateHook(_)
            | CleanUpStep::Workers
            | CleanUpStep::Internal => Outcome::Ignored,
        }
    }

    /// A dropped start hook returned. This changes nothing, unless the clean-up waits for it.
    pub(super) fn on_late_start(&mut self, now: Moment, state: State) {
        self.state = state;
        if let State::CleaningUp { stop, step: CleanUpStep::LateStart(_), late, .. } = state {
            self.after_stop_hooks(now, stop, late);
        }
    }

    pub(super) fn on_workers_released(&mut self, now: Moment) -> Outcome {
        let State::CleaningUp { stop, step: CleanUpStep::Workers, .. } = self.state else {
            return Outcome::Ignored;
        };
        self.close_internal(now, stop);
        Outcome::Applied
    }

    pub(super) fn on_internal_closed(&mut self, now: Moment) -> Outcome {
        let State::CleaningUp { stop, step: CleanUpStep::Internal, .. } = self.state else {
            return Outcome::Ignored;
        };
        self.finish(now, stop);
        Outcome::Applied
    }

    pub(super) fn clean_up(&mut self, now: Moment, stop: Stop) {
        self.enter_clean_up(now, stop, HookIndex(self.shares.len()), LateStart::None);
    }

    /// Runs the stop hooks with an index below `first_unstarted`, last first.
    pub(super) fn enter_clean_up(
        &mut self,
        now: Moment,
        stop: Stop,
        first_unstarted: HookIndex,
        late: LateStart,
    ) {
        let step = CleanUpStep::Hook(first_unstarted);
        self.enter(now, Phase::CleaningUp, State::CleaningUp { stop, until: now, step, late });
        self.after_stop_hook(now, stop, step, late);
    }

    /// Ends the stop hook of this step and runs the one with the next lower index.
    fn after_stop_hook(&mut self, now: Moment, stop: Stop, step: CleanUpStep, late: LateStart) {
        let CleanUpStep::Hook(HookIndex(done @ 1..)) = step else {
            return self.after_stop_hooks(now, stop, late);
        };
        let until = self.stop_hook_deadline(now, stop, done - 1);
        let hook = HookIndex(done - 1);
        self.state = State::CleaningUp { stop, until, step: CleanUpStep::Hook(hook), late };
        self.actions.push_back(Action::RunStopHook(hook));
    }

    /// Called after all stop hooks that were due when the clean-up began. A late start hook may
    /// have added one.
    fn after_stop_hooks(&mut self, now: Moment, stop: Stop, late: LateStart) {
        match late {
            LateStart::None => self.release_workers(now, stop),
            LateStart::Running(hook) => {
                let (until, step) = (self.clean_up_deadline(stop), CleanUpStep::LateStart(hook));
                self.state = State::CleaningUp { stop, until, step, late };
            }
            LateStart::Finished(hook) => {
                let until = self.own_deadline(now, self.clean_up_deadline(stop), hook.0);
                let (step, late) = (CleanUpStep::LateHook(hook), LateStart::None);
                self.state = State::CleaningUp { stop, until, step, late };
                self.actions.push_back(Action::RunStopHook(hook));
            }
        }
    }

    /// Ends the wait of a clean-up step without its result.
    pub(super) fn end_clean_up_step(
        &mut self,
        now: Moment,
        stop: Stop,
        step: CleanUpStep,
        late: LateStart,
        why: GiveUp,
    ) {
        match step {
            CleanUpStep::Hook(hook) | CleanUpStep::LateHook(hook) => {
                self.actions.push_back(Action::GiveUpStopHook(hook, why));
                self.record(hook, HookVerdict::GivenUp(why));
                self.after_stop_hook(now, stop, step, late);
            }
            CleanUpStep::LateStart(_) => self.release_workers(now, stop),
            // A blocked worker ends with the process.
            CleanUpStep::Workers => self.close_internal(now, stop),
            CleanUpStep::Internal => {
                self.actions.push_back(Action::CutInternal);
                self.finish(now, stop);
            }
        }
    }

    /// Ends the workers. They kept their runtimes for the stop hooks (P10), and their connections
    /// were cut. After a pause of the whole process the deadline may have passed; each worker still
    /// gets time to run once.
    fn release_workers(&mut self, now: Moment, stop: Stop) {
        let until = self
            .bounded(now, stop, WORKER_RELEASE_MAX, Duration::ZERO)
            .max(now + WORKER_RELEASE_MIN);
        self.state =
            State::CleaningUp { stop, until, step: CleanUpStep::Workers, late: LateStart::None };
        self.actions.push_back(Action::ReleaseWorkers);
    }

    fn close_internal(&mut self, now: Moment, stop: Stop) {
        let until = self.bounded(now, stop, self.plan.internal_close, Duration::ZERO);
        self.state =
            State::CleaningUp { stop, until, step: CleanUpStep::Internal, late: LateStart::None };
        self.actions.push_back(Action::CloseInternal);
    }

    fn finish(&mut self, now: Moment, stop: Stop) {
        self.enter(now, Phase::Stopped, State::Stopped { stop });
        self.actions.push_back(Action::Exit);
    }

    /// Returns the deadline of a stop hook. A hook may use time that earlier hooks left unused, but
    /// never the share of a later hook (P11). After a pause of the whole process the deadline may
    /// be in the past. The hook is then given up as soon as it runs.
    fn stop_hook_deadline(&self, now: Moment, stop: Stop, hook: usize) -> Moment {
        let common = self.clean_up_deadline(stop);
        let reserved = self.shares[..hook]
            .iter()
            .fold(Duration::ZERO, |sum, share| sum.saturating_add(*share));
        self.own_deadline(now, common.minus(reserved), hook)
    }

    fn own_deadline(&self, now: Moment, common: Moment, hook: usize) -> Moment {
        match self.own_budgets[hook] {
            HookBudget::Own(own) => common.min(now + own),
            HookBudget::Shared => common,
        }
    }

    /// The end of the stop hooks' common budget.
    fn clean_up_deadline(&self, stop: Stop) -> Moment {
        let entered = self
            .history
            .phases
            .iter()
            .find(|span| span.phase == Phase::CleaningUp)
            .map_or(stop.at, |span| span.from);
        self.bounded(entered, stop, self.plan.cleanup, self.plan.internal_close)
    }

    pub(super) const fn clean_up_budget(&self) -> Duration {
        self.plan.cleanup.saturating_add(self.plan.internal_close)
    }
}

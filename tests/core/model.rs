//! A naive model of the lifecycle, written from the promises and not from the machine.
//!
//! It is a to-do list. A stop request adds every wait that may follow. Each has its budget, and the
//! latest time at which it must end, whatever came before. After that the list only gets shorter.
//! The model is slow, but simple enough to be checked by reading.

mod requests;

use core::time::Duration;
use lameduck::lifecycle::{
    Action, Event, GiveUp, HookBudget, HookIndex, HookResult, Moment, Phase, Plan, Signal,
    StopReason, Verdict,
};

/// The time that a cancelled start hook has to return.
const START_RESULT: Duration = Duration::from_millis(50);
/// The time that workers have to end: past the deadline, and before it.
const RELEASE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));
const FLUSH: Duration = Duration::from_millis(250);

/// A wait of a shutdown: its kind, its budget, and its latest end.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    what: What,
    budget: Duration,
    over_by: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    LameDuck,
    Drain,
    Cancelled,
    Flush,
    /// A start hook was cancelled and has not returned.
    StartResult,
    StopHook(usize),
    /// A start hook was dropped and has not returned.
    LateStart,
    LateStopHook(usize),
    Workers,
    Internal,
}

pub(crate) struct Model {
    plan: Plan,
    pub(crate) hooks: Vec<HookBudget>,
    start_by: Moment,
    /// Start hooks that finished.
    pub(crate) started: usize,
    pub(crate) serving: bool,
    pub(crate) stop: Option<StopReason>,
    /// The first entry is the current wait.
    to_do: Vec<Wait>,
    until: Moment,
    /// What becomes of ordinary requests, and when, while streams may take longer.
    requests: Vec<(Moment, Action)>,
    /// Whether ordinary requests and tasks were cancelled before the root context.
    are_tasks_cancelled: bool,
    cleaned_up_by: Option<Moment>,
    /// The latest begin of the clean-up, and the end of everything.
    clean_up_from: Moment,
    deadline: Moment,
    /// The start hook that was cancelled or dropped and has not returned.
    pub(crate) unreturned: Option<usize>,
    /// A start hook that returned late; its stop hook has not run yet.
    late: Option<usize>,
    failed: bool,
    bad_setting: bool,
    hook_failed: bool,
    pub(crate) actions: Vec<Action>,
}

impl Model {
    pub(crate) fn begin(plan: Plan, hooks: &[HookBudget], now: Moment) -> Self {
        let mut model = Self {
            plan,
            hooks: hooks.to_vec(),
            start_by: now + plan.start,
            started: 0,
            serving: false,
            stop: None,
            to_do: Vec::new(),
            until: now,
            requests: Vec::new(),
            are_tasks_cancelled: false,
            cleaned_up_by: None,
            clean_up_from: now,
            deadline: now,
            unreturned: None,
            late: None,
            failed: false,
            bad_setting: false,
            hook_failed: false,
            actions: vec![Action::Publish(Phase::Starting)],
        };
        model.go_on_starting();
        model
    }

    fn go_on_starting(&mut self) {
        let hook = HookIndex(self.started);
        self.actions.push(if self.started < self.hooks.len() {
            Action::RunStartHook(hook)
        } else {
            Action::Listen
        });
    }

    pub(crate) fn current(&self) -> Option<What> {
        self.to_do.first().map(|wait| wait.what)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.current() {
            Some(What::LameDuck) => Phase::LameDuck,
            Some(What::Drain) => Phase::Draining,
            Some(What::Cancelled | What::Flush) => Phase::Cancelling,
            Some(What::StartResult) => Phase::Starting,
            Some(
                What::StopHook(_)
                | What::LateStart
                | What::LateStopHook(_)
                | What::Workers
                | What::Internal,
            ) => Phase::CleaningUp,
            None if self.stop.is_some() => Phase::Stopped,
            None if self.serving => Phase::Serving,
            None => Phase::Starting,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.phase() {
            Phase::Starting if self.stop.is_none() => Some(self.start_by),
            Phase::Serving | Phase::Stopped => None,
            Phase::Starting
            | Phase::LameDuck
            | Phase::Draining
            | Phase::Cancelling
            | Phase::CleaningUp => Some(self.request_limit().unwrap_or(self.until)),
        }
    }

    fn share(&self, hook: usize) -> Duration {
        let mut left = self.plan.cleanup;
        let mut shared = 0;
        for budget in &self.hooks {
            match budget {
                HookBudget::Own(own) => left -= *own,
                HookBudget::Shared => shared += 1,
            }
        }
        match self.hooks[hook] {
            HookBudget::Own(own) => own,
            HookBudget::Shared => left / shared,
        }
    }

    fn shares_below(&self, hook: usize) -> Duration {
        (0..hook).map(|below| self.share(below)).sum()
    }

    /// Stops during the start. A running start hook is cancelled, and may still finish.
    fn stop_start(&mut self, now: Moment, reason: StopReason) {
        self.unreturned = (self.started < self.hooks.len()).then_some(self.started);
        self.stop(now, reason);
    }

    /// Fills the to-do list.
    fn stop(&mut self, now: Moment, reason: StopReason) {
        let left = self.phase();
        self.stop = Some(reason);
        self.failed |= matches!(
            reason,
            StopReason::TaskFailed | StopReason::StartFailed | StopReason::StartTimedOut
        );
        let Plan { lame_duck, drain, streams, cancel, cleanup, internal_close, .. } = self.plan;
        let drain = drain.max(streams);
        let mut over_by = now;
        let mut list = Vec::new();
        let mut add = |what, takes| {
            over_by = over_by + takes;
            list.push(Wait { what, budget: takes, over_by });
        };
        if self.serving {
            let flush = cancel.min(FLUSH);
            add(What::LameDuck, lame_duck);
            add(What::Drain, drain);
            add(What::Cancelled, cancel - flush);
            add(What::Flush, flush);
        } else if self.unreturned.is_some() {
            add(What::StartResult, START_RESULT.min(lame_duck + drain + cancel));
        }
        self.clean_up_from = over_by;
        self.deadline = over_by + cleanup + internal_close;
        // This wait may take time from the clean-up, if the plan leaves no other.
        for wait in list.iter_mut().filter(|wait| wait.what == What::StartResult) {
            (wait.budget, wait.over_by) = (START_RESULT, over_by + cleanup);
        }
        self.to_do = list;
        self.add_clean_up();
        self.actions.push(Action::ArmWatchdog(self.deadline + Duration::from_millis(500)));
        if !self.serving && self.unreturned.is_none() {
            self.actions.extend([Action::Abandon, Action::CancelRoot]);
        }
        self.enter(now, left);
    }

    /// Hooks that never started leave their share to the others.
    fn add_clean_up(&mut self) {
        let Plan { cleanup, internal_close, .. } = self.plan;
        for hook in (0..self.started).rev() {
            let budget = match self.hooks[hook] {
                HookBudget::Own(own) => own,
                HookBudget::Shared => cleanup,
            };
            let over_by = self.clean_up_from + (cleanup - self.shares_below(hook));
            self.to_do.push(Wait { what: What::StopHook(hook), budget, over_by });
        }
        self.to_do.push(Wait { what: What::Workers, budget: RELEASE.1, over_by: self.deadline });
        self.to_do.push(Wait {
            what: What::Internal,
            budget: internal_close,
            over_by: self.deadline,
        });
    }

    /// Removes the current wait and begins the next.
    fn strike(&mut self, now: Moment) {
        let left = self.phase();
        let struck = self.to_do.remove(0);
        if struck.what == What::StartResult {
            self.to_do.clear();
            self.add_clean_up();
            self.actions.extend([Action::Abandon, Action::CancelRoot]);
        }
        let waited_for_it = struck.what == What::LateStart;
        if self.current() == Some(What::Workers) && (!waited_for_it || self.late.is_some()) {
            self.add_late();
        }
        self.enter(now, left);
    }

    /// Adds the wait for a dropped start hook that may still return, or for its stop hook, which
    /// runs after all others.
    fn add_late(&mut self) {
        let what = match (self.unreturned, self.late.take()) {
            (Some(_), _) => What::LateStart,
            (None, Some(hook)) => What::LateStopHook(hook),
            (None, None) => return,
        };
        let mut budget = self.plan.cleanup;
        if let What::LateStopHook(hook) = what
            && let HookBudget::Own(own) = self.hooks[hook]
        {
            budget = own;
        }
        self.to_do
            .insert(0, Wait { what, budget, over_by: self.clean_up_from + self.plan.cleanup });
    }

    fn enter(&mut self, now: Moment, left: Phase) {
        let phase = self.phase();
        if phase != left {
            self.actions.push(Action::Publish(phase));
        }
        let Some(wait) = self.to_do.first().cloned() else {
            self.actions.push(Action::Exit);
            return;
        };
        let flush_ends = self.until + self.plan.cancel.min(FLUSH);
        self.until = (now + wait.budget).min(wait.over_by);
        // The common budget of the hooks begins with the clean-up.
        let common = if phase == Phase::CleaningUp {
            *self.cleaned_up_by.get_or_insert(now + self.plan.cleanup)
        } else {
            Moment::NEVER
        };
        match wait.what {
            What::LameDuck => {}
            What::Drain => {
                self.actions.push(Action::Quiesce);
                let Plan { drain, streams, .. } = self.plan;
                if streams > drain {
                    let latest = wait.over_by.minus(streams - drain);
                    self.requests = vec![((now + drain).min(latest), Action::CancelRequests)];
                }
            }
            What::Cancelled => {
                self.actions.push(Action::CancelRoot);
                self.requests.retain(|(_, action)| *action != Action::CancelRequests);
            }
            // Impatience ends the wait before the abort early. The time for the flush stays the
            // same.
            What::Flush => {
                self.until = flush_ends.min(self.until);
                self.actions.push(Action::Abort);
                self.requests.retain(|(_, action)| *action == Action::CutRequests);
            }
            What::StartResult => {
                self.actions.push(Action::CancelStartHook(HookIndex(self.started)));
            }
            What::StopHook(hook) => {
                // The guaranteed shares of lower hooks are not available to this one.
                self.until = self.until.min(common.minus(self.shares_below(hook)));
                self.actions.push(Action::RunStopHook(HookIndex(hook)));
            }
            What::LateStart => self.until = wait.over_by.min(common),
            What::LateStopHook(hook) => {
                self.until = self.until.min(common);
                self.actions.push(Action::RunStopHook(HookIndex(hook)));
            }
            What::Workers => {
                // Each worker must get to run once, even past the deadline.
                self.until = self.until.max(now + RELEASE.0);
                self.unreturned = None;
                self.late = None;
                self.actions.push(Action::ReleaseWorkers);
            }
            What::Internal => self.actions.push(Action::CloseInternal),
        }
    }

    /// Ends the current wait without its result: its time expired, or a signal was impatient.
    fn force(&mut self, now: Moment, why: GiveUp) {
        match self.current() {
            Some(
                What::LameDuck | What::Drain | What::Cancelled | What::LateStart | What::Workers,
            ) => {}
            Some(What::Flush) => self.actions.push(Action::Cut),
            Some(What::StartResult) => {
                self.actions.push(Action::DropStartHook(HookIndex(self.started)));
            }
            Some(What::StopHook(hook) | What::LateStopHook(hook)) => {
                self.hook_failed = true;
                self.actions.push(Action::GiveUpStopHook(HookIndex(hook), why));
            }
            Some(What::Internal) => self.actions.push(Action::CutInternal),
            None => return self.stop_start(now, StopReason::StartTimedOut),
        }
        self.strike(now);
    }

    pub(crate) fn time_passes(&mut self, now: Moment) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            if self.request_limit().is_some() {
                self.limit_requests(now);
            } else {
                self.force(now, GiveUp::Overran);
            }
        }
    }

    /// Handles an event. Returns whether it had an effect.
    pub(crate) fn event(&mut self, now: Moment, event: Event) -> bool {
        let phase = self.phase();
        match event {
            Event::StopRequested(reason) if self.stop.is_none() => {
                if phase == Phase::Starting {
                    self.stop_start(now, reason);
                } else {
                    self.stop(now, reason);
                }
            }
            Event::StopRequested(StopReason::Signal(Signal::Interrupt | Signal::Quit))
                if self.current() == Some(What::Workers) =>
            {
                let least = now + RELEASE.0;
                if self.until <= least {
                    return false;
                }
                self.until = least;
            }
            Event::StopRequested(StopReason::Signal(Signal::Interrupt | Signal::Quit))
                if phase != Phase::Stopped =>
            {
                if self.current() == Some(What::Cancelled) {
                    self.until = self.until.min(now);
                }
                self.force(now, GiveUp::Impatience);
            }
            Event::StopRequested(StopReason::TaskFailed)
                if phase < Phase::Cancelling && !self.are_tasks_cancelled && !self.failed =>
            {
                self.failed = true;
            }
            Event::StartHookEnded(HookIndex(hook), result) if self.unreturned == Some(hook) => {
                self.unreturned = None;
                self.bad_setting |=
                    self.current() == Some(What::StartResult) && result == HookResult::BadSetting;
                match (self.current(), result) {
                    (Some(What::StartResult), HookResult::Done) => self.started += 1,
                    (
                        Some(What::StartResult),
                        HookResult::Failed | HookResult::BadSetting | HookResult::Panicked,
                    ) => {
                        self.failed = true;
                    }
                    (_, HookResult::Done) => self.late = Some(hook),
                    (_, HookResult::Failed | HookResult::BadSetting | HookResult::Panicked) => {}
                }
                if matches!(self.current(), Some(What::StartResult | What::LateStart)) {
                    self.strike(now);
                }
            }
            Event::StartHookCancelled(HookIndex(hook)) if self.unreturned == Some(hook) => {
                self.unreturned = None;
                if self.current() == Some(What::StartResult) {
                    self.actions.push(Action::DropStartHook(HookIndex(hook)));
                }
                if matches!(self.current(), Some(What::StartResult | What::LateStart)) {
                    self.strike(now);
                }
            }
            Event::StartHookEnded(HookIndex(hook), result)
                if phase == Phase::Starting
                    && self.stop.is_none()
                    && hook == self.started
                    && hook < self.hooks.len() =>
            {
                if result == HookResult::Done {
                    self.started += 1;
                    self.go_on_starting();
                } else {
                    self.bad_setting = result == HookResult::BadSetting;
                    self.stop(now, StopReason::StartFailed);
                }
            }
            Event::Listening
                if phase == Phase::Starting
                    && self.stop.is_none()
                    && self.started == self.hooks.len() =>
            {
                self.serving = true;
                self.actions.push(Action::Publish(Phase::Serving));
            }
            Event::ListenFailed
                if phase == Phase::Starting
                    && self.stop.is_none()
                    && self.started == self.hooks.len() =>
            {
                self.stop(now, StopReason::StartFailed);
            }
            Event::MainClosed if phase == Phase::Draining => {
                self.strike(now);
                self.event(now, event);
            }
            Event::MainClosed if phase == Phase::Cancelling => {
                // Nothing is left to be cut, so the flush is removed without having begun.
                self.to_do.retain(|wait| wait.what != What::Flush);
                if self.current() == Some(What::Cancelled) {
                    self.strike(now);
                } else {
                    self.enter(now, Phase::Cancelling);
                }
            }
            Event::StopHookEnded(HookIndex(hook), result)
                if [What::StopHook(hook), What::LateStopHook(hook)]
                    .map(Some)
                    .contains(&self.current()) =>
            {
                self.hook_failed |= result != HookResult::Done;
                self.strike(now);
            }
            Event::WorkersReleased if self.current() == Some(What::Workers) => self.strike(now),
            Event::InternalClosed if self.current() == Some(What::Internal) => self.strike(now),
            Event::StartHookEnded(..)
            | Event::StartHookCancelled(_)
            | Event::Listening
            | Event::ListenFailed
            | Event::StopRequested(_)
            | Event::MainClosed
            | Event::StopHookEnded(..)
            | Event::WorkersReleased
            | Event::InternalClosed => return false,
        }
        true
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (self.failed, self.hook_failed) {
            _ if self.bad_setting => Verdict::BadPlan,
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::HookFailed,
            (false, false) => Verdict::Clean,
        }
    }
}

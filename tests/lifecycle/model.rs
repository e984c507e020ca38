//! A naive model of a life, written from the promises and not from the machine.
//!
//! It is a to-do list. A stop request writes down every wait that may follow, each with its budget and the moment at
//! which it must be over whatever came before; from then on the list only gets shorter. It is slow, and simple enough to
//! believe.

use core::time::Duration;
use lameduck::lifecycle::{
    Action, Event, GiveUp, HookBudget, HookIndex, HookResult, Moment, Phase, Plan, Signal, StopReason, Verdict,
};

const FLUSH: Duration = Duration::from_millis(250);

/// A wait of a shutdown: what it is, how long it may take, and when it must be over.
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
    StopHook(usize),
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
    /// The first of them is the wait of now.
    to_do: Vec<Wait>,
    until: Moment,
    cleaned_up_by: Option<Moment>,
    failed: bool,
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
            cleaned_up_by: None,
            failed: false,
            hook_failed: false,
            actions: vec![Action::Publish(Phase::Starting)],
        };
        model.go_on_starting();
        model
    }

    fn go_on_starting(&mut self) {
        let hook = HookIndex(self.started);
        self.actions.push(if self.started < self.hooks.len() { Action::RunStartHook(hook) } else { Action::Listen });
    }

    pub(crate) fn current(&self) -> Option<What> {
        self.to_do.first().map(|wait| wait.what)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.current() {
            Some(What::LameDuck) => Phase::LameDuck,
            Some(What::Drain) => Phase::Draining,
            Some(What::Cancelled | What::Flush) => Phase::Cancelling,
            Some(What::StopHook(_) | What::Internal) => Phase::CleaningUp,
            None if self.stop.is_some() => Phase::Stopped,
            None if self.serving => Phase::Serving,
            None => Phase::Starting,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.phase() {
            Phase::Starting => Some(self.start_by),
            Phase::Serving | Phase::Stopped => None,
            Phase::LameDuck | Phase::Draining | Phase::Cancelling | Phase::CleaningUp => Some(self.until),
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

    /// Writes the to-do list.
    fn stop(&mut self, now: Moment, reason: StopReason) {
        self.stop = Some(reason);
        self.failed |= matches!(reason, StopReason::TaskFailed | StopReason::StartFailed | StopReason::StartTimedOut);
        let Plan { lame_duck, drain, cancel, cleanup, internal_close, .. } = self.plan;
        let mut over_by = now;
        let mut list = Vec::new();
        let mut add = |what, budget, takes| {
            over_by = over_by + takes;
            list.push(Wait { what, budget, over_by });
        };
        if self.serving {
            let flush = cancel.min(FLUSH);
            add(What::LameDuck, lame_duck, lame_duck);
            add(What::Drain, drain, drain);
            add(What::Cancelled, cancel - flush, cancel - flush);
            add(What::Flush, flush, flush);
        }
        // What the hooks that never started would have got is there for the others.
        let mut left = cleanup;
        for hook in (0..self.started).rev() {
            let below: Duration = (0..hook).map(|below| self.share(below)).sum();
            let budget = match self.hooks[hook] {
                HookBudget::Own(own) => own,
                HookBudget::Shared => cleanup,
            };
            add(What::StopHook(hook), budget, left - below);
            left = below;
        }
        add(What::Internal, internal_close, left + internal_close);
        self.to_do = list;
        self.actions.push(Action::ArmWatchdog(over_by + Duration::from_millis(500)));
        if !self.serving {
            self.actions.extend([Action::Abandon, Action::CancelRoot]);
        }
        self.enter(now, if self.serving { Phase::Serving } else { Phase::Starting });
    }

    /// Strikes the current wait and begins the next.
    fn strike(&mut self, now: Moment) {
        let left = self.phase();
        self.to_do.remove(0);
        self.enter(now, left);
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
        match wait.what {
            What::LameDuck => {}
            What::Drain => self.actions.push(Action::Quiesce),
            What::Cancelled => self.actions.push(Action::CancelRoot),
            // Asking ends early when somebody is impatient; how long the flush takes stays the same.
            What::Flush => {
                self.until = flush_ends.min(self.until);
                self.actions.push(Action::Abort);
            }
            What::StopHook(hook) => {
                // The common budget runs from the first hook on; what lower hooks are sure to get is not this one's.
                let common = *self.cleaned_up_by.get_or_insert(now + self.plan.cleanup);
                let below: Duration = (0..hook).map(|below| self.share(below)).sum();
                self.until = self.until.min(common.minus(below));
                self.actions.push(Action::RunStopHook(HookIndex(hook)));
            }
            What::Internal => self.actions.push(Action::CloseInternal),
        }
    }

    /// Ends the current wait by force: its time is up, or somebody is impatient.
    fn force(&mut self, now: Moment, why: GiveUp) {
        match self.current() {
            Some(What::LameDuck | What::Drain | What::Cancelled) => {}
            Some(What::Flush) => self.actions.push(Action::Cut),
            Some(What::StopHook(hook)) => {
                self.hook_failed = true;
                self.actions.push(Action::GiveUpStopHook(HookIndex(hook), why));
            }
            Some(What::Internal) => self.actions.push(Action::CutInternal),
            None => {
                if self.started < self.hooks.len() {
                    self.actions.push(Action::DropStartHook(HookIndex(self.started)));
                }
                return self.stop(now, StopReason::StartTimedOut);
            }
        }
        self.strike(now);
    }

    pub(crate) fn time_passes(&mut self, now: Moment) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.force(now, GiveUp::Overran);
        }
    }

    /// Whether the event counted for anything.
    pub(crate) fn event(&mut self, now: Moment, event: Event) -> bool {
        let phase = self.phase();
        match event {
            Event::StopRequested(reason) if self.stop.is_none() => {
                if phase == Phase::Starting && self.started < self.hooks.len() {
                    self.actions.push(Action::DropStartHook(HookIndex(self.started)));
                }
                self.stop(now, reason);
            }
            Event::StopRequested(StopReason::Signal(Signal::Interrupt | Signal::Quit)) if phase != Phase::Stopped => {
                if self.current() == Some(What::Cancelled) {
                    self.until = self.until.min(now);
                }
                self.force(now, GiveUp::Impatience);
            }
            Event::StopRequested(StopReason::TaskFailed) if phase < Phase::Cancelling && !self.failed => self.failed = true,
            Event::StartHookEnded(HookIndex(hook), result)
                if phase == Phase::Starting && hook == self.started && hook < self.hooks.len() =>
            {
                if result == HookResult::Done {
                    self.started += 1;
                    self.go_on_starting();
                } else {
                    self.stop(now, StopReason::StartFailed);
                }
            }
            Event::Listening if phase == Phase::Starting && self.started == self.hooks.len() => {
                self.serving = true;
                self.actions.push(Action::Publish(Phase::Serving));
            }
            Event::ListenFailed if phase == Phase::Starting && self.started == self.hooks.len() => {
                self.stop(now, StopReason::StartFailed);
            }
            Event::MainEmpty if phase == Phase::Draining => {
                self.strike(now);
                self.event(now, event);
            }
            Event::MainEmpty if phase == Phase::Cancelling => {
                // Nobody is left to be cut: the flush is struck unseen.
                self.to_do.retain(|wait| wait.what != What::Flush);
                if self.current() == Some(What::Cancelled) {
                    self.strike(now);
                } else {
                    self.enter(now, Phase::Cancelling);
                }
            }
            Event::StopHookEnded(HookIndex(hook), result) if self.current() == Some(What::StopHook(hook)) => {
                self.hook_failed |= result != HookResult::Done;
                self.strike(now);
            }
            Event::InternalClosed if self.current() == Some(What::Internal) => self.strike(now),
            Event::StartHookEnded(..)
            | Event::Listening
            | Event::ListenFailed
            | Event::StopRequested(_)
            | Event::MainEmpty
            | Event::StopHookEnded(..)
            | Event::InternalClosed => return false,
        }
        true
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (self.failed, self.hook_failed) {
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::HookFailed,
            (false, false) => Verdict::Clean,
        }
    }
}

//! The state machine itself.

use super::{
    ABORT_FLUSH, Action, Event, GiveUp, History, HookBudget, HookIndex, HookRecord, HookResult, HookVerdict, Moment,
    Outcome, Phase, PhaseSpan, Plan, PlanError, StopReason, Timer, WATCHDOG_SLACK,
};
use alloc::{collections::VecDeque, vec, vec::Vec};
use core::time::Duration;

/// The stop that ends a life. Set once, by the first that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Who or what asked.
    pub reason: StopReason,
    /// When.
    pub at: Moment,
    /// When the process must be gone (P7).
    pub deadline: Moment,
}

/// The lifecycle of one process.
///
/// Its user tells it facts with [`handle_event`](Self::handle_event) and the passing of time with
/// [`handle_timeout`](Self::handle_timeout), each with the moment of the clock, which must not go back. **After either, all of
/// [`poll_action`](Self::poll_action) must be performed, in order, until it is `None`**; then
/// [`poll_timeout`](Self::poll_timeout) says when to call again at the latest; it may say "now", or a moment that is past.
///
/// An event does not end the waits whose time is up: tell the time first, then what happened.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    plan: Plan,
    /// What each hook is sure to get.
    shares: Vec<Duration>,
    own_budgets: Vec<HookBudget>,
    state: State,
    actions: VecDeque<Action>,
    history: History,
}

/// One variant a phase (two for `CleaningUp`), its data inside it, no flags beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting { until: Moment, step: StartStep },
    Serving,
    LameDuck { stop: Stop, until: Moment },
    Draining { stop: Stop, until: Moment },
    Cancelling { stop: Stop, until: Moment, step: CancelStep },
    CleaningUp { stop: Stop, hook: HookIndex, until: Moment },
    ClosingInternal { stop: Stop, until: Moment },
    Stopped { stop: Stop },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartStep {
    /// This hook runs; all before it are done.
    Hook(HookIndex),
    /// All hooks are done, the listeners are on their way.
    Listen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelStep {
    /// Everything was asked to return.
    Asked,
    /// What did not was dropped; answers are being flushed.
    Aborted,
}

impl Lifecycle {
    /// A life that begins now. Its first actions wait in [`poll_action`](Self::poll_action).
    ///
    /// # Errors
    /// [`PlanError::HooksExceedCleanup`] if the hooks' own budgets do not fit into the plan.
    pub fn new(plan: Plan, hooks: &[HookBudget], now: Moment) -> Result<Self, PlanError> {
        plan.check_hooks(hooks)?;
        let mut life = Self {
            plan,
            shares: plan.hook_shares(hooks),
            own_budgets: hooks.to_vec(),
            state: State::Starting { until: now + plan.start, step: StartStep::Listen },
            actions: VecDeque::new(),
            history: History {
                phases: vec![PhaseSpan { phase: Phase::Starting, from: now, to: None }],
                stop: None,
                failure: None,
                hooks: Vec::new(),
            },
        };
        life.actions.push_back(Action::Publish(Phase::Starting));
        life.start_from(HookIndex(0), now + plan.start);
        Ok(life)
    }

    /// The phase of now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Starting { .. } => Phase::Starting,
            State::Serving => Phase::Serving,
            State::LameDuck { .. } => Phase::LameDuck,
            State::Draining { .. } => Phase::Draining,
            State::Cancelling { .. } => Phase::Cancelling,
            State::CleaningUp { .. } | State::ClosingInternal { .. } => Phase::CleaningUp,
            State::Stopped { .. } => Phase::Stopped,
        }
    }

    /// Whether the lifecycle lets the process respond to what arrives (P2b): from Serving until the listeners start to
    /// close. After a stop that the process began itself it does not, although the lame duck still serves: the failing
    /// probe is then the only way to withdraw the endpoint.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        match self.state {
            State::Serving => true,
            State::LameDuck { stop, .. } => stop.reason.is_external(),
            State::Starting { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => false,
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes note of a fact. One that this state does not listen to is ignored, so a host may tell what it saw without asking
    /// whether it still matters; but it must not count on having said so once it does.
    pub fn handle_event(&mut self, now: Moment, event: Event) -> Outcome {
        match event {
            Event::StopRequested(reason) => self.on_stop_request(now, reason),
            Event::StartHookEnded(hook, result) => self.on_start_hook_ended(now, hook, result),
            Event::Listening => self.on_listening(now),
            Event::ListenFailed => self.on_listen_failed(now),
            Event::MainEmpty => self.on_main_empty(now),
            Event::StopHookEnded(hook, result) => self.on_stop_hook_ended(now, hook, result),
            Event::InternalClosed => self.on_internal_closed(now),
        }
    }

    /// Ends every wait whose time is up. Before the deadline of [`poll_timeout`](Self::poll_timeout) it does nothing.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((at, timer)) = self.poll_timeout()
            && at <= now
        {
            match (self.state, timer) {
                (State::Starting { step, .. }, Timer::Start) => self.fail_start(now, step, StopReason::StartTimedOut),
                (State::LameDuck { stop, .. }, Timer::LameDuck) => self.drain(now, stop),
                (State::Draining { stop, .. }, Timer::Drain) => self.cancel(now, stop),
                (State::Cancelling { stop, until, .. }, Timer::Abort) => self.abort(stop, until),
                (State::Cancelling { stop, .. }, Timer::Flush) => self.cut(now, stop),
                (State::CleaningUp { stop, hook, .. }, Timer::StopHook) => self.give_up(now, stop, hook, GiveUp::Overran),
                (State::ClosingInternal { stop, .. }, Timer::InternalClose) => {
                    self.actions.push_back(Action::CutInternal);
                    self.finish(now, stop);
                }
                (state, timer) => unreachable!("{timer:?} is no timer of {state:?}"),
            }
        }
    }

    /// The next thing to do, or `None` when all is done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, and why. `None`: nothing is waited for by time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Moment, Timer)> {
        match self.state {
            State::Starting { until, .. } => Some((until, Timer::Start)),
            State::Serving | State::Stopped { .. } => None,
            State::LameDuck { until, .. } => Some((until, Timer::LameDuck)),
            State::Draining { until, .. } => Some((until, Timer::Drain)),
            State::Cancelling { until, step: CancelStep::Asked, .. } => Some((self.abort_moment(until), Timer::Abort)),
            State::Cancelling { until, step: CancelStep::Aborted, .. } => Some((until, Timer::Flush)),
            State::CleaningUp { until, .. } => Some((until, Timer::StopHook)),
            State::ClosingInternal { until, .. } => Some((until, Timer::InternalClose)),
        }
    }

    // Events.

    fn on_stop_request(&mut self, now: Moment, reason: StopReason) -> Outcome {
        if let Some(stop) = self.history.stop {
            return self.on_further_stop_request(now, stop, reason);
        }
        match self.state {
            State::Starting { step, .. } => self.fail_start(now, step, reason),
            State::Serving => {
                let stop = self.stop(now, reason, self.plan.worst_case());
                self.enter(now, Phase::LameDuck, State::LameDuck { stop, until: now + self.plan.lame_duck });
            }
            State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => unreachable!("{:?} without a stop", self.state),
        }
        Outcome::Applied
    }

    /// P12: a further SIGINT or SIGQUIT ends the current wait; a further SIGTERM or SIGHUP changes nothing.
    fn on_further_stop_request(&mut self, now: Moment, stop: Stop, reason: StopReason) -> Outcome {
        match reason {
            StopReason::Signal(signal) if signal.is_impatient() => self.end_wait(now, stop),
            StopReason::TaskFailed => self.on_task_failed_after_stop(),
            StopReason::Signal(_) | StopReason::Requested | StopReason::StartFailed | StopReason::StartTimedOut => {
                Outcome::Ignored
            }
        }
    }

    /// P13: a task that fails during the shutdown changes nothing of its course, but the exit tells. Only until the root
    /// context is cancelled: from then on every task is asked to end, and how it does is nobody's failure.
    fn on_task_failed_after_stop(&mut self) -> Outcome {
        match self.state {
            State::LameDuck { .. } | State::Draining { .. } if self.history.failure.is_none() => {
                self.history.failure = Some(StopReason::TaskFailed);
                Outcome::Applied
            }
            State::Starting { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn end_wait(&mut self, now: Moment, stop: Stop) -> Outcome {
        match self.state {
            State::Starting { .. } | State::Serving | State::Stopped { .. } => return Outcome::Ignored,
            State::LameDuck { .. } => self.drain(now, stop),
            State::Draining { .. } => self.cancel(now, stop),
            State::Cancelling { step: CancelStep::Asked, until, .. } => {
                let flushed = now + ABORT_FLUSH.min(self.plan.cancel);
                self.abort(stop, until.min(flushed));
            }
            State::Cancelling { step: CancelStep::Aborted, .. } => self.cut(now, stop),
            State::CleaningUp { hook, .. } => self.give_up(now, stop, hook, GiveUp::Impatience),
            State::ClosingInternal { .. } => {
                self.actions.push_back(Action::CutInternal);
                self.finish(now, stop);
            }
        }
        Outcome::Applied
    }

    fn on_start_hook_ended(&mut self, now: Moment, ended: HookIndex, result: HookResult) -> Outcome {
        match self.state {
            State::Starting { until, step: StartStep::Hook(hook) } if hook == ended => {
                self.record(hook, HookVerdict::Started(result));
                match result {
                    HookResult::Done => self.start_from(HookIndex(hook.0 + 1), until),
                    HookResult::Failed | HookResult::Panicked => {
                        self.stop_before_serving(now, StopReason::StartFailed, hook);
                    }
                }
                Outcome::Applied
            }
            State::Starting { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn on_listening(&mut self, now: Moment) -> Outcome {
        if !matches!(self.state, State::Starting { step: StartStep::Listen, .. }) {
            return Outcome::Ignored;
        }
        self.enter(now, Phase::Serving, State::Serving);
        Outcome::Applied
    }

    fn on_listen_failed(&mut self, now: Moment) -> Outcome {
        if !matches!(self.state, State::Starting { step: StartStep::Listen, .. }) {
            return Outcome::Ignored;
        }
        self.stop_before_serving(now, StopReason::StartFailed, HookIndex(self.shares.len()));
        Outcome::Applied
    }

    fn on_main_empty(&mut self, now: Moment) -> Outcome {
        match self.state {
            // P8: with nothing left there is nothing to cancel for, but the root context is cancelled all the same (P10), so
            // that whoever holds it elsewhere learns that this life is over.
            State::Draining { stop, .. } => {
                self.cancel(now, stop);
                self.clean_up(now, stop);
                Outcome::Applied
            }
            State::Cancelling { stop, .. } => {
                self.clean_up(now, stop);
                Outcome::Applied
            }
            State::Starting { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn on_stop_hook_ended(&mut self, now: Moment, ended: HookIndex, result: HookResult) -> Outcome {
        match self.state {
            State::CleaningUp { stop, hook, .. } if hook == ended => {
                self.record(hook, HookVerdict::Stopped(result));
                self.stop_hooks_below(now, stop, hook);
                Outcome::Applied
            }
            State::Starting { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::ClosingInternal { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn on_internal_closed(&mut self, now: Moment) -> Outcome {
        let State::ClosingInternal { stop, .. } = self.state else { return Outcome::Ignored };
        self.finish(now, stop);
        Outcome::Applied
    }

    // Transitions, in the order of a life.

    /// Runs the start hooks from this one on, then listens.
    fn start_from(&mut self, hook: HookIndex, until: Moment) {
        let (step, action) = if hook.0 < self.shares.len() {
            (StartStep::Hook(hook), Action::RunStartHook(hook))
        } else {
            (StartStep::Listen, Action::Listen)
        };
        self.state = State::Starting { until, step };
        self.actions.push_back(action);
    }

    /// Ends the start before it is done, whatever it is doing.
    fn fail_start(&mut self, now: Moment, step: StartStep, reason: StopReason) {
        let started = match step {
            StartStep::Hook(hook) => {
                self.actions.push_back(Action::DropStartHook(hook));
                self.record(hook, HookVerdict::StartDropped);
                hook
            }
            StartStep::Listen => HookIndex(self.shares.len()),
        };
        self.stop_before_serving(now, reason, started);
    }

    /// P1: a stop before Serving skips to CleaningUp. `started` is the first hook whose start did not finish.
    fn stop_before_serving(&mut self, now: Moment, reason: StopReason, started: HookIndex) {
        let stop = self.stop(now, reason, self.plan.cleanup.saturating_add(self.plan.internal_close));
        self.actions.push_back(Action::Abandon);
        self.actions.push_back(Action::CancelRoot);
        self.enter_clean_up(now, stop, started);
    }

    fn stop(&mut self, now: Moment, reason: StopReason, worst_case: Duration) -> Stop {
        assert!(self.history.stop.is_none(), "P1: a life has one stop");
        let stop = Stop { reason, at: now, deadline: now + worst_case };
        self.history.stop = Some(stop);
        self.history.failure = reason.is_failure().then_some(reason);
        self.actions.push_back(Action::ArmWatchdog(stop.deadline + WATCHDOG_SLACK));
        stop
    }

    fn drain(&mut self, now: Moment, stop: Stop) {
        let later = self.plan.cancel.saturating_add(self.plan.cleanup).saturating_add(self.plan.internal_close);
        let until = self.bounded(now, stop, self.plan.drain, later);
        self.enter(now, Phase::Draining, State::Draining { stop, until });
        self.actions.push_back(Action::Quiesce);
    }

    fn cancel(&mut self, now: Moment, stop: Stop) {
        let later = self.plan.cleanup.saturating_add(self.plan.internal_close);
        let until = self.bounded(now, stop, self.plan.cancel, later);
        self.enter(now, Phase::Cancelling, State::Cancelling { stop, until, step: CancelStep::Asked });
        self.actions.push_back(Action::CancelRoot);
    }

    /// The last part of the cancel wait belongs to the answers of what is dropped here.
    fn abort(&mut self, stop: Stop, until: Moment) {
        self.state = State::Cancelling { stop, until, step: CancelStep::Aborted };
        self.actions.push_back(Action::Abort);
    }

    fn cut(&mut self, now: Moment, stop: Stop) {
        self.actions.push_back(Action::Cut);
        self.clean_up(now, stop);
    }

    fn clean_up(&mut self, now: Moment, stop: Stop) {
        self.enter_clean_up(now, stop, HookIndex(self.shares.len()));
    }

    /// Runs the stop hooks below `started`, last first.
    fn enter_clean_up(&mut self, now: Moment, stop: Stop, started: HookIndex) {
        self.enter(now, Phase::CleaningUp, State::CleaningUp { stop, hook: started, until: now });
        self.stop_hooks_below(now, stop, started);
    }

    fn stop_hooks_below(&mut self, now: Moment, stop: Stop, done: HookIndex) {
        let Some(next) = done.0.checked_sub(1) else {
            let until = self.bounded(now, stop, self.plan.internal_close, Duration::ZERO);
            self.state = State::ClosingInternal { stop, until };
            self.actions.push_back(Action::CloseInternal);
            return;
        };
        let until = self.stop_hook_deadline(now, stop, next);
        self.state = State::CleaningUp { stop, hook: HookIndex(next), until };
        self.actions.push_back(Action::RunStopHook(HookIndex(next)));
    }

    /// A hook may use what earlier ones left over, but never the share of one that is still to come (P11). After a pause of
    /// the whole process this may lie in the past: then the hook is given up as soon as it is run.
    fn stop_hook_deadline(&self, now: Moment, stop: Stop, hook: usize) -> Moment {
        let common = self.clean_up_deadline(stop);
        let reserved = self.shares[..hook].iter().fold(Duration::ZERO, |sum, share| sum.saturating_add(*share));
        let mine = common.minus(reserved);
        match self.own_budgets[hook] {
            HookBudget::Own(own) => mine.min(now + own),
            HookBudget::Shared => mine,
        }
    }

    /// When the stop hooks' common budget ends.
    fn clean_up_deadline(&self, stop: Stop) -> Moment {
        let entered =
            self.history.phases.iter().find(|span| span.phase == Phase::CleaningUp).map_or(stop.at, |span| span.from);
        self.bounded(entered, stop, self.plan.cleanup, self.plan.internal_close)
    }

    fn give_up(&mut self, now: Moment, stop: Stop, hook: HookIndex, why: GiveUp) {
        self.actions.push_back(Action::GiveUpStopHook(hook, why));
        self.record(hook, HookVerdict::GivenUp(why));
        self.stop_hooks_below(now, stop, hook);
    }

    fn finish(&mut self, now: Moment, stop: Stop) {
        self.enter(now, Phase::Stopped, State::Stopped { stop });
        self.actions.push_back(Action::Exit);
    }

    // Invariants.

    fn enter(&mut self, now: Moment, phase: Phase, state: State) {
        assert!(phase > self.phase(), "P1: {} cannot follow {}", phase, self.phase());
        self.state = state;
        if let Some(span) = self.history.phases.last_mut() {
            span.to = Some(now);
        }
        self.history.phases.push(PhaseSpan { phase, from: now, to: None });
        self.actions.push_back(Action::Publish(phase));
    }

    /// The end of a wait that begins now: its budget, but never into what `later` phases need before the stop's deadline (P7).
    /// Only a host that calls back late, say after a pause of the whole process, feels the second: what is late is taken from
    /// the wait that follows, and the end may then lie in the past.
    fn bounded(&self, now: Moment, stop: Stop, budget: Duration, later: Duration) -> Moment {
        let until = (now + budget).min(stop.deadline.minus(later));
        assert!(until <= stop.deadline, "P7: a wait until {until:?} passes the deadline {:?}", stop.deadline);
        until
    }

    /// When what ignores the cancellation is dropped, in a cancel wait that ends at `until`.
    fn abort_moment(&self, until: Moment) -> Moment {
        until.minus(ABORT_FLUSH.min(self.plan.cancel))
    }

    fn record(&mut self, hook: HookIndex, verdict: HookVerdict) {
        let twice = self
            .history
            .hooks
            .iter()
            .any(|record| record.hook == hook && is_stop_half(record.verdict) == is_stop_half(verdict));
        assert!(!twice, "P11: {hook:?} ended twice");
        self.history.hooks.push(HookRecord { hook, verdict });
    }
}

fn is_stop_half(verdict: HookVerdict) -> bool {
    match verdict {
        HookVerdict::Started(_) | HookVerdict::StartDropped => false,
        HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => true,
    }
}

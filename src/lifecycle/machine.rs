//! The state machine.

use super::{
    ABORT_FLUSH, Action, Event, GiveUp, History, HookBudget, HookIndex, HookRecord, HookResult,
    HookVerdict, Moment, Outcome, Phase, PhaseSpan, Plan, PlanError, START_RESULT_WAIT, Stop,
    StopReason, Timer, WATCHDOG_SLACK, WORKER_RELEASE_MAX, WORKER_RELEASE_MIN, requests::Requests,
};
use alloc::{collections::VecDeque, vec, vec::Vec};
use core::time::Duration;

/// The lifecycle of one process.
///
/// The host reports facts with [`handle_event`](Self::handle_event) and the passing of time with
/// [`handle_timeout`](Self::handle_timeout). Both take the current time of the clock, which must
/// not go back. **After either call, perform all actions that [`poll_action`](Self::poll_action)
/// returns, in order, until it returns `None`.** Then [`poll_timeout`](Self::poll_timeout) returns
/// the latest time for the next call. That time may be now or in the past.
///
/// An event does not end expired waits. Call `handle_timeout` first, then `handle_event`.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    plan: Plan,
    /// The time that each hook is guaranteed.
    shares: Vec<Duration>,
    own_budgets: Vec<HookBudget>,
    state: State,
    actions: VecDeque<Action>,
    history: History,
}

/// One variant for each phase (two for `Starting`). All data is inside the variants; there are no
/// additional flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting {
        until: Moment,
        step: StartStep,
    },
    /// The start is abandoned. Its running hook was cancelled, and its result is awaited.
    EndingStart {
        stop: Stop,
        hook: HookIndex,
        until: Moment,
    },
    Serving,
    LameDuck {
        stop: Stop,
        until: Moment,
    },
    Draining {
        stop: Stop,
        until: Moment,
        requests: Requests,
    },
    Cancelling {
        stop: Stop,
        until: Moment,
        step: CancelStep,
        requests: Requests,
    },
    CleaningUp {
        stop: Stop,
        until: Moment,
        step: CleanUpStep,
        late: LateStart,
    },
    Stopped {
        stop: Stop,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartStep {
    /// This hook runs; all hooks before it have finished.
    Hook(HookIndex),
    /// All start hooks have finished; the host is about to listen.
    Listen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelStep {
    /// Handlers and tasks were cancelled and may return.
    Asked,
    /// Handlers and tasks that did not return were dropped; their responses are being flushed.
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CleanUpStep {
    /// This stop hook runs; those with a lower index follow.
    Hook(HookIndex),
    /// All other stop hooks have ended. The dropped start hook of this pair has not returned yet.
    LateStart(HookIndex),
    /// The stop hook of a start that finished late runs, after all others.
    LateHook(HookIndex),
    /// The workers and their runtimes end.
    Workers,
    /// The internal server closes.
    Internal,
}

/// A start hook that was dropped and did not return in time. If it still finishes, its stop hook
/// runs (P11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LateStart {
    None,
    Running(HookIndex),
    Finished(HookIndex),
}

impl Lifecycle {
    /// Creates a lifecycle that begins now. Its first actions are ready in
    /// [`poll_action`](Self::poll_action).
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

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Starting { .. } | State::EndingStart { .. } => Phase::Starting,
            State::Serving => Phase::Serving,
            State::LameDuck { .. } => Phase::LameDuck,
            State::Draining { .. } => Phase::Draining,
            State::Cancelling { .. } => Phase::Cancelling,
            State::CleaningUp { .. } => Phase::CleaningUp,
            State::Stopped { .. } => Phase::Stopped,
        }
    }

    /// Whether the lifecycle lets the process respond to requests (P2b): from Serving until the
    /// listeners start to close. After a stop that the process began itself this is false, although
    /// the lame duck still serves. The failing probe is then the only way to withdraw the endpoint.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        match self.state {
            State::Serving => true,
            State::LameDuck { stop, .. } => stop.reason.is_external(),
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Draining { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => false,
        }
    }

    /// The record of the run until now.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Handles a fact. A fact that does not matter in this state is ignored, so a host can report
    /// all that it sees. A fact that was ignored must be reported again once it matters.
    pub fn handle_event(&mut self, now: Moment, event: Event) -> Outcome {
        match event {
            Event::StopRequested(reason) => self.on_stop_request(now, reason),
            Event::StartHookEnded(hook, result) => self.on_start_hook_ended(now, hook, result),
            Event::StartHookCancelled(hook) => self.on_start_hook_cancelled(now, hook),
            Event::Listening => self.on_listening(now),
            Event::ListenFailed => self.on_listen_failed(now),
            Event::MainClosed => self.on_main_closed(now),
            Event::StopHookEnded(hook, result) => self.on_stop_hook_ended(now, hook, result),
            Event::WorkersReleased => self.on_workers_released(now),
            Event::InternalClosed => self.on_internal_closed(now),
        }
    }

    /// Ends every expired wait. Does nothing before the deadline of
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((at, timer)) = self.poll_timeout()
            && at <= now
        {
            match (self.state, timer) {
                (State::Starting { step, .. }, Timer::Start) => {
                    self.abandon_start(now, step, StopReason::StartTimedOut);
                }
                (State::EndingStart { stop, hook, .. }, Timer::StartResult) => {
                    self.drop_start(now, stop, hook, LateStart::Running(hook));
                }
                (State::LameDuck { stop, .. }, Timer::LameDuck) => self.drain(now, stop),
                (State::Draining { stop, .. }, Timer::Drain) => self.cancel(now, stop),
                (
                    State::Draining { .. } | State::Cancelling { .. },
                    Timer::RequestDrain | Timer::RequestAbort | Timer::RequestFlush,
                ) => self.end_request_wait(now),
                (State::Cancelling { stop, until, .. }, Timer::Abort) => self.abort(stop, until),
                (State::Cancelling { stop, .. }, Timer::Flush) => self.cut(now, stop),
                (State::CleaningUp { stop, step, late, .. }, _) => {
                    self.end_clean_up_step(now, stop, step, late, GiveUp::Overran);
                }
                (state, timer) => unreachable!("{timer:?} is not a timer of {state:?}"),
            }
        }
    }

    /// The next action, or `None` if all were taken.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, and why. `None` if no
    /// wait has a deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Moment, Timer)> {
        match self.state {
            State::Starting { until, .. } => Some((until, Timer::Start)),
            State::EndingStart { until, .. } => Some((until, Timer::StartResult)),
            State::Serving | State::Stopped { .. } => None,
            State::LameDuck { until, .. } => Some((until, Timer::LameDuck)),
            State::Draining { until, requests, .. } => {
                requests.timeout_before(until).or(Some((until, Timer::Drain)))
            }
            State::Cancelling { until, step, requests, .. } => {
                let limit = match step {
                    CancelStep::Asked => (self.abort_moment(until), Timer::Abort),
                    CancelStep::Aborted => (until, Timer::Flush),
                };
                requests.timeout_before(limit.0).or(Some(limit))
            }
            State::CleaningUp { until, step, .. } => Some((until, step.timer())),
        }
    }

    // Events.

    fn on_stop_request(&mut self, now: Moment, reason: StopReason) -> Outcome {
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

    fn on_start_hook_ended(
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

    fn on_start_hook_cancelled(&mut self, now: Moment, ended: HookIndex) -> Outcome {
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

    /// A dropped start hook returned. This changes nothing, unless the clean-up waits for it.
    fn on_late_start(&mut self, now: Moment, state: State) {
        self.state = state;
        if let State::CleaningUp { stop, step: CleanUpStep::LateStart(_), late, .. } = state {
            self.after_stop_hooks(now, stop, late);
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

    fn on_main_closed(&mut self, now: Moment) -> Outcome {
        match self.state {
            // P8: nothing is left to wait for. The root context is still cancelled (P10), because
            // code outside the host may hold it and wait for the end of the run.
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
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    fn on_stop_hook_ended(&mut self, now: Moment, ended: HookIndex, result: HookResult) -> Outcome {
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

    fn on_workers_released(&mut self, now: Moment) -> Outcome {
        let State::CleaningUp { stop, step: CleanUpStep::Workers, .. } = self.state else {
            return Outcome::Ignored;
        };
        self.close_internal(now, stop);
        Outcome::Applied
    }

    fn on_internal_closed(&mut self, now: Moment) -> Outcome {
        let State::CleaningUp { stop, step: CleanUpStep::Internal, .. } = self.state else {
            return Outcome::Ignored;
        };
        self.finish(now, stop);
        Outcome::Applied
    }

    // Transitions, in the order of a run.

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

    /// Abandons the start. A running hook is cancelled first: it may finish at this moment, and
    /// then its stop hook must run (P11).
    fn abandon_start(&mut self, now: Moment, step: StartStep, reason: StopReason) {
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
    fn drop_start(&mut self, now: Moment, stop: Stop, hook: HookIndex, late: LateStart) {
        self.actions.push_back(Action::DropStartHook(hook));
        self.record(hook, HookVerdict::StartDropped);
        self.abandon(now, stop, hook, late);
    }

    fn stop_before_serving(&mut self, now: Moment, reason: StopReason, first_unstarted: HookIndex) {
        let stop = self.stop(now, reason, self.clean_up_budget());
        self.abandon(now, stop, first_unstarted, LateStart::None);
    }

    const fn clean_up_budget(&self) -> Duration {
        self.plan.cleanup.saturating_add(self.plan.internal_close)
    }

    /// P1: a stop before Serving skips to CleaningUp. `first_unstarted` is the first hook whose
    /// start did not finish.
    fn abandon(&mut self, now: Moment, stop: Stop, first_unstarted: HookIndex, late: LateStart) {
        self.actions.push_back(Action::Abandon);
        self.actions.push_back(Action::CancelRoot);
        self.enter_clean_up(now, stop, first_unstarted, late);
    }

    fn stop(&mut self, now: Moment, reason: StopReason, worst_case: Duration) -> Stop {
        assert!(self.history.stop.is_none(), "P1: a process has one stop");
        let stop = Stop { reason, at: now, deadline: now + worst_case };
        self.history.stop = Some(stop);
        self.history.failure = reason.is_failure().then_some(reason);
        self.actions.push_back(Action::ArmWatchdog(stop.deadline + WATCHDOG_SLACK));
        stop
    }

    fn drain(&mut self, now: Moment, stop: Stop) {
        let later = self.plan.cancel.saturating_add(self.clean_up_budget());
        let longest = self.plan.drain.max(self.plan.streams);
        let until = self.bounded(now, stop, longest, later);
        let extra = self.streams_extra();
        let requests = if extra.is_zero() {
            Requests::WithPhase
        } else {
            let later = later.saturating_add(extra);
            Requests::Served { until: self.bounded(now, stop, self.plan.drain, later) }
        };
        self.enter(now, Phase::Draining, State::Draining { stop, until, requests });
        self.actions.push_back(Action::Quiesce);
    }

    /// Ends a wait for ordinary requests, while long streams may take longer. The limits are those
    /// of a plan without streams.
    fn end_request_wait(&mut self, now: Moment) {
        let (State::Draining { stop, requests, .. } | State::Cancelling { stop, requests, .. }) =
            self.state
        else {
            return;
        };
        let cancelled = || {
            let later = self.clean_up_budget().saturating_add(self.streams_extra());
            let cut_at = self.bounded(now, stop, self.plan.cancel, later);
            Requests::Cancelled { abort_at: self.abort_moment(cut_at), cut_at }
        };
        let Some((next, action)) = requests.next(cancelled) else { return };
        if let State::Draining { requests, .. } | State::Cancelling { requests, .. } =
            &mut self.state
        {
            *requests = next;
        }
        self.actions.push_back(action);
    }

    /// The time that long streams have in addition to the drain of ordinary requests.
    const fn streams_extra(&self) -> Duration {
        self.plan.streams.saturating_sub(self.plan.drain)
    }

    fn cancel(&mut self, now: Moment, stop: Stop) {
        let until = self.bounded(now, stop, self.plan.cancel, self.clean_up_budget());
        let (step, requests) = (CancelStep::Asked, self.requests().after_root_cancelled());
        self.enter(now, Phase::Cancelling, State::Cancelling { stop, until, step, requests });
        self.actions.push_back(Action::CancelRoot);
    }

    /// The last part of the cancel wait is for flushing the responses of what is dropped here.
    fn abort(&mut self, stop: Stop, until: Moment) {
        let (step, requests) = (CancelStep::Aborted, self.requests().after_abort());
        self.state = State::Cancelling { stop, until, step, requests };
        self.actions.push_back(Action::Abort);
    }

    const fn requests(&self) -> Requests {
        match self.state {
            State::Draining { requests, .. } | State::Cancelling { requests, .. } => requests,
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => Requests::WithPhase,
        }
    }

    fn cut(&mut self, now: Moment, stop: Stop) {
        self.actions.push_back(Action::Cut);
        self.clean_up(now, stop);
    }

    fn clean_up(&mut self, now: Moment, stop: Stop) {
        self.enter_clean_up(now, stop, HookIndex(self.shares.len()), LateStart::None);
    }

    /// Runs the stop hooks with an index below `first_unstarted`, last first.
    fn enter_clean_up(
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
    fn end_clean_up_step(
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

    /// Returns the end of a wait that begins now. The wait gets its budget, but must leave the
    /// `later` phases the time they need before the stop's deadline (P7). The second bound only
    /// matters if the host calls late, such as after a pause of the whole process. The delay then
    /// shortens the next wait, whose end may be in the past.
    fn bounded(&self, now: Moment, stop: Stop, budget: Duration, later: Duration) -> Moment {
        let until = (now + budget).min(stop.deadline.minus(later));
        assert!(
            until <= stop.deadline,
            "P7: a wait until {until:?} passes the deadline {:?}",
            stop.deadline
        );
        until
    }

    /// When handlers and tasks that ignore the cancellation are dropped, in a cancel wait that ends
    /// at `until`.
    fn abort_moment(&self, until: Moment) -> Moment {
        until.minus(ABORT_FLUSH.min(self.plan.cancel))
    }

    fn record(&mut self, hook: HookIndex, verdict: HookVerdict) {
        let twice = self.history.hooks.iter().any(|record| {
            record.hook == hook && is_stop_stage(record.verdict) == is_stop_stage(verdict)
        });
        assert!(!twice, "P11: {hook:?} ended twice");
        self.history.hooks.push(HookRecord { hook, verdict });
    }
}

impl CleanUpStep {
    const fn timer(self) -> Timer {
        match self {
            Self::Hook(_) | Self::LateHook(_) => Timer::StopHook,
            Self::LateStart(_) => Timer::LateStart,
            Self::Workers => Timer::WorkerRelease,
            Self::Internal => Timer::InternalClose,
        }
    }
}

fn is_stop_stage(verdict: HookVerdict) -> bool {
    match verdict {
        HookVerdict::Started(_) | HookVerdict::StartDropped => false,
        HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => true,
    }
}

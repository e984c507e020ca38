//! The state machine. This file has its calls, the dispatch of events and timers, and the
//! invariants; the transitions are in the order of a run: `start`, `stop_request`, `drain`,
//! `clean_up`.

mod clean_up;
mod drain;
mod start;
mod state;
mod stop_request;

use self::state::{CancelStep, LateStart, StartStep, State};
use super::{
    Action, Event, GiveUp, History, HookBudget, HookIndex, HookRecord, HookVerdict, Moment,
    Outcome, Phase, PhaseSpan, Plan, PlanError, Stop, StopReason, Timer,
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

    fn record(&mut self, hook: HookIndex, verdict: HookVerdict) {
        let twice = self.history.hooks.iter().any(|record| {
            record.hook == hook && is_stop_stage(record.verdict) == is_stop_stage(verdict)
        });
        assert!(!twice, "P11: {hook:?} ended twice");
        self.history.hooks.push(HookRecord { hook, verdict });
    }
}

fn is_stop_stage(verdict: HookVerdict) -> bool {
    match verdict {
        HookVerdict::Started(_) | HookVerdict::StartDropped => false,
        HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => true,
    }
}

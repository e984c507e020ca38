//! A run under test: the machine, a clock that only the test moves, and a checker that sees every
//! action.

use crate::checker::Checker;
use core::time::Duration;
use lameduck::lifecycle::{
    Action, Event, HookBudget, HookIndex, HookResult, Lifecycle, Moment, Outcome, Phase, Plan,
    Signal, StopReason, Timer,
};

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) const HOOK_RESULTS: [HookResult; 4] =
    [HookResult::Done, HookResult::Failed, HookResult::BadSetting, HookResult::Panicked];

/// A plan in which every step takes `each`.
pub(crate) fn even_plan(each: Duration) -> Plan {
    Plan::new()
        .start(each)
        .lame_duck(each)
        .drain(each)
        .cancel(each)
        .cleanup(each)
        .internal_close(each)
}

/// Returns all events that a host with `hooks` hooks can report, whether they make sense now or
/// not.
pub(crate) fn events(hooks: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for hook in (0..hooks).map(HookIndex) {
        events.extend(HOOK_RESULTS.map(|result| Event::StartHookEnded(hook, result)));
        events.push(Event::StartHookCancelled(hook));
    }
    events.extend([Event::Listening, Event::ListenFailed]);
    events.extend(Signal::ALL.map(|signal| Event::StopRequested(StopReason::Signal(signal))));
    events.extend(
        [
            StopReason::Requested,
            StopReason::TaskFailed,
            StopReason::StartFailed,
            StopReason::StartTimedOut,
        ]
        .map(Event::StopRequested),
    );
    events.push(Event::MainClosed);
    for hook in (0..hooks).map(HookIndex) {
        events.extend(HOOK_RESULTS.map(|result| Event::StopHookEnded(hook, result)));
    }
    events.extend([Event::WorkersReleased, Event::InternalClosed]);
    events
}

/// A signal, as an event.
pub(crate) fn signal(signal: Signal) -> Event {
    Event::StopRequested(StopReason::Signal(signal))
}

/// The machine, its current time, and its checker.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) machine: Lifecycle,
    pub(crate) now: Moment,
    pub(crate) checker: Checker,
}

impl Run {
    /// Begins a run at second 100, so that its beginning differs from the epoch.
    pub(crate) fn begin(plan: Plan, hooks: &[HookBudget]) -> (Self, Vec<Action>) {
        let now = Moment::EPOCH + Duration::from_secs(100);
        let machine = Lifecycle::new(plan, hooks, now).expect("the hooks fit into the plan");
        let mut life = Self { machine, now, checker: Checker::new(plan, hooks, now) };
        let actions = life.settle();
        (life, actions)
    }

    /// Begins a run whose start hooks are all done and whose listeners listen.
    pub(crate) fn serving(plan: Plan, hooks: &[HookBudget]) -> Self {
        let (mut life, _) = Self::begin(plan, hooks);
        for hook in 0..hooks.len() {
            life.tell(Event::StartHookEnded(HookIndex(hook), HookResult::Done));
        }
        life.tell(Event::Listening);
        assert_eq!(life.machine.phase(), Phase::Serving);
        life
    }

    /// Handles an event that must have an effect.
    pub(crate) fn tell(&mut self, event: Event) -> Vec<Action> {
        let place = self.place();
        let (outcome, actions) = self.try_tell(event);
        assert_eq!(outcome, Outcome::Applied, "{event:?} counts for nothing in {place}");
        actions
    }

    /// Handles an event at the current time.
    pub(crate) fn try_tell(&mut self, event: Event) -> (Outcome, Vec<Action>) {
        self.checker.before_event(event, &self.machine);
        let outcome = self.machine.handle_event(self.now, event);
        let actions = self.settle();
        self.checker.after_event(self.now, event, outcome, &actions, &self.machine);
        (outcome, actions)
    }

    /// Moves the clock without a call of `handle_timeout`: the next event reaches the machine
    /// first.
    pub(crate) fn move_clock(&mut self, moment: Moment) {
        assert!(moment >= self.now, "a clock does not go back");
        self.now = moment;
        self.checker.clock_moved(moment, self.machine.poll_timeout().map(|(until, _)| until));
    }

    /// Moves the clock and ends every wait that has expired by then.
    pub(crate) fn wait_until(&mut self, moment: Moment) -> Vec<Action> {
        self.move_clock(moment);
        self.machine.handle_timeout(self.now);
        self.settle()
    }

    /// Moves the clock by `span` and ends every wait that has expired by then.
    pub(crate) fn wait(&mut self, span: Duration) -> Vec<Action> {
        self.wait_until(self.now + span)
    }

    /// Waits until the current wait expires.
    pub(crate) fn time_out(&mut self) -> Vec<Action> {
        let (at, timer) = self.machine.poll_timeout().expect("this state waits for a time");
        let actions = self.wait_until(at.max(self.now));
        assert_ne!(actions, [], "P7: {timer:?} was due at {at:?}, and nothing came of it");
        actions
    }

    /// Waits until the current wait expires; workers end at once.
    pub(crate) fn time_out_with_prompt_workers(&mut self) -> Vec<Action> {
        match self.machine.poll_timeout() {
            Some((_, Timer::WorkerRelease)) => self.tell(Event::WorkersReleased),
            _ => self.time_out(),
        }
    }

    /// The deadline of the current wait, as a span from now.
    pub(crate) fn time_left(&self) -> Duration {
        let (at, _) = self.machine.poll_timeout().expect("this state waits for a time");
        at.since(self.now)
    }

    /// A readable name of the current state: `starting/hook 0 of 2`, `cancelling/asked`,
    /// `cleaning_up/hook 1`.
    pub(crate) fn place(&self) -> String {
        let phase = self.machine.phase();
        match self.machine.poll_timeout().map(|(_, timer)| timer) {
            Some(Timer::Start) => match self.checker.running_start_hook {
                Some(hook) => format!("{phase}/hook {} of {}", hook.0, self.checker.hooks.len()),
                None => format!("{phase}/listening"),
            },
            Some(Timer::StartResult) => {
                let hook = self
                    .checker
                    .running_start_hook
                    .expect("P11: a start hook that is waited for runs");
                format!("{phase}/hook {} cancelled", hook.0)
            }
            Some(Timer::RequestDrain) => format!("{phase}/requests"),
            Some(Timer::RequestAbort) => format!("{phase}/requests cancelled"),
            Some(Timer::RequestFlush) => format!("{phase}/requests aborted"),
            Some(Timer::Abort) => format!("{phase}/asked"),
            Some(Timer::Flush) => format!("{phase}/aborted"),
            Some(Timer::StopHook) => {
                format!(
                    "{phase}/hook {}",
                    self.checker.running_stop_hook.expect("P11: a hook that is waited for runs").0
                )
            }
            Some(Timer::LateStart) => format!("{phase}/late start hook"),
            Some(Timer::WorkerRelease) => format!("{phase}/workers"),
            Some(Timer::InternalClose) => format!("{phase}/internal server"),
            Some(Timer::LameDuck | Timer::Drain) | None => phase.to_string(),
        }
    }

    fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            self.checker.saw(self.now, action);
            actions.push(action);
        }
        self.checker.settled(self.now, &self.machine);
        actions
    }
}

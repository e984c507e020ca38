//! Observes a run through its actions and its public state, and asserts the promises at each step.
//! It does not read the machine's private state.

mod events;

use core::time::Duration;
use lameduck::lifecycle::{
    ABORT_FLUSH, Action, GiveUp, HookBudget, HookIndex, Lifecycle, Moment, Phase, Plan,
    START_RESULT_WAIT, Timer, Verdict, WATCHDOG_SLACK, WORKER_RELEASE_MIN,
};

/// The state that the checker has observed.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    plan: Plan,
    pub(crate) hooks: Vec<HookBudget>,
    pub(crate) running_start_hook: Option<HookIndex>,
    pub(crate) running_stop_hook: Option<HookIndex>,
    /// A start hook that was dropped and has not returned.
    late_start: Option<HookIndex>,
    /// A start hook that finished after it was dropped; its stop hook has not run yet.
    late_stop: Option<HookIndex>,
    /// The running stop hook is a late one: it gets the time that the others left.
    stop_hook_is_late: bool,
    /// The time that the wait for a cancelled start hook may take from the stop hooks.
    taken: Duration,
    /// Start hooks that finished and whose stop hooks have not run yet. A stack: P11 requires
    /// reverse order.
    to_stop: Vec<HookIndex>,
    phase: Option<Phase>,
    root: Root,
    requests: Requests,
    drain_began: Moment,
    main: Main,
    workers: Workers,
    watchdog: Option<Moment>,
    failed: bool,
    bad_setting: bool,
    hook_failed: bool,
    exited: bool,
    start_by: Moment,
    stop_hook_began: Moment,
    host: Host,
    place_before: Option<Place>,
    stopped_before: bool,
}

/// The public state of a machine, to detect changes.
type Place = (Phase, Option<(Moment, Timer)>);

/// Hooks are guaranteed their full share only if the host calls in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Punctual,
    Late,
}

/// Ordinary requests in a plan with a longer budget for streams, with the time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Requests {
    Served,
    Cancelled(Moment),
    Aborted(Moment),
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Alive,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Main {
    Reserved,
    Listening,
    Open,
    Quiesced,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workers {
    Running,
    Released,
}

impl Checker {
    pub(crate) fn new(plan: Plan, hooks: &[HookBudget], now: Moment) -> Self {
        Self {
            plan,
            hooks: hooks.to_vec(),
            running_start_hook: None,
            running_stop_hook: None,
            late_start: None,
            late_stop: None,
            stop_hook_is_late: false,
            taken: Duration::ZERO,
            to_stop: Vec::new(),
            phase: None,
            root: Root::Alive,
            requests: Requests::Served,
            drain_began: now,
            main: Main::Reserved,
            workers: Workers::Running,
            watchdog: None,
            failed: false,
            bad_setting: false,
            hook_failed: false,
            exited: false,
            start_by: now + plan.start,
            stop_hook_began: now,
            host: Host::Punctual,
            place_before: None,
            stopped_before: false,
        }
    }

    /// Whether `Action::Exit` was returned.
    pub(crate) fn exited(&self) -> bool {
        self.exited
    }

    /// All state that decides what this checker accepts from now on.
    pub(crate) fn digest(&self, now: Moment) -> impl Ord + use<> {
        let hook_ran = self.running_stop_hook.map(|hook| (hook, now.since(self.stop_hook_began)));
        let drains = matches!(self.phase, Some(Phase::Draining | Phase::Cancelling))
            && self.plan.streams > self.plan.drain;
        let since = |moment: Moment| now.since(moment);
        let since_drain = drains.then(|| since(self.drain_began));
        let requests = drains.then_some(match self.requests {
            Requests::Served => (0, Duration::ZERO),
            Requests::Cancelled(at) => (1, since(at)),
            Requests::Aborted(at) => (2, since(at)),
            Requests::Cut => (3, Duration::ZERO),
        });
        let flags = (self.failed, self.bad_setting, self.hook_failed, self.host == Host::Late);
        (
            self.phase,
            self.running_start_hook,
            self.to_stop.len(),
            hook_ran,
            (self.late_start, self.late_stop),
            (drains, since_drain, requests),
            flags,
        )
    }

    /// Records that the clock moved to `now`, while the machine waited until `until`.
    pub(crate) fn clock_moved(&mut self, now: Moment, until: Option<Moment>) {
        if until.is_some_and(|until| until < now) {
            self.host = Host::Late;
        }
    }

    /// Whether the result of a dropped start hook still counts.
    fn is_cleaning_up(&self) -> bool {
        self.phase == Some(Phase::CleaningUp) && self.workers == Workers::Running
    }

    /// The time that a stop hook is guaranteed, as [`HookBudget`] documents.
    fn share(&self, hook: HookIndex) -> Duration {
        let own = |budget: &HookBudget| match budget {
            HookBudget::Own(own) => Some(*own),
            HookBudget::Shared => None,
        };
        let shared = self.hooks.iter().filter(|budget| own(budget).is_none()).count();
        let left = self.plan.cleanup - self.hooks.iter().filter_map(own).sum::<Duration>();
        own(&self.hooks[hook.0]).unwrap_or_else(|| left / u32::try_from(shared).expect("few hooks"))
    }

    /// An ordinary request never uses the budget of streams, and has its own whole (P7).
    fn assert_request_limit(&self, now: Moment, limit: Duration) {
        assert!(self.plan.streams > self.plan.drain, "P7: the phase ends its requests");
        let took = now.since(self.drain_began);
        assert!(
            self.host == Host::Late || took == limit,
            "P7: requests were limited after {took:?} of {limit:?}"
        );
    }

    /// Checks one action. Actions come in the order in which they were returned.
    pub(crate) fn saw(&mut self, now: Moment, action: Action) {
        assert!(!self.exited, "P1: {action:?} after Exit");
        match action {
            Action::Publish(phase) => self.published(phase),
            Action::RunStartHook(hook) => {
                assert_eq!(self.phase, Some(Phase::Starting), "P11: a start hook runs in Starting");
                assert_eq!(self.running_start_hook, None, "P11: one start hook at a time");
                self.running_start_hook = Some(hook);
            }
            Action::CancelStartHook(hook) => {
                // A plan with no other time for this result takes it from the clean-up.
                let Plan { lame_duck, drain, streams, cancel, .. } = self.plan;
                let drain = drain.max(streams);
                self.taken = START_RESULT_WAIT.saturating_sub(lame_duck + drain + cancel);
                assert_eq!(
                    self.running_start_hook,
                    Some(hook),
                    "P11: only a hook that runs is cancelled"
                );
            }
            Action::DropStartHook(hook) => {
                if self.running_start_hook.take().is_some_and(|running| running == hook) {
                    self.late_start = Some(hook);
                }
            }
            Action::Listen => {
                assert_eq!(self.running_start_hook, None, "P2: ports listen after the start hooks");
                assert_eq!(
                    self.to_stop.len(),
                    self.hooks.len(),
                    "P2: ports listen after all start hooks"
                );
                assert_eq!(self.main, Main::Reserved, "P2: ports listen once");
                self.main = Main::Listening;
            }
            Action::Abandon => {
                assert!(
                    matches!(self.main, Main::Reserved | Main::Listening),
                    "P1: what served is drained, not abandoned"
                );
                self.main = Main::Gone;
            }
            Action::ArmWatchdog(at) => {
                assert_eq!(self.watchdog.replace(at), None, "P1: the deadline is set once");
            }
            Action::Quiesce => {
                assert_eq!(
                    self.main,
                    Main::Open,
                    "P4: it accepts until it quiesces, and quiesces once"
                );
                assert_eq!(self.phase, Some(Phase::Draining), "P4: a lame duck accepts");
                self.main = Main::Quiesced;
                self.drain_began = now;
            }
            Action::CancelRequests => {
                assert_eq!(self.requests, Requests::Served, "P10: requests are cancelled once");
                assert_eq!((self.phase, self.root), (Some(Phase::Draining), Root::Alive), "P10");
                self.assert_request_limit(now, self.plan.drain);
                self.requests = Requests::Cancelled(now);
            }
            Action::AbortRequests => {
                assert!(matches!(self.requests, Requests::Cancelled(_)), "P10: asked first");
                let flush = ABORT_FLUSH.min(self.plan.cancel);
                self.assert_request_limit(now, self.plan.drain + self.plan.cancel - flush);
                self.requests = Requests::Aborted(now);
            }
            Action::CutRequests => {
                assert!(self.requests != Requests::Cut, "P10: cut once");
                self.assert_request_limit(now, self.plan.drain + self.plan.cancel);
                self.requests = Requests::Cut;
            }
            Action::CancelRoot => {
                assert_eq!(self.root, Root::Alive, "P10: the root is cancelled once");
                assert!(
                    matches!(self.main, Main::Quiesced | Main::Gone),
                    "P10: cancelled while {:?}",
                    self.main
                );
                assert_ne!(
                    self.phase,
                    Some(Phase::Draining),
                    "P10: cancelled before the drain ended"
                );
                self.root = Root::Cancelled;
            }
            Action::Abort => {
                assert_eq!(self.phase, Some(Phase::Cancelling), "P10: what is cut was asked first");
                assert_eq!(self.root, Root::Cancelled, "P10: what is cut was asked first");
            }
            Action::Cut => {
                assert_eq!(self.phase, Some(Phase::Cancelling), "P10: what is cut was asked first");
                assert_eq!(self.main, Main::Quiesced, "P10: cut once");
                self.main = Main::Gone;
            }
            Action::RunStopHook(hook) => {
                assert_eq!(
                    self.phase,
                    Some(Phase::CleaningUp),
                    "P10: a stop hook runs in CleaningUp"
                );
                assert_eq!(self.root, Root::Cancelled, "P10: clean up after cancel");
                assert_eq!(self.running_stop_hook, None, "P11: one stop hook at a time");
                self.stop_hook_is_late = self.to_stop.is_empty();
                let next = self.to_stop.pop().or_else(|| self.late_stop.take());
                assert_eq!(
                    next,
                    Some(hook),
                    "P11: reverse order, exactly once, only if its start finished"
                );
                self.running_stop_hook = Some(hook);
                self.stop_hook_began = now;
            }
            Action::GiveUpStopHook(hook, why) => {
                assert_eq!(
                    self.running_stop_hook.take(),
                    Some(hook),
                    "P11: only a hook that runs is given up"
                );
                if why == GiveUp::Overran && self.host == Host::Punctual && !self.stop_hook_is_late
                {
                    let ran = now.since(self.stop_hook_began);
                    assert!(
                        ran + self.taken >= self.share(hook),
                        "P11: {hook:?} was robbed: it got {ran:?} of {:?}",
                        self.share(hook)
                    );
                }
                self.hook_failed = true;
            }
            Action::ReleaseWorkers => {
                assert_eq!(
                    self.running_stop_hook, None,
                    "P10: a stop hook may use what runs on the workers"
                );
                assert_eq!(
                    (self.to_stop.len(), self.late_stop),
                    (0, None),
                    "P10: a stop hook may use what runs on the workers"
                );
                assert_eq!(self.workers, Workers::Running, "P10: the workers are released once");
                self.workers = Workers::Released;
            }
            Action::CloseInternal => {
                assert_eq!(
                    self.running_stop_hook, None,
                    "P3: the internal server closes last of all"
                );
                assert_eq!(
                    self.workers,
                    Workers::Released,
                    "P3: the internal server closes last of all"
                );
                assert_eq!(self.late_stop, None, "P11: every hook that was started is stopped");
                assert_eq!(self.to_stop, [], "P11: every hook that was started is stopped");
            }
            Action::CutInternal => {
                assert_eq!(self.phase, Some(Phase::CleaningUp), "P3: alive to the last");
            }
            Action::Exit => {
                assert_eq!(
                    self.phase,
                    Some(Phase::Stopped),
                    "P1: the exit comes when all is stopped"
                );
                self.exited = true;
            }
        }
    }

    fn published(&mut self, phase: Phase) {
        assert!(self.phase < Some(phase), "P1: {phase} was published after {:?}", self.phase);
        if phase == Phase::Serving {
            assert_eq!(
                self.main,
                Main::Listening,
                "P2: serving begins when every listener listens"
            );
            self.main = Main::Open;
        }
        if phase > Phase::Serving {
            assert!(
                self.watchdog.is_some(),
                "P7: a shutdown has a watchdog from its first step on"
            );
        }
        self.phase = Some(phase);
    }

    /// Checks the state after all actions of a call were performed.
    pub(crate) fn settled(&mut self, now: Moment, machine: &Lifecycle) {
        let history = machine.history();
        assert_eq!(self.phase, Some(machine.phase()), "P2: every phase is published");
        assert_eq!(
            self.exited,
            machine.phase() == Phase::Stopped,
            "P8: stopped is when the exit is asked for"
        );
        assert_eq!(
            history.phases.last().map(|span| span.phase),
            Some(machine.phase()),
            "P13: the history ends now"
        );
        assert!(
            history.phases.is_sorted_by(|a, b| a.phase < b.phase && a.to == Some(b.from)),
            "P1: {:?}",
            history.phases
        );
        if let Some(stop) = history.stop {
            self.failed |= stop.reason.is_failure();
            assert_eq!(
                self.watchdog,
                Some(stop.deadline + WATCHDOG_SLACK),
                "P1: the deadline never moves"
            );
            let worst = stop.at + self.plan.worst_case();
            assert!(
                stop.deadline <= worst,
                "P7: a deadline of {:?} for a worst case of {worst:?}",
                stop.deadline
            );
            if let Some((until, timer)) = machine.poll_timeout() {
                // After a suspension of the process each worker must get to run once.
                let latest = if timer == Timer::WorkerRelease {
                    stop.deadline.max(now + WORKER_RELEASE_MIN)
                } else {
                    stop.deadline
                };
                assert!(
                    until <= latest,
                    "P7: {timer:?} waits until {until:?}, past {:?}",
                    stop.deadline
                );
            }
        } else {
            assert_eq!(self.watchdog, None, "P7: no watchdog without a stop");
            assert!(machine.phase() < Phase::LameDuck, "P1: a stop has a reason");
            let until = machine.poll_timeout().map(|(until, _)| until);
            let starting = machine.phase() == Phase::Starting;
            assert_eq!(
                until,
                starting.then_some(self.start_by),
                "P1: the limit of the start never moves"
            );
        }
        let verdict = if self.bad_setting {
            Verdict::BadPlan
        } else if self.failed {
            Verdict::Failed
        } else if self.hook_failed {
            Verdict::HookFailed
        } else {
            Verdict::Clean
        };
        assert_eq!(Verdict::of(history, 0, 0), verdict, "P13: {history:?}");
        let verdict = match (self.bad_setting, self.failed) {
            (true, _) => Verdict::BadPlan,
            (false, true) => Verdict::Failed,
            (false, false) => Verdict::Aborted,
        };
        assert_eq!(Verdict::of(history, 1, 0), verdict, "P13: {history:?}");
        let waits = matches!(self.phase, Some(Phase::Draining | Phase::Cancelling));
        if waits && self.plan.streams > self.plan.drain && self.host == Host::Punctual {
            let took = now.since(self.drain_began);
            let limit = self.plan.drain + self.plan.cancel;
            let is_cut = self.requests == Requests::Cut || self.root == Root::Cancelled;
            assert!(took <= limit || is_cut, "P7: a request used the budget of streams");
        }
        if self.exited {
            assert_eq!(machine.poll_timeout(), None, "P8: nothing is waited for once stopped");
        }
    }
}

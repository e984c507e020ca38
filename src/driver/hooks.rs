//! Hooks, as the driver runs them: one half at a time, each in a task of its own that can be given up (P11).

use super::{Driver, Exiting, sleep_until};
use crate::{
    env::{Network, Rooms, SignalSource},
    hook::{HookEnd, HookState, run_start, run_stop},
    http::HttpService,
    lifecycle::{Event, GiveUp, HookIndex, HookResult, HookVerdict, Moment, Phase},
    report::hook_end,
    unwind::unwind,
};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Start,
    Stop,
}

impl Half {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// How a hook's task ended: `None` if it was given up.
pub(super) type HookTask = (Half, HookIndex, Option<HookEnd>);

/// A hook pair at the driver.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) state: HookState,
    /// Gives up the half that runs.
    pub(super) give_up: CancellationToken,
}

impl<S, N, G, R> Driver<S, N, G, R>
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    /// Before the start is given up, so is the hook that runs, and it is heard out: one that finishes in this very moment is started
    /// for the machine, too, and its stop hook has its turn, before those of the hooks that it may need (P11). One that is in the
    /// midst of its work and does not yield is late.
    pub(super) async fn hear_out_start_hooks(&mut self, now: Moment) -> Exiting {
        let until = now + HEAR_OUT_MAX;
        while self.life.phase() == Phase::Starting
            && let Some(running) = self.running_hook()
        {
            self.hooks[running].give_up.cancel();
            let (half, hook, end) = tokio::select! {
                biased;
                ended = self.hook_tasks.next_end() => ended,
                () = sleep_until(&*self.clock, Some(until)) => break,
            };
            if let Some(event) = self.on_hook_ended(half, hook, end, now) {
                let _ = self.life.handle_event(now, event);
                if self.perform_all(now) == Exiting::Yes {
                    return Exiting::Yes;
                }
            }
        }
        Exiting::No
    }

    /// A start hook that does not yield cannot be dropped. If it finishes after it was given up, it owes its stop hook all the same
    /// (P11), after all others, since theirs have begun. The exit waits for both, but never beyond the bound (P7), nor for somebody
    /// impatient (P12).
    pub(super) async fn wait_for_late_hooks(&mut self) {
        let Some(stop) = self.life.history().stop else { return };
        loop {
            self.run_late_hook();
            let is_awaited = |slot: &Slot| matches!(slot.state, HookState::Dropped | HookState::Running);
            if !self.hooks.iter().any(is_awaited) {
                return;
            }
            tokio::select! {
                biased;
                (half, hook, end) = self.hook_tasks.next_end() => {
                    let now = self.clock.now();
                    let _ = self.on_hook_ended(half, hook, end, now);
                }
                () = sleep_until(&*self.clock, Some(stop.deadline)) => return self.give_up_late_hook(GiveUp::Overran),
                signal = self.signals.recv() => {
                    if signal.is_impatient() {
                        return self.give_up_late_hook(GiveUp::Impatience);
                    }
                }
            }
        }
    }

    pub(super) fn on_hook_ended(&mut self, half: Half, hook: HookIndex, end: Option<HookEnd>, now: Moment) -> Option<Event> {
        let slot = self.hooks.get_mut(hook.0)?;
        let name = slot.name.clone();
        let before = std::mem::replace(&mut slot.state, HookState::Over);
        let end = match (before, end) {
            (HookState::Dropped, Some(HookEnd { stop: Some(stop), .. })) => {
                // It finished all the same. The machine has moved on, but what was started is stopped (P11).
                slot.state = HookState::Late(stop);
                return None;
            }
            (HookState::Running, Some(end)) => end,
            (
                HookState::Waiting(_) | HookState::Started(_) | HookState::Dropped | HookState::Late(_) | HookState::Over,
                Some(_),
            )
            | (_, None) => return None,
        };
        if let Some(stop) = end.stop {
            slot.state = HookState::Started(stop);
        }
        let verdict = match half {
            Half::Start => HookVerdict::Started(end.result),
            Half::Stop => HookVerdict::Stopped(end.result),
        };
        if end.result == HookResult::Done {
            crate::log::info!(hook = name, half = half.name(), "hook done");
        } else {
            let message = end.message.clone().unwrap_or_default();
            crate::log::error!(hook = name, half = half.name(), end = hook_end(verdict), error = message, "hook failed");
            if half == Half::Start {
                self.bad_setting = end.bad_setting;
                self.fail(format!("start hook {name} failed: {message}"));
            }
        }
        self.board.note_hook_ended(name, verdict, end.message, now);
        Some(match half {
            Half::Start => Event::StartHookEnded(hook, end.result),
            Half::Stop => Event::StopHookEnded(hook, end.result),
        })
    }

    pub(super) fn run_hook(&mut self, hook: HookIndex, half: Half, now: Moment) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        self.board.note_hook_running(&slot.name, half.name(), now);
        match std::mem::replace(&mut slot.state, HookState::Running) {
            HookState::Waiting(start) if half == Half::Start => self.spawn_hook(hook, half, run_start(start)),
            HookState::Started(stop) if half == Half::Stop => self.spawn_hook(hook, half, run_stop(stop)),
            HookState::Waiting(_)
            | HookState::Started(_)
            | HookState::Running
            | HookState::Dropped
            | HookState::Late(_)
            | HookState::Over => unreachable!("P11: {half:?} of {hook:?} is not its next half"),
        }
    }

    pub(super) fn spawn_hook(&mut self, hook: HookIndex, half: Half, work: impl Future<Output = HookEnd> + Send + 'static) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        slot.give_up = CancellationToken::new();
        let give_up = slot.give_up.clone();
        // What it held is dropped in here too, and may panic.
        let running = unwind(async move {
            // What was given up before it began does not begin.
            if give_up.is_cancelled() { None } else { give_up.run_until_cancelled(work).await }
        });
        let work = async move { (half, hook, running.await.ok().flatten()) };
        if let Err(error) = self.hook_tasks.admit(&self.rooms, (), work) {
            crate::log::error!(%error, "cannot run a hook");
        }
    }

    pub(super) fn drop_hook(&mut self, hook: HookIndex, verdict: HookVerdict, now: Moment) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        slot.give_up.cancel();
        let may_finish = verdict == HookVerdict::StartDropped && matches!(slot.state, HookState::Running);
        slot.state = if may_finish { HookState::Dropped } else { HookState::Over };
        let name = slot.name.clone();
        crate::log::error!(hook = name, end = hook_end(verdict), "hook given up");
        self.board.note_hook_ended(name, verdict, None, now);
    }

    /// There is one at most: only one start hook runs at a time.
    pub(super) fn run_late_hook(&mut self) {
        let late = |slot: &mut Slot| matches!(slot.state, HookState::Late(_));
        let Some(late) = self.hooks.iter_mut().position(late) else { return };
        if let HookState::Late(stop) = std::mem::replace(&mut self.hooks[late].state, HookState::Running) {
            self.spawn_hook(HookIndex(late), Half::Stop, run_stop(stop));
        }
    }

    pub(super) fn running_hook(&self) -> Option<usize> {
        self.hooks.iter().position(|slot| matches!(slot.state, HookState::Running))
    }

    pub(super) fn give_up_late_hook(&mut self, why: GiveUp) {
        if let Some(late) = self.running_hook() {
            let now = self.clock.now();
            self.drop_hook(HookIndex(late), HookVerdict::GivenUp(why), now);
        }
    }
}

/// How long a start hook that is given up gets to see it, or to finish.
const HEAR_OUT_MAX: Duration = Duration::from_millis(50);

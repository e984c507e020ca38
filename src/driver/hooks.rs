//! Runs hooks, each in its own task that can be cancelled (P11). The machine decides their order.

use super::Driver;
use crate::{
    hook::{HookEnd, HookState, run_start, run_stop},
    host_error::{HostError, HostErrorKind, TaskError},
    http::HttpService,
    internal::HookRunning,
    lifecycle::{Event, HookIndex, HookResult, HookVerdict, Moment},
    runtime::{Reservation, SignalSource, Spawner},
    unwind::unwind,
};
use std::future::Future;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookStage {
    Start,
    Stop,
}

impl HookStage {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// The result of a hook's task: `None` as the end if the hook was given up.
pub(super) type HookTask = (HookStage, HookIndex, Option<HookEnd>);

/// A hook pair and its state.
pub(super) struct HookSlot {
    pub(super) name: String,
    pub(super) state: HookState,
    /// Cancels the running stage.
    pub(super) give_up: CancellationToken,
}

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    /// Returns the machine's event for the result of a hook's task.
    pub(super) fn on_hook_ended(
        &mut self,
        stage: HookStage,
        hook: HookIndex,
        end: Option<HookEnd>,
        now: Moment,
    ) -> Option<Event> {
        let slot = self.hooks.get_mut(hook.0)?;
        let Some(end) = end else {
            return (stage == HookStage::Start).then_some(Event::StartHookCancelled(hook));
        };
        // A stop hook that was given up may still return. Its result is ignored.
        let is_awaited = matches!(slot.state, HookState::Running | HookState::Dropped);
        let was_dropped = matches!(slot.state, HookState::Dropped);
        slot.state = end.stop.map_or(HookState::Over, HookState::Started);
        if !is_awaited {
            return None;
        }
        let (verdict, event) = match stage {
            HookStage::Start => {
                (HookVerdict::Started(end.result), Event::StartHookEnded(hook, end.result))
            }
            HookStage::Stop => {
                (HookVerdict::Stopped(end.result), Event::StopHookEnded(hook, end.result))
            }
        };
        let name = slot.name.clone();
        if was_dropped {
            crate::log::info!(
                hook = name,
                end = %verdict,
                error = end.error.as_ref().map_or("", TaskError::with_causes),
                "a dropped start hook returned"
            );
            return Some(event);
        }
        if end.result == HookResult::Done {
            crate::log::info!(hook = name, stage = stage.name(), "hook done");
        } else {
            crate::log::error!(
                hook = name,
                stage = stage.name(),
                end = %verdict,
                error = end.error.as_ref().map_or("", TaskError::with_causes),
                "hook failed"
            );
            if stage == HookStage::Start
                && let Some(error) = end.error.clone()
            {
                let message = format!("start hook {name} failed");
                self.fail(HostError::of_task(HostErrorKind::StartHook, message, error));
            }
        }
        self.status.record_hook_ended(name, verdict, end.error, now);
        Some(event)
    }

    pub(super) fn run_hook(&mut self, hook: HookIndex, stage: HookStage, now: Moment) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        self.status.record_hook_running(HookRunning {
            pair: hook.0,
            name: slot.name.clone(),
            stage: stage.name(),
            since: now,
        });
        match std::mem::replace(&mut slot.state, HookState::Running) {
            HookState::Waiting(start) if stage == HookStage::Start => {
                self.spawn_hook(hook, stage, run_start(start));
            }
            HookState::Started(stop) if stage == HookStage::Stop => {
                self.spawn_hook(hook, stage, run_stop(stop));
            }
            HookState::Waiting(_)
            | HookState::Started(_)
            | HookState::Running
            | HookState::Dropped
            | HookState::Over => {
                unreachable!("P11: {stage:?} of {hook:?} is not its next stage")
            }
        }
    }

    pub(super) fn spawn_hook(
        &mut self,
        hook: HookIndex,
        stage: HookStage,
        work: impl Future<Output = HookEnd> + Send + 'static,
    ) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        slot.give_up = CancellationToken::new();
        let give_up = slot.give_up.clone();
        // The hook's captures are dropped in here too, and their destructors may panic.
        let running = unwind(async move {
            // A hook that was given up before its first poll must not start.
            if give_up.is_cancelled() { None } else { give_up.run_until_cancelled(work).await }
        });
        let work = async move { (stage, hook, running.await.ok().flatten()) };
        if let Err(error) = self.hook_tasks.spawn_hook(&self.spawner, work) {
            crate::log::error!(%error, "cannot spawn a hook");
            self.hook_tasks.push((stage, hook, Some(HookEnd::failed(error.into()))));
        }
    }

    pub(super) fn cancel_hook(&mut self, hook: HookIndex) {
        if let Some(slot) = self.hooks.get(hook.0) {
            slot.give_up.cancel();
        }
    }

    pub(super) fn drop_hook(&mut self, hook: HookIndex, verdict: HookVerdict, now: Moment) {
        self.cancel_hook(hook);
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        let may_return = verdict == HookVerdict::StartDropped;
        slot.state = if may_return { HookState::Dropped } else { HookState::Over };
        let name = slot.name.clone();
        crate::log::error!(hook = name, end = %verdict, "hook given up");
        self.status.record_hook_ended(name, verdict, None, now);
    }
}

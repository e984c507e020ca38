//! What an event may change, and what it must.

use super::{Checker, Requests, Root};
use lameduck::lifecycle::{
    Action, Event, HookResult, HookVerdict, Lifecycle, Moment, Outcome, Phase, StopReason, Timer,
};

impl Checker {
    /// Records an event that is about to be handled.
    pub(crate) fn before_event(&mut self, event: Event, machine: &Lifecycle) {
        self.place_before = Some((machine.phase(), machine.poll_timeout()));
        self.stopped_before = machine.history().stop.is_some();
        match event {
            Event::StartHookEnded(hook, result) if self.running_start_hook == Some(hook) => {
                self.running_start_hook = None;
                match result {
                    HookResult::Done => self.to_stop.push(hook),
                    // This ends the start. If the start is already ending for another reason, it is
                    // a failure in addition (P13).
                    HookResult::Failed | HookResult::BadSetting | HookResult::Panicked => {
                        self.failed = true;
                        self.bad_setting |= result == HookResult::BadSetting;
                    }
                }
            }
            Event::StartHookEnded(hook, result)
                if self.late_start == Some(hook) && self.is_cleaning_up() =>
            {
                self.late_start = None;
                self.late_stop = (result == HookResult::Done).then_some(hook);
            }
            Event::StartHookCancelled(hook)
                if self.running_start_hook == Some(hook) && machine.history().stop.is_some() =>
            {
                self.running_start_hook = None;
            }
            Event::StartHookCancelled(hook)
                if self.late_start == Some(hook) && self.is_cleaning_up() =>
            {
                self.late_start = None;
            }
            Event::StopHookEnded(hook, result) if self.running_stop_hook == Some(hook) => {
                self.running_stop_hook = None;
                self.hook_failed |= result != HookResult::Done;
            }
            // P13: a task that fails before its context is cancelled was still needed.
            Event::StopRequested(StopReason::TaskFailed) => {
                self.failed |= self.root == Root::Alive && self.requests == Requests::Served;
            }
            Event::StartHookEnded(..)
            | Event::StartHookCancelled(_)
            | Event::Listening
            | Event::ListenFailed
            | Event::StopRequested(_)
            | Event::MainClosed
            | Event::StopHookEnded(..)
            | Event::WorkersReleased
            | Event::InternalClosed => {}
        }
    }

    /// Checks the effect of an event, after all its actions were performed.
    pub(crate) fn after_event(
        &self,
        now: Moment,
        event: Event,
        outcome: Outcome,
        actions: &[Action],
        machine: &Lifecycle,
    ) {
        let place = (machine.phase(), machine.poll_timeout());
        let before = self.place_before.expect("before_event came first");
        if outcome == Outcome::Ignored {
            assert_eq!(
                (before, actions),
                (place, [].as_slice()),
                "P12: {event:?} was ignored and changed something"
            );
        }
        let stopped_before = self.stopped_before;
        match event {
            Event::MainClosed if matches!(before.0, Phase::Draining | Phase::Cancelling) => {
                assert!(place.0 > Phase::Cancelling, "P8: nothing is left, and still {}", place.0);
                assert_eq!(
                    machine.history().phases.last().map(|span| span.from),
                    Some(now),
                    "P8: the next phase begins at once"
                );
            }
            Event::StopRequested(StopReason::Signal(signal))
                if stopped_before && signal.is_impatient() =>
            {
                // Workers keep their minimum time, because they must still drop what was cut.
                let releases = before.1.is_some_and(|(_, timer)| timer == Timer::WorkerRelease);
                let over = before.0 == Phase::Stopped || releases;
                assert!(
                    over || before != place || !actions.is_empty(),
                    "P12: {signal} in {before:?} was not heard"
                );
            }
            Event::StopRequested(_) if stopped_before => {
                assert_eq!(
                    (before, actions),
                    (place, [].as_slice()),
                    "P12: a further {event:?} changes nothing"
                );
            }
            Event::StopRequested(_) => {
                assert!(machine.history().stop.is_some(), "P12: the first stop request is heard");
            }
            Event::StartHookEnded(..)
            | Event::StartHookCancelled(_)
            | Event::Listening
            | Event::ListenFailed
            | Event::MainClosed
            | Event::StopHookEnded(..)
            | Event::WorkersReleased
            | Event::InternalClosed => {}
        }
        // A start hook that finished after it was dropped has only a stop stage in the history.
        let history = machine.history();
        let is_started = |verdict| matches!(verdict, HookVerdict::Started(HookResult::Done));
        let was_started = |hook| {
            history.hooks.iter().any(|record| record.hook == hook && is_started(record.verdict))
        };
        let ended = history.hooks.iter().filter(|record| is_started(record.verdict));
        let stopped = history.hooks.iter().filter(|record| match record.verdict {
            HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => was_started(record.hook),
            HookVerdict::Started(_) | HookVerdict::StartDropped => false,
        });
        let left =
            self.to_stop.len() + usize::from(self.running_stop_hook.is_some_and(was_started));
        assert_eq!(ended.count(), stopped.count() + left, "P11: {:?}", machine.history().hooks);
    }
}

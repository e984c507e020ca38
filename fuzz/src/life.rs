//! The lifecycle machine: any events in any order end in `Stopped`, within the bound, and every
//! stop hook runs at most once.

use super::Draw;
use lameduck::lifecycle::{
    Action, Event, HookBudget, HookIndex, HookResult, Lifecycle, Moment, Phase, Plan, Signal,
    StopReason,
};
use std::time::Duration;

/// Draws the plan and the hooks, then events, each after a pause.
pub fn lifecycle(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let span = |byte: u8| Duration::from_millis(u64::from(byte) * 40);
    let plan = Plan::new()
        .start(span(draw.byte()))
        .lame_duck(span(draw.byte()))
        .drain(span(draw.byte()))
        .cancel(span(draw.byte()))
        .cleanup(span(draw.byte()))
        .internal_close(span(draw.byte()));
    let hooks: Vec<HookBudget> = (0..draw.byte() % 4)
        .map(|_| match draw.byte() {
            byte @ 0..=127 => HookBudget::Own(span(byte)),
            128..=255 => HookBudget::Shared,
        })
        .collect();
    let mut now = Moment::EPOCH + Duration::from_secs(1);
    let Ok(mut life) = Lifecycle::new(plan, &hooks, now) else { return };
    let mut stopped = vec![0; hooks.len()];
    let mut perform = |life: &mut Lifecycle| {
        while let Some(action) = life.poll_action() {
            if let Action::RunStopHook(HookIndex(hook)) = action {
                stopped[hook] += 1;
                assert_eq!(stopped[hook], 1, "P11: stop hook {hook} runs twice");
            }
        }
    };
    perform(&mut life);
    let mut phase = life.phase();
    while !draw.is_empty() {
        now = now + span(draw.byte());
        life.handle_timeout(now);
        perform(&mut life);
        let _ = life.handle_event(now, event(&mut draw, hooks.len()));
        perform(&mut life);
        assert!(life.phase() >= phase, "P1: {} after {phase}", life.phase());
        phase = life.phase();
    }
    let _ = life.handle_event(now, Event::StopRequested(StopReason::Requested));
    perform(&mut life);
    let deadline = life.history().stop.map_or(Moment::EPOCH, |stop| stop.deadline).max(now);
    while let Some((at, _)) = life.poll_timeout() {
        assert!(at <= deadline, "P7: a wait until {at:?} passes {deadline:?}");
        life.handle_timeout(at.max(now));
        perform(&mut life);
    }
    assert_eq!(life.phase(), Phase::Stopped, "P7: it must end by time alone");
}

fn event(draw: &mut Draw<'_>, hooks: usize) -> Event {
    let result = |byte: u8| {
        [HookResult::Done, HookResult::Failed, HookResult::Panicked][usize::from(byte) % 3]
    };
    let hook = |byte: u8| HookIndex(usize::from(byte) % (hooks + 1));
    let kind = draw.byte();
    let (a, b) = (draw.byte(), draw.byte());
    match kind % 8 {
        0 => Event::StartHookEnded(hook(a), result(b)),
        1 => Event::Listening,
        2 => Event::ListenFailed,
        3 => Event::StopRequested(StopReason::Signal(Signal::ALL[usize::from(a) % 4])),
        4 => Event::MainClosed,
        5 => Event::StopHookEnded(hook(a), result(b)),
        6 => Event::InternalClosed,
        _ => Event::StopRequested(if a % 2 == 0 {
            StopReason::Requested
        } else {
            StopReason::TaskFailed
        }),
    }
}

//! P2b, P7, P11, P13: regression tests for bugs of the machine, each with its story.

use crate::common::{Run, even_plan, signal};
use core::time::Duration;
use lameduck::lifecycle::{
    Action, Event, HookBudget, HookIndex, HookResult, Moment, Outcome, Phase, Plan, Signal,
    StopReason, Timer, Verdict,
};

const SECOND: Duration = Duration::from_secs(1);

/// An operator who wanted no limit at all set the largest possible duration. The machine added up
/// the budgets of later phases with `+`, which panics when a `Duration` overflows. The process
/// would have died when a stop reached the drain, with every request in flight.
#[test]
fn the_longest_durations_do_not_panic() {
    let hooks = [HookBudget::Own(Duration::MAX / 2), HookBudget::Shared, HookBudget::Shared];
    let mut life = Run::serving(even_plan(Duration::MAX), &hooks);
    for _ in 0..8 {
        life.tell(signal(Signal::Interrupt));
        life.wait(SECOND);
    }
    assert_eq!(life.machine.phase(), Phase::Stopped, "P12: impatience ends the longest wait");
}

/// Saturating sums then took the time from the drain. Its end was the stop's deadline minus the
/// needs of later phases. With an endless clean-up the deadline was `NEVER`, a saturated sum, and
/// subtracting a saturated span gave the epoch. A drain of ten seconds took no time, and all
/// requests in flight would have been aborted.
#[test]
fn an_endless_clean_up_takes_no_time_from_the_drain() {
    let plan = Plan::new().cleanup(Duration::MAX);
    let mut life = Run::serving(plan, &[HookBudget::Shared; 2]);
    life.tell(signal(Signal::Terminate));
    life.time_out();
    assert_eq!(
        (life.machine.phase(), life.time_left()),
        (Phase::Draining, plan.drain),
        "P7: the drain has its budget"
    );
    life.time_out();
    assert_eq!(
        life.machine.poll_timeout(),
        Some((life.now + Duration::from_millis(2750), Timer::Abort))
    );
}

/// The same saturation affected hooks. Half of an endless budget was reserved for the next hook,
/// which left the one before it a deadline at the epoch. It was given up in the turn in which it
/// began.
#[test]
fn hooks_that_share_an_endless_clean_up_all_get_their_time() {
    let plan = Plan::new().cleanup(Duration::MAX);
    let mut life = Run::serving(plan, &[HookBudget::Shared; 2]);
    life.tell(signal(Signal::Interrupt));
    life.tell(signal(Signal::Interrupt));
    life.tell(Event::MainClosed);
    for hook in [1, 0] {
        life.wait(3600 * SECOND);
        assert_eq!(
            life.place(),
            format!("cleaning_up/hook {hook}"),
            "P11: nobody may give it up for want of time"
        );
        life.tell(Event::StopHookEnded(HookIndex(hook), HookResult::Done));
    }
    assert_eq!(Verdict::of(life.machine.history(), 0, 0), Verdict::Clean);
}

/// A SIGTERM arrived, and the accept loop failed while the lame duck should still accept. The stop
/// already had its reason, so the failure was ignored like any further stop request. A process that
/// refused its last clients for seconds would have exited with 0.
#[test]
fn a_task_that_fails_during_the_shutdown_sets_the_exit_code() {
    let mut life = Run::serving(Plan::default(), &[]);
    life.tell(signal(Signal::Terminate));
    let left = life.time_left();
    life.tell(Event::StopRequested(StopReason::TaskFailed));
    assert_eq!(
        (life.machine.phase(), life.time_left()),
        (Phase::LameDuck, left),
        "P4: the lame duck lasts its delay"
    );
    while life.machine.poll_timeout().is_some() {
        life.time_out();
    }
    let history = life.machine.history();
    assert_eq!(
        history.stop.map(|stop| stop.reason),
        Some(StopReason::Signal(Signal::Terminate)),
        "P13: the first reason"
    );
    assert_eq!(Verdict::of(history, 0, 0), Verdict::Failed, "P13: a main task failed");
}

/// The opposite of the story above: a cancelled task may end with an error such as "cancelled".
/// That is no failure of the service.
#[test]
fn a_task_that_fails_after_it_was_cancelled_is_no_failure() {
    let mut life = Run::serving(Plan::default(), &[]);
    life.tell(signal(Signal::Terminate));
    life.time_out();
    life.time_out();
    assert_eq!(life.machine.phase(), Phase::Cancelling);
    let (outcome, _) = life.try_tell(Event::StopRequested(StopReason::TaskFailed));
    assert_eq!(outcome, Outcome::Ignored);
    assert_eq!(Verdict::of(life.machine.history(), 0, 0), Verdict::Clean, "P13");
}

/// A process slept past its own deadline. The end of the last connection woke it, not a timer. Its
/// next stop hook got a deadline of "now", which was after the deadline of the stop.
#[test]
fn a_hook_that_begins_too_late_gets_no_time_past_the_deadline() {
    let mut life = Run::serving(Plan::default(), &[HookBudget::Shared]);
    life.tell(signal(Signal::Terminate));
    life.time_out();
    life.move_clock(life.now + 3600 * SECOND);
    life.tell(Event::MainClosed);
    let deadline = life.machine.history().stop.map_or(Moment::NEVER, |stop| stop.deadline);
    let (until, timer) = life.machine.poll_timeout().expect("the hook runs, for a moment");
    assert_eq!(timer, Timer::StopHook);
    assert!(until <= deadline, "P7: a hook until {until:?}, past the deadline {deadline:?}");
    life.wait(Duration::ZERO);
    life.tell(Event::WorkersReleased);
    life.wait(Duration::ZERO);
    assert_eq!(life.machine.phase(), Phase::Stopped, "P7: it is over in the same turn");
}

/// `NEVER` stays `NEVER` whatever is subtracted or added, and other moments stop at the epoch.
#[test]
fn moments_stop_at_the_epoch_and_never_stays_never() {
    assert_eq!(Moment::NEVER.minus(SECOND), Moment::NEVER);
    assert_eq!(Moment::NEVER + Duration::MAX, Moment::NEVER);
    assert_eq!(Moment::EPOCH + Duration::MAX, Moment::NEVER);
    assert_eq!((Moment::EPOCH + SECOND).minus(2 * SECOND), Moment::EPOCH);
}

/// A second failed task adds nothing to the first.
#[test]
fn a_task_that_fails_after_another_changes_nothing() {
    let mut life = Run::serving(Plan::default(), &[]);
    life.tell(signal(Signal::Terminate));
    let failed = Event::StopRequested(StopReason::TaskFailed);
    assert_eq!(life.try_tell(failed).0, Outcome::Applied, "P13");
    assert_eq!(life.try_tell(failed).0, Outcome::Ignored);
    assert_eq!(Verdict::of(life.machine.history(), 0, 0), Verdict::Failed, "P13");
}

/// A Deployment of one pod was deleted. Its only probe failed from SIGTERM on, so its endpoint was
/// not `serving`, and kube-proxy refused new connections. The process would have responded to all
/// of them during its delay (P2b).
#[test]
fn serving_holds_through_the_delay_of_an_external_stop_and_not_after_an_internal_one() {
    let reasons = [
        (signal(Signal::Terminate), true),
        (signal(Signal::Interrupt), true),
        (signal(Signal::Quit), true),
        (signal(Signal::Hangup), true),
        (Event::StopRequested(StopReason::Requested), false),
        (Event::StopRequested(StopReason::TaskFailed), false),
    ];
    for (request, serves) in reasons {
        let (mut life, _) = Run::begin(Plan::default(), &[HookBudget::Shared]);
        assert!(!life.machine.is_serving(), "start hooks run");
        life.tell(Event::StartHookEnded(HookIndex(0), HookResult::Done));
        assert!(!life.machine.is_serving(), "the listeners do not listen yet");
        life.tell(Event::Listening);
        assert!(life.machine.is_serving());
        life.tell(request);
        assert_eq!(
            (life.machine.phase(), life.machine.is_serving()),
            (Phase::LameDuck, serves),
            "{request:?}"
        );
        // The first request decides. Later ones change nothing, in either direction.
        let _ = life.try_tell(Event::StopRequested(StopReason::TaskFailed));
        let _ = life.try_tell(signal(Signal::Terminate));
        assert_eq!(life.machine.is_serving(), serves, "{request:?}");
        life.time_out();
        assert_eq!(
            (life.machine.phase(), life.machine.is_serving()),
            (Phase::Draining, false),
            "{request:?}"
        );
    }
}

/// With a delay of zero it never serves after the stop; neither does it after a stop during the
/// start.
#[test]
fn serving_ends_with_a_stop_before_serving_and_without_a_delay() {
    let (mut life, _) = Run::begin(Plan::default(), &[]);
    life.tell(signal(Signal::Terminate));
    assert!(!life.machine.is_serving());
    let mut life = Run::serving(Plan::new().lame_duck(Duration::ZERO), &[]);
    life.tell(signal(Signal::Terminate));
    life.wait(Duration::ZERO);
    assert_eq!((life.machine.phase(), life.machine.is_serving()), (Phase::Draining, false));
}

/// A stop arrived while a start hook was running, and the hook had just opened the database. Its
/// result was dropped with the start, and the database stayed open. The stop hook of a start that
/// finished must run, before those of the hooks it may need.
#[test]
fn a_start_hook_that_finishes_as_it_is_cancelled_is_stopped_first() {
    let (mut life, _) = Run::begin(Plan::default(), &[HookBudget::Shared; 2]);
    life.tell(Event::StartHookEnded(HookIndex(0), HookResult::Done));
    assert!(life.tell(signal(Signal::Terminate)).contains(&Action::CancelStartHook(HookIndex(1))));
    let actions = life.tell(Event::StartHookEnded(HookIndex(1), HookResult::Done));
    assert_eq!(actions.last(), Some(&Action::RunStopHook(HookIndex(1))), "P11");
    let actions = life.tell(Event::StopHookEnded(HookIndex(1), HookResult::Done));
    assert_eq!(actions, [Action::RunStopHook(HookIndex(0))], "P11");
}

/// The wait for a late start hook and its stop hook were outside the machine. The internal server
/// had closed by then, and probes failed while a stop hook still ran.
#[test]
fn a_late_start_hook_is_stopped_after_the_others_and_before_the_internal_close() {
    let (mut life, _) = Run::begin(Plan::default(), &[HookBudget::Shared; 2]);
    life.tell(Event::StartHookEnded(HookIndex(0), HookResult::Done));
    life.tell(signal(Signal::Terminate));
    assert!(
        life.time_out().ends_with(&[Action::RunStopHook(HookIndex(0))]),
        "P11: the others do not wait for it"
    );
    life.tell(Event::StopHookEnded(HookIndex(0), HookResult::Done));
    assert_eq!(life.place(), "cleaning_up/late start hook");
    let actions = life.tell(Event::StartHookEnded(HookIndex(1), HookResult::Done));
    assert_eq!(actions, [Action::RunStopHook(HookIndex(1))], "P11");
    let actions = life.tell(Event::StopHookEnded(HookIndex(1), HookResult::Failed));
    assert_eq!(actions, [Action::ReleaseWorkers], "P10");
    assert_eq!(life.tell(Event::WorkersReleased), [Action::CloseInternal], "P3");
    assert_eq!(Verdict::of(life.machine.history(), 0, 0), Verdict::HookFailed, "P13");
}

/// A start hook that never returns delays the exit by the clean-up at most. An impatient signal
/// ends that wait at once.
#[test]
fn a_start_hook_that_never_returns_delays_the_exit_by_the_clean_up_at_most() {
    for impatient in [false, true] {
        let (mut life, _) = Run::begin(Plan::default(), &[HookBudget::Shared]);
        life.tell(signal(Signal::Terminate));
        life.time_out();
        assert_eq!(
            (life.place().as_str(), life.time_left()),
            ("cleaning_up/late start hook", 5 * SECOND),
            "P11"
        );
        let actions =
            if impatient { life.tell(signal(Signal::Interrupt)) } else { life.time_out() };
        assert_eq!(actions, [Action::ReleaseWorkers], "P7, P12");
    }
}

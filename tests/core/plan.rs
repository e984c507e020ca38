//! P7, P11, P12: budgets by example: the sum of a plan, when it is refused, and the time that each
//! stop hook gets.

use crate::common::{MS, Run, even_plan, signal};
use core::time::Duration;
use lameduck::lifecycle::{
    ABORT_FLUSH, Action, Event, GiveUp, HookBudget, HookIndex, HookResult, Lifecycle, Moment,
    Phase, Plan, PlanError, Signal, StopReason, Timer,
};

const SECOND: Duration = Duration::from_secs(1);

/// A run in which the first of these stop hooks (the last of the list) has just begun.
fn cleaning_up(plan: Plan, hooks: &[HookBudget]) -> Run {
    let mut life = Run::serving(plan, hooks);
    life.tell(signal(Signal::Interrupt));
    life.tell(signal(Signal::Interrupt));
    life.tell(Event::MainClosed);
    life
}

fn stop_hook_done(hook: usize) -> Event {
    Event::StopHookEnded(HookIndex(hook), HookResult::Done)
}

#[test]
fn the_default_plan_takes_at_most_24_seconds_and_fits_into_the_grace_period_of_kubernetes() {
    let plan = Plan::default();
    assert_eq!(plan.worst_case(), 24 * SECOND, "P7");
    assert_eq!(plan.check_grace_period(30 * SECOND), Ok(()), "P7");
}

#[test]
fn the_worst_case_has_the_longer_of_the_drain_and_the_streams() {
    let worst = |streams| Plan::default().streams(streams).worst_case();
    assert_eq!(worst(10 * SECOND), 24 * SECOND, "P7");
    assert_eq!(worst(10 * SECOND + MS), 24 * SECOND + MS, "P7");
    assert_eq!(worst(Duration::MAX), Duration::MAX, "P7");
}

#[test]
fn ordinary_requests_have_the_same_limits_whatever_the_budget_of_streams() {
    for streams in [11, 12, 13, 60] {
        let mut life = Run::serving(Plan::default().streams(streams * SECOND), &[]);
        life.tell(signal(Signal::Terminate));
        life.time_out();
        let drain = life.now;
        let flush = ABORT_FLUSH;
        let limits = [
            (10 * SECOND, Action::CancelRequests),
            (13 * SECOND - flush, Action::AbortRequests),
            (13 * SECOND, Action::CutRequests),
        ];
        let mut seen = Vec::new();
        while life.machine.poll_timeout().is_some() {
            for action in life.time_out_with_prompt_workers() {
                if limits.iter().any(|(_, limit)| *limit == action) {
                    seen.push((life.now.since(drain), action));
                }
            }
        }
        assert_eq!(seen, limits, "P7: with {streams} s for streams");
        let ended = life.machine.history().phases.iter().find(|span| span.phase == Phase::Draining);
        let lasted = ended.and_then(|span| span.to).map(|to| to.since(drain));
        assert_eq!(lasted, Some(streams * SECOND), "P7: streams have their budget");
    }
}

#[test]
fn a_budget_of_streams_within_the_drain_changes_nothing() {
    let mut life = Run::serving(Plan::default().streams(10 * SECOND), &[]);
    life.tell(signal(Signal::Terminate));
    life.time_out();
    assert_eq!(life.machine.poll_timeout(), Some((life.now + 10 * SECOND, Timer::Drain)), "P7");
}

#[test]
fn impatience_ends_the_wait_for_streams() {
    let mut life = Run::serving(Plan::default().streams(60 * SECOND), &[]);
    life.tell(signal(Signal::Interrupt));
    life.time_out();
    life.time_out();
    assert!(life.tell(signal(Signal::Interrupt)).contains(&Action::CancelRoot), "P12");
}

#[test]
fn the_worst_case_does_not_include_the_start() {
    let plan = Plan::new().start(3600 * SECOND);
    assert_eq!(
        plan.worst_case(),
        Plan::default().worst_case(),
        "P7: the bound runs from the stop request"
    );
}

#[test]
fn a_plan_may_fill_the_grace_period_exactly_but_not_exceed_it_by_a_millisecond() {
    let plan = Plan::default();
    assert_eq!(plan.check_grace_period(24 * SECOND), Ok(()), "P7");
    let grace_period = 24 * SECOND - MS;
    let refused = PlanError::ExceedsGracePeriod { worst_case: 24 * SECOND, grace_period };
    assert_eq!(plan.check_grace_period(grace_period), Err(refused), "P7");
}

#[test]
fn without_a_grace_period_every_plan_is_accepted() {
    assert_eq!(
        even_plan(Duration::MAX).check_grace_period(Duration::ZERO),
        Ok(()),
        "P7: zero is no check"
    );
}

#[test]
fn a_refusal_names_the_value_the_limit_and_the_settings() {
    let refused =
        Plan::default().check_grace_period(20 * SECOND).expect_err("24 s do not fit into 20 s");
    assert_eq!(
        refused.to_string(),
        "worst-case shutdown 24s exceeds the grace period 20s; lower lame_duck, drain, streams, \
         cancel, cleanup or internal_close, or raise the grace period"
    );
    let hooks = [HookBudget::Own(3 * SECOND), HookBudget::Own(4 * SECOND)];
    let refused = Plan::default().check_hooks(&hooks).expect_err("7 s do not fit into 5 s");
    assert_eq!(
        refused.to_string(),
        "the budgets of the stop hooks add up to 7s, which exceeds cleanup=5s; lower a hook's \
         budget or raise cleanup"
    );
}

#[test]
fn hook_budgets_beyond_the_clean_up_are_refused() {
    let hooks = [HookBudget::Own(3 * SECOND), HookBudget::Own(2 * SECOND + MS)];
    let refused = PlanError::HooksExceedCleanup { hooks: 5 * SECOND + MS, cleanup: 5 * SECOND };
    assert_eq!(Plan::default().check_hooks(&hooks), Err(refused), "P11");
    assert_eq!(Lifecycle::new(Plan::default(), &hooks, Moment::EPOCH).err(), Some(refused), "P11");
}

// A hook without its own budget had no time at all, and every shutdown ended with exit code 4.
#[test]
fn hook_budgets_that_leave_nothing_for_others_are_refused() {
    let hooks = [HookBudget::Own(5 * SECOND), HookBudget::Shared];
    let refused = Plan::default().check_hooks(&hooks).expect_err("no time for the second");
    assert_eq!(
        refused.to_string(),
        "the budgets of the stop hooks add up to 5s, which leaves nothing for others of \
         cleanup=5s; lower a hook's budget or raise cleanup"
    );
    assert_eq!(Plan::default().check_hooks(&hooks[..1]), Ok(()));
}

#[test]
fn hook_budgets_that_fill_the_clean_up_exactly_are_granted() {
    let hooks = [HookBudget::Own(3 * SECOND), HookBudget::Own(2 * SECOND)];
    let mut life = cleaning_up(Plan::default(), &hooks);
    assert_eq!(life.time_left(), 2 * SECOND, "P11");
    life.time_out();
    assert_eq!(life.time_left(), 3 * SECOND, "P11");
}

#[test]
fn a_hook_that_hangs_uses_only_its_share() {
    let mut life = cleaning_up(Plan::new().cleanup(6 * SECOND), &[HookBudget::Shared; 3]);
    for hook in [2, 1] {
        assert_eq!(life.time_left(), 2 * SECOND, "P11: a third of 6 s");
        let actions = life.time_out();
        let next = Action::RunStopHook(HookIndex(hook - 1));
        assert_eq!(
            actions,
            [Action::GiveUpStopHook(HookIndex(hook), GiveUp::Overran), next],
            "P11"
        );
    }
    assert_eq!(life.time_left(), 2 * SECOND, "P11: the last has its third all the same");
}

#[test]
fn time_that_a_quick_hook_leaves_is_available_to_the_next() {
    let mut life = cleaning_up(Plan::new().cleanup(6 * SECOND), &[HookBudget::Shared; 3]);
    life.wait(500 * MS);
    life.tell(stop_hook_done(2));
    assert_eq!(life.time_left(), 3500 * MS, "P11: its own 2 s and the 1.5 s that were left over");
}

#[test]
fn a_hook_with_its_own_budget_gets_no_more_than_that() {
    let hooks = [HookBudget::Own(SECOND), HookBudget::Shared];
    let mut life = cleaning_up(Plan::default(), &hooks);
    assert_eq!(life.time_left(), 4 * SECOND, "P11: what the other's own budget leaves");
    life.tell(stop_hook_done(1));
    assert_eq!(life.time_left(), SECOND, "P11");
}

#[test]
fn the_share_of_a_hook_that_never_started_goes_to_those_that_did() {
    let (mut life, _) = Run::begin(Plan::default(), &[HookBudget::Shared; 5]);
    life.tell(Event::StartHookEnded(HookIndex(0), HookResult::Done));
    life.tell(Event::StartHookEnded(HookIndex(1), HookResult::Panicked));
    assert_eq!(life.place(), "cleaning_up/hook 0", "P11: one stop for one start that finished");
    assert_eq!(life.time_left(), 5 * SECOND, "P11: four of five shares nobody needs");
}

#[test]
fn a_stop_before_serving_is_bounded_by_the_steps_that_remain() {
    let takes = |hooks: &[HookBudget]| {
        let (mut life, _) = Run::begin(Plan::default(), hooks);
        life.tell(Event::StopRequested(StopReason::Requested));
        let stop = life.machine.history().stop.expect("it was asked to");
        stop.deadline.since(stop.at)
    };
    assert_eq!(takes(&[]), 6 * SECOND, "P7: 5 s of clean-up and 1 s for the internal server");
    assert_eq!(
        takes(&[HookBudget::Shared]),
        6 * SECOND + 50 * MS,
        "P7: and 50 ms for the start hook that runs"
    );
}

#[test]
fn a_second_interrupt_moves_later_waits_forward_and_lengthens_none() {
    let plan = Plan::default();
    let mut life = Run::serving(plan, &[]);
    life.tell(signal(Signal::Terminate));
    life.wait(SECOND);
    life.tell(signal(Signal::Interrupt));
    assert_eq!((life.place().as_str(), life.time_left()), ("draining", plan.drain), "P12");
    life.tell(signal(Signal::Quit));
    assert_eq!((life.place().as_str(), life.time_left()), ("cancelling/asked", 2750 * MS), "P12");
    life.tell(signal(Signal::Interrupt));
    assert_eq!(
        (life.place().as_str(), life.time_left()),
        ("cancelling/aborted", 250 * MS),
        "P12: answers are still flushed"
    );
    life.tell(signal(Signal::Interrupt));
    assert_eq!((life.place().as_str(), life.time_left()), ("cleaning_up/workers", 50 * MS), "P12");
    life.tell(signal(Signal::Quit));
    assert_eq!(
        (life.place().as_str(), life.time_left()),
        ("cleaning_up/workers", 20 * MS),
        "P12: the cut is carried out"
    );
    life.time_out();
    assert_eq!(
        (life.place().as_str(), life.time_left()),
        ("cleaning_up/internal server", SECOND),
        "P12"
    );
    life.tell(signal(Signal::Quit));
    assert_eq!(life.place(), "stopped", "P12");
}

#[test]
fn a_further_sigterm_changes_nothing() {
    let mut life = Run::serving(Plan::default(), &[]);
    life.tell(signal(Signal::Terminate));
    life.wait(SECOND);
    let left = life.time_left();
    let heard = life.try_tell(signal(Signal::Terminate));
    assert_eq!(heard, (lameduck::lifecycle::Outcome::Ignored, Vec::new()), "P12");
    assert_eq!((life.place().as_str(), life.time_left()), ("lame_duck", left), "P12");
}

#[test]
fn the_verdict_is_the_worst_outcome() {
    use lameduck::lifecycle::Verdict;
    let mut life = cleaning_up(Plan::default(), &[HookBudget::Shared]);
    let verdicts =
        |life: &Run| [0, 1].map(|aborted| Verdict::of(life.machine.history(), aborted, 0));
    assert_eq!(verdicts(&life), [Verdict::Clean, Verdict::Aborted], "P13");
    life.tell(Event::StopHookEnded(HookIndex(0), HookResult::Failed));
    assert_eq!(verdicts(&life), [Verdict::HookFailed, Verdict::Aborted], "P13: 3 before 4");
    let panicked = [0, 1].map(|aborted| Verdict::of(life.machine.history(), aborted, 1));
    assert_eq!(
        panicked,
        [Verdict::Failed, Verdict::Aborted],
        "P13: work that panicked is a failure, after 3 and before 4"
    );

    let mut life = Run::serving(Plan::default(), &[HookBudget::Shared]);
    life.tell(Event::StopRequested(StopReason::TaskFailed));
    while life.machine.poll_timeout().is_some() {
        life.time_out();
    }
    assert_eq!(verdicts(&life), [Verdict::Failed; 2], "P13: 1 before 3 and 4");
    let all =
        [Verdict::Clean, Verdict::Failed, Verdict::Aborted, Verdict::HookFailed, Verdict::Watchdog];
    assert_eq!(all.map(Verdict::exit_code), [0, 1, 3, 4, 5], "P13");
}

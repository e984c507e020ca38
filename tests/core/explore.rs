//! P1, P7, P8: explores every reachable state, times every event and every timeout, at the edges of
//! every wait. The edges are: at once, 1 ms before its end, at its end, and 1 ms after it, when the
//! host is late. The checker asserts the promises at each step.

use crate::common::{MS, Run, even_plan, events, signal};
use core::time::Duration;
use lameduck::lifecycle::{
    Action, Event, HookBudget, Moment, Outcome, Phase, Plan, Signal, Timer, WORKER_RELEASE_MIN,
};
use std::collections::{BTreeSet, VecDeque};

const SECOND: Duration = Duration::from_secs(1);

/// Explores a plan from its beginning. Returns every place that was reached.
fn explore(plan: Plan, hooks: &[HookBudget]) -> BTreeSet<String> {
    let events = events(hooks.len());
    let (begin, _) = Run::begin(plan, hooks);
    let mut places = BTreeSet::from([begin.place()]);
    let mut seen = BTreeSet::from([digest(&begin)]);
    let mut queue = VecDeque::from([begin]);
    let mut reached = |life: Run, queue: &mut VecDeque<Run>| {
        if seen.insert(digest(&life)) {
            places.insert(life.place());
            queue.push_back(life);
        }
    };
    while let Some(life) = queue.pop_front() {
        assert_timeouts_lead_out(&life);
        for moment in moments(&life) {
            let mut at = life.clone();
            at.move_clock(moment);
            // An ignored event changes nothing, so the next event can use the same copy.
            let mut next = at.clone();
            for event in &events {
                let (outcome, actions) = next.try_tell(*event);
                if life.checker.exited() {
                    assert_eq!(
                        (outcome, actions.as_slice()),
                        (Outcome::Ignored, [].as_slice()),
                        "P1: {event:?} after Exit"
                    );
                }
                if outcome == Outcome::Applied {
                    reached(std::mem::replace(&mut next, at.clone()), &mut queue);
                }
            }
            let actions = at.wait_until(moment);
            let due = life.machine.poll_timeout().is_some_and(|(until, _)| until <= moment);
            assert_eq!(
                due,
                !actions.is_empty(),
                "P8: a wait of {} ends when its time is up, and not before",
                life.place()
            );
            if due {
                reached(at, &mut queue);
            }
        }
    }
    places
}

/// Returns the current time and the future edges of the current wait.
fn moments(life: &Run) -> BTreeSet<Moment> {
    let mut moments = BTreeSet::from([life.now]);
    if let Some((until, _)) = life.machine.poll_timeout() {
        moments.extend(
            [until.minus(MS), until, until + MS].into_iter().filter(|moment| *moment >= life.now),
        );
    }
    moments
}

/// All state that decides the future of a run, relative to its current time. Two runs with the same
/// digest have the same future.
fn digest(life: &Run) -> impl Ord + use<> {
    let nanos = |moment: Moment| i128::from(moment.as_nanos()) - i128::from(life.now.as_nanos());
    let history = life.machine.history();
    let cleaning_up_since = history
        .phases
        .iter()
        .find(|span| span.phase == Phase::CleaningUp)
        .map(|span| nanos(span.from));
    let timer =
        life.machine.poll_timeout().map(|(until, timer)| (nanos(until), format!("{timer:?}")));
    let deadline = history.stop.map(|stop| nanos(stop.deadline));
    (timer, deadline, cleaning_up_since, life.checker.digest(life.now))
}

/// P7: without any event, time alone leads out of every state but Serving, by the deadline of the
/// stop.
fn assert_timeouts_lead_out(life: &Run) {
    let mut life = life.clone();
    let begin = life.now;
    while life.machine.poll_timeout().is_some() {
        life.time_out();
    }
    if life.machine.phase() == Phase::Serving {
        return;
    }
    assert_eq!(life.machine.phase(), Phase::Stopped, "P7: {} has no way out", life.place());
    let stop = life.machine.history().stop.expect("P13: what is stopped has a reason");
    let latest =
        stop.deadline.max(begin + WORKER_RELEASE_MIN).max(stop.deadline + WORKER_RELEASE_MIN);
    assert!(
        life.now <= latest,
        "P7: stopped at {:?}, past its deadline {:?}",
        life.now,
        stop.deadline
    );
}

fn places_of(hooks: usize) -> BTreeSet<String> {
    let mut places: BTreeSet<String> = [
        "starting/listening",
        "serving",
        "lame_duck",
        "draining",
        "cancelling/asked",
        "cancelling/aborted",
        "cleaning_up/workers",
        "cleaning_up/internal server",
        "stopped",
    ]
    .map(String::from)
    .into();
    for hook in 0..hooks {
        places.insert(format!("starting/hook {hook} of {hooks}"));
        places.insert(format!("starting/hook {hook} cancelled"));
        places.insert("cleaning_up/late start hook".to_owned());
        places.insert(format!("cleaning_up/hook {hook}"));
    }
    places
}

#[test]
fn promises_hold_without_hooks() {
    assert_eq!(explore(even_plan(SECOND), &[]), places_of(0));
}

#[test]
fn promises_hold_with_one_hook() {
    assert_eq!(explore(even_plan(SECOND), &[HookBudget::Shared]), places_of(1));
}

#[test]
fn promises_hold_with_two_hooks() {
    let hooks = [HookBudget::Own(SECOND / 2), HookBudget::Shared];
    assert_eq!(explore(even_plan(SECOND), &hooks), places_of(2));
}

#[test]
fn promises_hold_with_three_hooks() {
    let hooks = [HookBudget::Shared, HookBudget::Own(SECOND / 2), HookBudget::Shared];
    assert_eq!(explore(even_plan(SECOND), &hooks), places_of(3));
}

#[test]
fn promises_hold_with_the_default_plan() {
    assert_eq!(explore(Plan::default(), &[HookBudget::Shared; 2]), places_of(2));
}

#[test]
fn promises_hold_with_a_plan_of_zeros() {
    assert_eq!(explore(even_plan(Duration::ZERO), &[HookBudget::Shared; 2]), places_of(2));
}

#[test]
fn promises_hold_with_any_one_wait_of_zero() {
    for plan in plans_with_one_zero() {
        assert_eq!(explore(plan, &[HookBudget::Shared]), places_of(1), "{plan:?}");
    }
}

#[test]
fn promises_hold_with_a_cancel_wait_shorter_than_the_flush() {
    let plan = even_plan(SECOND).cancel(Duration::from_millis(100));
    assert_eq!(explore(plan, &[HookBudget::Shared]), places_of(1));
}

/// Half a second more than the drain, which is less than the cancel wait; then more; then with a
/// cancel wait of nothing.
#[test]
fn promises_hold_with_a_budget_for_streams() {
    let even = even_plan(SECOND);
    let in_draining = ["draining/requests cancelled", "draining/requests aborted"];
    let in_cancelling = ["cancelling/requests cancelled", "cancelling/requests aborted"];
    for (plan, more) in [
        (even.streams(SECOND * 3 / 2), &in_cancelling[..]),
        (even.streams(SECOND * 5), &[in_draining, in_cancelling].concat()[..]),
        (even.streams(SECOND * 5).cancel(Duration::ZERO), &[]),
    ] {
        let mut places = places_of(1);
        places.insert("draining/requests".to_owned());
        places.extend(more.iter().map(|place| (*place).to_owned()));
        assert_eq!(explore(plan, &[HookBudget::Shared]), places, "{plan:?}");
    }
}

fn plans_with_one_zero() -> [Plan; 6] {
    let even = even_plan(SECOND);
    let zero = Duration::ZERO;
    [
        even.start(zero),
        even.lame_duck(zero),
        even.drain(zero),
        even.cancel(zero),
        even.cleanup(zero),
        even.internal_close(zero),
    ]
}

#[test]
fn a_plan_of_zeros_ends_in_one_turn() {
    let mut life = Run::serving(even_plan(Duration::ZERO), &[HookBudget::Shared; 3]);
    life.tell(signal(Signal::Terminate));
    life.wait(Duration::ZERO);
    let mut actions = life.tell(Event::WorkersReleased);
    actions.extend(life.wait(Duration::ZERO));
    assert_eq!(life.machine.phase(), Phase::Stopped, "P8: a plan of zeros is over in one turn");
    assert_eq!(actions.last(), Some(&Action::Exit));
    let took = life.now.since(life.machine.history().stop.expect("it was asked to stop").at);
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn each_wait_lasts_its_budget_and_a_wait_of_zero_takes_no_time() {
    for plan in plans_with_one_zero() {
        let mut life = Run::serving(plan, &[HookBudget::Shared]);
        life.tell(signal(Signal::Terminate));
        while life.machine.poll_timeout().is_some() {
            life.time_out_with_prompt_workers();
        }
        let spans = &life.machine.history().phases;
        let lasted = |phase| {
            let span =
                spans.iter().find(|span| span.phase == phase).expect("every phase was entered");
            span.to.expect("it was left").since(span.from)
        };
        assert_eq!(lasted(Phase::LameDuck), plan.lame_duck, "P4: {plan:?}");
        assert_eq!(lasted(Phase::Draining), plan.drain, "P8: {plan:?}");
        assert_eq!(lasted(Phase::Cancelling), plan.cancel, "P8: {plan:?}");
        assert_eq!(lasted(Phase::CleaningUp), plan.cleanup + plan.internal_close, "P8: {plan:?}");
        assert_eq!(
            life.now,
            life.machine.history().stop.expect("it stopped").deadline,
            "P7: {plan:?}"
        );
    }
}

#[test]
fn a_process_suspended_beyond_its_deadline_stops_as_soon_as_it_continues() {
    for plan in plans_with_one_zero() {
        let mut life = Run::serving(plan, &[HookBudget::Shared; 2]);
        life.tell(signal(Signal::Terminate));
        life.wait(Duration::from_secs(3600));
        assert_eq!(
            life.place(),
            "cleaning_up/workers",
            "P7: each worker gets to run once: {plan:?}"
        );
        life.tell(Event::WorkersReleased);
        life.wait(Duration::ZERO);
        assert_eq!(life.machine.phase(), Phase::Stopped, "P7: {plan:?}");
    }
}

#[test]
fn a_late_host_shortens_the_wait_it_is_late_for_and_never_moves_the_deadline() {
    let plan = even_plan(SECOND);
    let mut life = Run::serving(plan, &[]);
    life.tell(signal(Signal::Terminate));
    life.wait(SECOND + 400 * MS);
    assert_eq!(life.machine.phase(), Phase::Draining);
    assert_eq!(life.time_left(), 600 * MS, "P7: the drain gives what the lame duck overran");
    life.time_out();
    assert_eq!(
        life.machine.poll_timeout(),
        Some((life.now + 750 * MS, Timer::Abort)),
        "P7: the cancel wait is whole again"
    );
}

//! P1, P10, P11: random runs, compared with the naive model step by step: outcome, actions, phase,
//! deadline and verdict.

use crate::common::{MS, Run, events};
use crate::model::{Model, What};
use core::time::Duration;
use lameduck::lifecycle::{
    Event, HookBudget, HookIndex, HookResult, Outcome, Plan, Signal, StopReason, Verdict,
};
use proptest::{collection::vec, prelude::*, sample::Index};

/// The time that passes before the next event. Uniform spans almost never hit an edge, so edges are
/// drawn, too.
#[derive(Clone, Copy, Debug)]
enum Step {
    NotAtAll,
    By(Duration),
    JustBefore,
    ToTheEnd,
    JustAfter,
}

#[derive(Clone, Copy, Debug)]
enum NextEvent {
    Anything(usize),
    /// An event that a real host would report in this state.
    Sensible(HookResult),
    /// Only time passes.
    Nothing,
    Signal(Signal),
}

/// Whether expired waits are ended before the event is handled, as a host should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    TimeFirst,
    EventFirst,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::NotAtAll),
        2 => (0..4_000_u64).prop_map(|millis| Step::By(Duration::from_millis(millis))),
        1 => Just(Step::JustBefore),
        3 => Just(Step::ToTheEnd),
        1 => Just(Step::JustAfter),
    ]
}

fn telling() -> impl Strategy<Value = NextEvent> {
    prop_oneof![
        2 => any::<Index>().prop_map(|index| NextEvent::Anything(index.index(1 << 16))),
        6 => prop_oneof![
            8 => Just(HookResult::Done),
            1 => Just(HookResult::Failed),
            1 => Just(HookResult::BadSetting),
            1 => Just(HookResult::Panicked),
        ]
        .prop_map(NextEvent::Sensible),
        2 => Just(NextEvent::Nothing),
        2 => any::<Index>().prop_map(|index| NextEvent::Signal(*index.get(&Signal::ALL))),
    ]
}

fn span(max: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![1 => Just(Duration::ZERO), 4 => (0..max).prop_map(Duration::from_millis)]
}

fn plans() -> impl Strategy<Value = Plan> {
    let start = prop_oneof![4 => Just(Duration::from_secs(60)), 1 => span(5_000)];
    let streams = prop_oneof![2 => Just(Duration::ZERO), 1 => span(6_000)];
    let spans = (span(3_000), span(3_000), streams, span(1_000), span(3_000), span(1_000));
    (start, spans).prop_map(
        |(start, (lame_duck, drain, streams, cancel, cleanup, internal_close))| {
            Plan::new()
                .start(start)
                .lame_duck(lame_duck)
                .drain(drain)
                .streams(streams)
                .cancel(cancel)
                .cleanup(cleanup)
                .internal_close(internal_close)
        },
    )
}

/// Own budgets are parts of the common one, so that most plans are accepted and some are refused.
fn hooks() -> impl Strategy<Value = Vec<Option<u32>>> {
    vec(proptest::option::of(0..50_u32), 0..4)
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![4 => Just(Order::TimeFirst), 1 => Just(Order::EventFirst)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_run_matches_the_naive_model(
        plan in plans(),
        percents in hooks(),
        steps in vec((step(), telling(), order()), 1..40),
    ) {
        let hooks: Vec<_> = percents
            .iter()
            .map(|percent| match percent {
                Some(percent) => HookBudget::Own(plan.cleanup * *percent / 100),
                None => HookBudget::Shared,
            })
            .collect();
        let own: u32 = percents.iter().flatten().sum();
        if own > 100 && !plan.cleanup.is_zero() {
            let refused = plan.check_hooks(&hooks).is_err();
            prop_assert!(refused, "P11: {own} % of the common budget were granted");
            return Ok(());
        }
        let (mut life, actions) = Run::begin(plan, &hooks);
        let mut model = Model::begin(plan, &hooks, life.now);
        prop_assert_eq!(actions, core::mem::take(&mut model.actions));
        for (step, telling, order) in steps {
            let now = life.now;
            let until = model.deadline().unwrap_or(now);
            life.move_clock(now.max(match step {
                Step::NotAtAll => now,
                Step::By(span) => now + span,
                Step::JustBefore => until.minus(MS),
                Step::ToTheEnd => until,
                Step::JustAfter => until + MS,
            }));
            let now = life.now;
            if order == Order::TimeFirst {
                let actions = life.wait(Duration::ZERO);
                model.time_passes(now);
                prop_assert_eq!(actions, core::mem::take(&mut model.actions));
            }
            if let Some(event) = event_of(telling, &model) {
                let (outcome, actions) = life.try_tell(event);
                let expected =
                    if model.event(now, event) { Outcome::Applied } else { Outcome::Ignored };
                prop_assert_eq!(outcome, expected, "{:?}", event);
                prop_assert_eq!(actions, core::mem::take(&mut model.actions), "{:?}", event);
            }
            prop_assert_eq!(life.machine.phase(), model.phase());
            let until = life.machine.poll_timeout().map(|(until, _)| until);
            prop_assert_eq!(until, model.deadline(), "{:?}", life.place());
            prop_assert_eq!(Verdict::of(life.machine.history(), 0, 0), model.verdict());
        }
    }
}

fn event_of(telling: NextEvent, model: &Model) -> Option<Event> {
    match telling {
        NextEvent::Nothing => None,
        NextEvent::Anything(index) => {
            let events = events(model.hooks.len());
            Some(events[index % events.len()])
        }
        NextEvent::Signal(signal) => Some(Event::StopRequested(StopReason::Signal(signal))),
        NextEvent::Sensible(result) => Some(match model.current() {
            None if model.stop.is_some() || model.serving => {
                Event::StopRequested(StopReason::Requested)
            }
            None if model.started < model.hooks.len() => {
                Event::StartHookEnded(HookIndex(model.started), result)
            }
            None if result == HookResult::Done => Event::Listening,
            None => Event::ListenFailed,
            Some(What::LameDuck | What::Drain | What::Cancelled | What::Flush) => Event::MainClosed,
            Some(What::StartResult | What::LateStart) => {
                Event::StartHookEnded(HookIndex(model.unreturned.expect("it is awaited")), result)
            }
            Some(What::StopHook(hook) | What::LateStopHook(hook)) => {
                Event::StopHookEnded(HookIndex(hook), result)
            }
            Some(What::Workers) => Event::WorkersReleased,
            Some(What::Internal) => Event::InternalClosed,
        }),
    }
}

//! Cost of the core's transitions: `cargo bench --bench lifecycle`.

use divan::{Bencher, black_box};
use lameduck::lifecycle::{
    Event, HookBudget, HookIndex, HookResult, Lifecycle, Moment, Plan, Signal, StopReason,
};
use std::time::Duration;

fn main() {
    divan::main();
}

const STOP: Event = Event::StopRequested(StopReason::Signal(Signal::Terminate));

/// A whole run, from the start to the last action, with this many pairs of hooks.
#[divan::bench(args = [0, 4, 16])]
fn whole_life(bencher: Bencher<'_, '_>, hooks: usize) {
    let budgets = vec![HookBudget::Shared; hooks];
    bencher.bench(|| {
        let mut life =
            Lifecycle::new(Plan::default(), &budgets, Moment::EPOCH).expect("the budgets fit");
        let mut actions = drain(&mut life);
        for hook in (0..hooks).map(HookIndex) {
            actions += tell(&mut life, 0, Event::StartHookEnded(hook, HookResult::Done));
        }
        actions += tell(&mut life, 0, Event::Listening);
        actions += tell(&mut life, 1, STOP);
        life.handle_timeout(at(10));
        actions += drain(&mut life);
        actions += tell(&mut life, 11, Event::MainClosed);
        for hook in (0..hooks).rev().map(HookIndex) {
            actions += tell(&mut life, 12, Event::StopHookEnded(hook, HookResult::Done));
        }
        actions + tell(&mut life, 13, Event::InternalClosed)
    });
}

/// A stop request and all its actions.
#[divan::bench]
fn stop_request(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(serving).bench_values(|mut life| tell(&mut life, 1, STOP));
}

/// The work of a host per wake-up in which nothing happens.
#[divan::bench]
fn idle_turn(bencher: Bencher<'_, '_>) {
    let mut life = serving();
    bencher.bench_local(|| {
        life.handle_timeout(at(1));
        (black_box(&mut life).poll_action(), life.poll_timeout())
    });
}

fn serving() -> Lifecycle {
    let mut life = Lifecycle::new(Plan::default(), &[], Moment::EPOCH).expect("the budgets fit");
    drain(&mut life);
    tell(&mut life, 0, Event::Listening);
    life
}

/// Handles an event, and returns the number of its actions.
fn tell(life: &mut Lifecycle, seconds: u64, event: Event) -> usize {
    let _ = black_box(life.handle_event(at(seconds), event));
    drain(life)
}

fn drain(life: &mut Lifecycle) -> usize {
    std::iter::from_fn(|| life.poll_action()).count()
}

fn at(seconds: u64) -> Moment {
    Moment::EPOCH + Duration::from_secs(seconds)
}

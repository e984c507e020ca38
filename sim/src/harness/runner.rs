//! Runs a scenario with a user's service.
//!
//! Most runs use the network that is close to Linux, and one in five the other one. On both, the
//! tasks that the service leaves at its exit are counted.

use super::{
    Received, Setup, TestWorld, Trial, downstream::Serving, judge::hint, proof::Proof,
    service::RecordedService, trial::CallTargets, world::Shared,
};
use crate::{
    app::Actor,
    explore::{call, set_current_trace},
    network::{Runtimes, TurmoilNetWorld, TurmoilWorld, World},
    oracle::Broken,
    scenario::{Outcome, SERVER, Scenario, ServedApp, run_life},
    task_count,
    trace::Trace,
};
use lameduck::HttpService;
use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc::unbounded_channel;

/// Event for a false condition of [`Trial::at_exit`].
pub(super) const FAILURE: &str = "failure";
/// Event with the number of tasks alive at the exit.
pub(super) const TASKS_LEFT: &str = "tasks left";
/// One in this many seeds runs on the other network.
const OTHER_EVERY: u64 = 5;
/// Number of yields after which every task that ends with the process has ended.
const YIELDS: usize = 64;

/// Whether a seed runs on the network that is less close to Linux.
pub(super) const fn is_on_other_network(seed: u64) -> bool {
    seed.is_multiple_of(OTHER_EVERY)
}

/// Runs `scenario`, and counts what its requests proved.
pub(super) fn play<S: HttpService>(scenario: &Scenario, setup: Setup<S>, proof: &Proof) -> Outcome {
    let outcome = if is_on_other_network(scenario.seed) {
        play_on::<TurmoilWorld, S>(scenario, setup)
    } else {
        play_on_one_runtime(scenario, setup)
    };
    proof.count(scenario, &outcome);
    outcome
}

/// Plays a scenario where the service shares its runtime with the downstreams. If tasks of these
/// may hide one of the service, it is also played where they do not: on the other network. A run
/// that shows a task there is the outcome.
fn play_on_one_runtime<S: HttpService>(scenario: &Scenario, setup: Setup<S>) -> Outcome {
    let outcome = play_on::<TurmoilNetWorld, S>(scenario, Arc::clone(&setup));
    if TasksLeft::of(&outcome.trace) != Some(TasksLeft::Unclear) {
        return outcome;
    }
    let exact = play_on::<TurmoilWorld, S>(scenario, setup);
    let is_shown = matches!(TasksLeft::of(&exact.trace), Some(TasksLeft::More { .. }));
    if is_shown { exact } else { outcome }
}

/// Whether untracked tasks of the service were left at its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TasksLeft {
    /// None but those that were excepted.
    None,
    /// This many.
    More { count: u64, excepted: u64 },
    /// Those that are left may be the downstreams'.
    Unclear,
}

impl TasksLeft {
    /// Reads the record of a run, if it came to an exit.
    pub(super) fn of(trace: &Trace) -> Option<Self> {
        let records = trace.events(TASKS_LEFT);
        let number = |name| records.first().map(|left| left.number(name).unwrap_or(0));
        let (count, excepted) = (number("count")?, number("excepted")?);
        Some(if count > excepted {
            Self::More { count, excepted }
        } else if count + number("unclear")? > excepted {
            Self::Unclear
        } else {
            Self::None
        })
    }
}

fn play_on<W: World, S: HttpService>(scenario: &Scenario, setup: Setup<S>) -> Outcome {
    let kept = Arc::new(Mutex::new((None, 0, Vec::new())));
    let (sender, servers) = unbounded_channel();
    let build = {
        let (kept, faults) = (Arc::clone(&kept), scenario.faults.clone());
        move |builder, actor: Actor, network| {
            let shared =
                Arc::new(Shared::new(sender, actor.trace.clone(), faults, Serving::at_once()));
            let world = TestWorld::new(builder, network, shared, None);
            set_current_trace(actor.trace.clone());
            let Trial { host, at_exit, excepted } =
                call(|| setup(world)).unwrap_or_else(|panic| setup_failed(&panic));
            *kept.lock().unwrap_or_else(PoisonError::into_inner) =
                (at_exit, service_tasks::<W>().1, excepted);
            host.map_service(|service| RecordedService::new(service, actor.trace))
        }
    };
    let calls = CallTargets::of(scenario);
    let at_exit = move |trace: Trace| {
        let (holds, before, excepted) =
            std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        let received = Received::by(&trace, calls);
        let holds = holds.map(|holds| call(|| holds(&received)));
        if let Some(Err(why)) =
            holds.map(|it| it.unwrap_or_else(|panic| Err(format!("the condition {panic}"))))
        {
            trace.record(SERVER, FAILURE, &[("why", why.into())]);
        }
        async move {
            let (mut least, mut most) = (usize::MAX, usize::MAX);
            for _ in 0..YIELDS {
                let (at_least, at_most) = service_tasks::<W>();
                (least, most) = (at_least.saturating_sub(before), at_most.saturating_sub(before));
                if most == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let excepted = excepted.iter().map(|except| except.count).sum::<usize>();
            let mut fields = vec![("count", least.into()), ("excepted", excepted.into())];
            if most > least {
                fields.push(("unclear", (most - least).into()));
            }
            trace.record(SERVER, TASKS_LEFT, &fields);
        }
    };
    run_life::<W, RecordedService<S>, _, _>(scenario, ServedApp::User(servers), build, at_exit)
}

/// Ends a run whose service could not be built.
fn setup_failed(panic: &str) -> ! {
    let why = setup_panic(panic);
    resume_unwind(Box::new(Broken { promise: "S3", words: "the exit is clean", why }))
}

/// Describes a panic of the setup.
pub(super) fn setup_panic(panic: &str) -> String {
    format!("the setup of the service {panic}{}", hint(panic))
}

/// Returns the least and the highest number of tasks that the service may have on its runtime.
fn service_tasks<W: World>() -> (usize, usize) {
    match W::RUNTIMES {
        Runtimes::Shared => {
            let most = task_count::alive().saturating_sub(task_count::ours());
            (most.saturating_sub(task_count::of_downstreams()), most)
        }
        Runtimes::OnePerHost => (task_count::alive(), task_count::alive()),
    }
}

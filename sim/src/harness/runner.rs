//! Runs a scenario with a user's service.
//!
//! Most runs use the network that is close to Linux, and one in five the other one. On both, the
//! tasks that the service leaves at its exit are counted.

use super::{
    Received, Setup, TestWorld, Trial, judge::hint, proof::Proof, service::RecordedService,
    trial::CallTargets, world::Shared,
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
        play_on::<TurmoilNetWorld, S>(scenario, setup)
    };
    proof.count(scenario, &outcome);
    outcome
}

fn play_on<W: World, S: HttpService>(scenario: &Scenario, setup: Setup<S>) -> Outcome {
    let kept = Arc::new(Mutex::new((None, 0, Vec::new())));
    let (sender, servers) = unbounded_channel();
    let build = {
        let (kept, faults) = (Arc::clone(&kept), scenario.faults.clone());
        move |builder, actor: Actor, network| {
            let shared = Arc::new(Shared::new(sender, actor.trace.clone(), faults));
            let world = TestWorld::new(builder, network, shared, None);
            set_current_trace(actor.trace.clone());
            let Trial { host, at_exit, excepted } =
                call(|| setup(world)).unwrap_or_else(|panic| setup_failed(&panic));
            *kept.lock().unwrap_or_else(PoisonError::into_inner) =
                (at_exit, service_tasks::<W>(), excepted);
            host.map_service(|service| RecordedService::new(service, actor.trace))
        }
    };
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
            let mut left = usize::MAX;
            for _ in 0..YIELDS {
                left = service_tasks::<W>().saturating_sub(before);
                if left == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let excepted = excepted.iter().map(|except| except.count).sum::<usize>();
            let fields = [("count", left.into()), ("excepted", excepted.into())];
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

/// Returns the number of tasks on the service's runtime that are not the simulation's own.
fn service_tasks<W: World>() -> usize {
    let calls = CallTargets::of(scenario);
    match W::RUNTIMES {
        Runtimes::Shared => task_count::alive().saturating_sub(task_count::ours()),
        Runtimes::OnePerHost => task_count::alive(),
    }
}

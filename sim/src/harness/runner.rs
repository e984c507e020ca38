//! Runs a scenario with a user's service.
//!
//! Most runs use the network that is close to Linux. One in five uses the other one, where each
//! process has its own runtime, so that the tasks left at the exit can be counted.

use super::{Received, Setup, Trial};
use crate::{
    network::{TurmoilNetWorld, TurmoilWorld},
    scenario::{Outcome, SERVER, Scenario, run_life},
    trace::Trace,
};
use lameduck::HttpService;
use std::sync::{Arc, Mutex, PoisonError};

/// Event for a false condition of [`Trial::at_exit`].
pub(super) const FLAW: &str = "flaw";
/// Event with the number of tasks alive at the exit.
pub(super) const TASKS_LEFT: &str = "tasks left";
/// One in this many seeds runs where tasks can be counted.
const COUNTED_EVERY: u64 = 5;
/// Number of yields after which every task that ends with the process has ended.
const TURNS: usize = 32;

pub(super) fn play<S: HttpService>(scenario: &Scenario, setup: Setup<S>) -> Outcome {
    let counts = scenario.seed.is_multiple_of(COUNTED_EVERY);
    let kept = Arc::new(Mutex::new((None, 0)));
    let build = {
        let kept = Arc::clone(&kept);
        move |builder, _| {
            let Trial { host, at_exit } = setup(builder);
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = (at_exit, tasks_alive());
            host
        }
    };
    let at_exit = move |trace: Trace| {
        let (holds, before) =
            std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(Err(why)) = holds.map(|holds| holds(&Received::by(&trace))) {
            trace.record(SERVER, FLAW, &[("why", why.into())]);
        }
        async move {
            if counts {
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let left = tasks_alive().saturating_sub(before);
                trace.record(SERVER, TASKS_LEFT, &[("count", left.into())]);
            }
        }
    };
    if counts {
        run_life::<TurmoilWorld, S, _, _>(scenario, build, at_exit)
    } else {
        run_life::<TurmoilNetWorld, S, _, _>(scenario, build, at_exit)
    }
}

fn tasks_alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

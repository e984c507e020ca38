//! Draws what concerns the process, and not its requests: reloads, time limits of checks, and
//! workers that are blocked for so long that the liveness probe fails. It uses its own dice, so
//! that the rest of the scenario does not depend on it.

use super::{Dice, Edges, edges::start_takes};
use crate::{
    hooks::ActEnd,
    reloads::ReloadScript,
    scenario::{Client, Fault, RequestKind, Scenario, StopBy},
};

pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if dice.one_in(6) {
        reloads(dice, scenario, edges);
    }
    for check in &mut scenario.checks {
        if dice.one_in(2) {
            check.timeout_ms = Some(dice.pick(&[2, 100, 400, 5_000]));
        }
    }
    if dice.one_in(3) {
        blocked_worker(dice, scenario, edges);
    }
    if scenario.limits.connections_max.is_none() {
        second_outage(dice, scenario, edges);
    } else {
        outage_at_the_limit(dice, scenario);
    }
}

/// Adds reloads: one by one, during others, and at the edges of Serving.
fn reloads(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    for stop in scenario.stops.iter_mut().filter(|stop| stop.by == StopBy::Sighup) {
        stop.by = StopBy::Sigterm;
    }
    let takes_ms = dice.pick(&[0, 5, 40, 300, 1_500]);
    let ready = start_takes(scenario);
    let mut at_ms = ready + dice.below(edges.stop.saturating_sub(ready) / 2 + 1);
    let mut all = vec![at_ms];
    for _ in 0..dice.between(0, 5) {
        at_ms = match dice.below(6) {
            0 => dice.about(edges.stop),
            1 => dice.below(edges.end),
            _ => at_ms + dice.pick(&[1, 3, takes_ms / 2, takes_ms + 10, 400]),
        };
        all.push(at_ms);
    }
    let all_ends = [ActEnd::Done, ActEnd::Done, ActEnd::Fails, ActEnd::Fails, ActEnd::Panics];
    let mut ends: Vec<ActEnd> = (0..dice.between(1, 3)).map(|_| dice.pick(&all_ends)).collect();
    if dice.one_in(8) {
        ends.push(ActEnd::Hangs);
    }
    scenario.reloads = Some(ReloadScript { at_ms: all, takes_ms, ends });
}

/// A worker is blocked while the process serves or is a lame duck, for several seconds. Clients
/// come only afterwards, since every request to that worker would wait.
fn blocked_worker(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let ready = start_takes(scenario) + 100;
    let most = edges.drain.saturating_sub(ready + 200);
    if most < BLOCKED_LEAST_MS {
        return;
    }
    let for_ms = dice.between(BLOCKED_LEAST_MS, most.min(BLOCKED_MOST_MS));
    let at_ms = ready + dice.below(most - for_ms + 1);
    scenario.stops.truncate(1);
    scenario.clients.retain(|client| client.at_ms > at_ms + for_ms + 100);
    scenario.faults.clear();
    let worker = usize::try_from(dice.below(scenario.workers as u64)).unwrap_or(0);
    scenario.faults.push(Fault::Stall { worker, at_ms, for_ms });
    // A task that fails stops the process earlier.
    if scenario.tasks.is_empty() && dice.one_in(4) {
        blocked_again(dice, scenario, worker, at_ms + for_ms);
    }
}

/// The worker that was blocked until `ends` is blocked again, before all that follows.
fn blocked_again(dice: &mut Dice, scenario: &mut Scenario, worker: usize, ends: u64) {
    let at_ms = ends + dice.pick(&[300, 1_500, 4_000]);
    let for_ms = dice.between(8_000, 10_000);
    let later = at_ms + for_ms - ends;
    let stops = scenario.stops.iter_mut().map(|stop| &mut stop.at_ms);
    let clients = scenario.clients.iter_mut().map(|client| &mut client.at_ms);
    stops.chain(clients).for_each(|at_ms| *at_ms += later);
    scenario.faults.push(Fault::Stall { worker, at_ms, for_ms });
}

/// In half of the scenarios in which descriptors run out, adds a second time, and a client whose
/// connection waits for them.
fn second_outage(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let outage = scenario.faults.iter().find_map(|fault| {
        let Fault::NoDescriptors { at_ms, for_ms } = fault else { return None };
        Some(at_ms + for_ms)
    });
    let Some(ended) = outage.filter(|_| dice.one_in(2)) else { return };
    let far = scenario.latency_ms.1;
    let at_ms = ended + dice.between(200, 900);
    let for_ms = far * 4 + dice.pick(&[25, 60, 200]);
    if at_ms + for_ms < edges.drain {
        scenario.faults.push(Fault::NoDescriptors { at_ms, for_ms });
        scenario.clients.push(Client::once(at_ms + dice.below(20), RequestKind::Fast));
    }
}

/// In one of four scenarios with a small limit of connections, descriptors run out as a client
/// connects.
fn outage_at_the_limit(dice: &mut Dice, scenario: &mut Scenario) {
    if !scenario.faults.is_empty() || scenario.clients.is_empty() || !dice.one_in(4) {
        return;
    }
    let near = scenario.latency_ms.0;
    let last = scenario.clients.iter().map(|client| client.at_ms).max().unwrap_or(0);
    let at_ms = last + dice.below(near * 2 + 1);
    scenario.faults.push(Fault::NoDescriptors { at_ms, for_ms: dice.pick(&[25, 60, 200]) });
}

/// A worker is noticed after 4.75 s at the earliest.
const BLOCKED_LEAST_MS: u64 = 4_500;
const BLOCKED_MOST_MS: u64 = 12_000;

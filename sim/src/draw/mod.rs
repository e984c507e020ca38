//! Draws scenarios from a seed.
//!
//! ```text
//! seed ──▶ features: the ones this scenario has (a swarm, not a bit of everything)
//!      ──▶ plan, clock, link, hooks ──▶ edges: when each phase would begin
//!      ──▶ stops, clients, faults: when? at an edge ± 2 ms, or anywhere
//! ```
//! If every scenario had all features, all would be alike. A scenario with only some features finds
//! the bugs that need those to be alone. Uniform times almost never hit the millisecond in which a
//! phase changes, so most times aim at it. The [sometimes-table](crate::explore::sometimes)
//! measures what this does not reach.

mod calls;
mod caps;
mod clients;
mod closing;
mod contexts;
mod control;
mod dice;
mod edges;
mod extras;
mod handler_closes;
mod handshakes;
mod head_requests;
mod headers;
mod heads;
mod latecomers;
mod noise;
mod rare;
mod real_time;
mod sequences;
mod serving;
mod slow_parts;
mod starts;
mod streams;
mod together;
mod waiting;

pub(crate) use real_time::LARGER_THAN_THE_BUFFERS;

use crate::{
    hooks::{Act, ActEnd, HookScript},
    scenario::{
        Client, DownstreamFault, Fault, Filter, Pacing, PlanMs, Scenario, StopBy, StopRequest,
        Traffic,
    },
};
pub(crate) use dice::Dice;
use edges::Edges;

/// All ways to request a stop.
pub const STOPS: [StopBy; 5] =
    [StopBy::Sigterm, StopBy::Sigint, StopBy::Sigquit, StopBy::Sighup, StopBy::Handle];

/// What a scenario may have in addition to one stop and some clients.
#[derive(Clone, Copy, Debug)]
struct Features {
    zeros: bool,
    brief: bool,
    skew: bool,
    far: bool,
    held: bool,
    no_filter: bool,
    workers: bool,
    hooks: bool,
    bad_hooks: bool,
    start: bool,
    further_stops: bool,
    no_deadline: bool,
    short_deadline: bool,
    long_running: bool,
    long_service: bool,
    /// The longest service, in milliseconds.
    service_max: u64,
    torn: bool,
    no_descriptors: bool,
    accepts_aborted: bool,
    reset_all: bool,
    stalled: bool,
}

impl Features {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            zeros: dice.one_in(6),
            brief: dice.one_in(3),
            skew: dice.one_in(5),
            far: dice.one_in(5),
            held: dice.one_in(8),
            no_filter: dice.one_in(6),
            workers: dice.one_in(3),
            hooks: dice.one_in(2),
            bad_hooks: dice.one_in(2),
            start: dice.one_in(8),
            further_stops: dice.one_in(2),
            no_deadline: dice.one_in(3),
            short_deadline: dice.one_in(4),
            long_running: dice.one_in(2),
            long_service: dice.one_in(4),
            service_max: 14_000,
            torn: dice.one_in(6),
            no_descriptors: dice.one_in(7),
            accepts_aborted: dice.one_in(12),
            reset_all: dice.one_in(16),
            stalled: dice.one_in(12),
        }
    }
}

/// Draws a scenario for a user's own service with its plan and deadline: clients, faults, and one
/// stop. The stop is not SIGHUP, on which a service may reload.
pub(crate) fn draw_with(seed: u64, plan: PlanMs, request_timeout_ms: Option<u64>) -> Scenario {
    let dice = &mut Dice::new(seed);
    let features = Features { start: false, ..Features::draw(dice) };
    let mut scenario = Scenario::new(format!("drawn from seed {seed}"));
    scenario.seed = seed;
    scenario.plan = plan;
    scenario.request_timeout_ms = request_timeout_ms;
    scenario.latency_ms = latency(dice, features);
    if features.workers {
        scenario.workers = dice.pick(&[2, 3]);
    }
    scenario.probe_every_ms = 1_000;
    let mut stop = first_stop(dice, features, &scenario);
    if stop.by == StopBy::Sighup {
        stop.by = StopBy::Sigterm;
    }
    scenario.stops = vec![stop];
    let edges = Edges::of(&scenario);
    scenario.clients = clients::draw(dice, &scenario, &edges, false);
    if features.held {
        let at_ms = edges.aim(dice);
        scenario.faults.push(Fault::Hold { at_ms, for_ms: dice.pick(&[1, 20, 100, 300]) });
    }
    scenario
}

/// Draws the faults of the services that a user's service depends on, for half of the seeds. Most
/// of them begin with the stop.
pub(crate) fn downstream_faults(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let dice = &mut Dice::of_downstreams(seed);
    let edges = Edges::of(scenario);
    let count = dice.pick(&[0, 0, 1, 2]);
    (0..count)
        .map(|_| Fault::Downstream {
            downstream: dice.below(12),
            at_ms: if dice.one_in(2) { edges.stop } else { edges.aim(dice) },
            for_ms: dice.pick(&[20, 300, 3_000, FOR_GOOD_MS]),
            how: dice.pick(&DownstreamFault::ALL),
        })
        .collect()
}

/// Longer than any run.
pub(crate) const FOR_GOOD_MS: u64 = 3_600_000;

/// Draws the scenario of a seed.
#[must_use]
pub fn draw(seed: u64) -> Scenario {
    draw_as(seed, Features::draw, plan)
}

/// Draws the scenario of a seed for a world in real time: short, and only with what such a world
/// can do.
#[must_use]
pub fn draw_in_real_time(seed: u64) -> Scenario {
    let mut scenario = draw_as(seed, real_time::features, real_time::plan);
    real_time::leave_out(&mut scenario);
    scenario
}

/// Draws the same, with the times so far apart that hardly any order depends on the machine.
#[must_use]
pub fn draw_apart(seed: u64) -> Scenario {
    let mut scenario = draw_in_real_time(seed);
    real_time::spread(&mut scenario);
    scenario
}

fn draw_as(
    seed: u64,
    features: impl FnOnce(&mut Dice) -> Features,
    plan: impl FnOnce(&mut Dice, Features) -> PlanMs,
) -> Scenario {
    let dice = &mut Dice::new(seed);
    let features = features(dice);
    let mut scenario = Scenario::new(format!("drawn from seed {seed}"));
    scenario.seed = seed;
    scenario.plan = plan(dice, features);
    scenario.latency_ms = latency(dice, features);
    if features.skew {
        scenario.clock_skew_ppm = dice.pick(&[-100_000, -50_000, -1_000, 1_000, 50_000, 100_000]);
    }
    if features.no_filter {
        scenario.syn_filter = Filter::Missing;
    }
    if features.workers {
        scenario.workers = dice.pick(&[2, 2, 3, 5]);
    }
    scenario.second_address = dice.one_in(6);
    scenario.reordered = dice.one_in(3);
    scenario.probe_every_ms = dice.pick(&[97, 250, 500, 1_000]);
    scenario.request_timeout_ms = deadline(dice, features);
    scenario.hooks = hooks(dice, features, scenario.plan.cleanup);
    scenario.stops = vec![first_stop(dice, features, &scenario)];
    let edges = Edges::of(&scenario);
    if features.further_stops {
        let more = dice.pick(&[1, 1, 2, 3, 6, 8]);
        scenario.stops.extend(
            (0..more).map(|_| StopRequest { at_ms: edges.after_stop(dice), by: dice.pick(&STOPS) }),
        );
    }
    scenario.clients = clients::draw(dice, &scenario, &edges, features.long_running);
    scenario.faults = faults(dice, features, &edges, &scenario.clients);
    // A stalled client is ended by the drain, unless its request deadline comes first.
    let stands_still =
        |client: &Client| matches!(client.traffic, Traffic::Once(Pacing::SlowUpload(_, 4_800..)));
    if scenario.clients.iter().any(stands_still) && dice.one_in(2) {
        scenario.request_timeout_ms = None;
    }
    extras::draw(&mut Dice::of_extras(seed), &mut scenario, &edges);
    latecomers::draw(&mut Dice::of_latecomers(seed), &mut scenario, &edges);
    limits(&mut Dice::of_limits(seed), &mut scenario);
    serving::draw(&mut Dice::of_serving(seed), &mut scenario, &edges);
    // It may have moved the stop.
    let edges = Edges::of(&scenario);
    rare::draw(&mut Dice::of_rare(seed), &mut scenario, &edges);
    streams::draw(&mut Dice::of_streams(seed), &mut scenario, &edges);
    calls::draw(&mut Dice::of_calls(seed), &mut scenario, &edges);
    caps::draw(&mut Dice::of_caps(seed), &mut scenario, &edges);
    headers::draw(&mut Dice::of_headers(seed), &mut scenario, &edges);
    heads::draw(&mut Dice::of_heads(seed), &mut scenario, &edges);
    together::draw(&mut Dice::of_things_together(seed), &mut scenario, &edges);
    closing::draw(&mut Dice::of_closing(seed), &mut scenario, &edges);
    control::draw(&mut Dice::of_control(seed), &mut scenario, &edges);
    // It may have moved the stop, too.
    let edges = Edges::of(&scenario);
    contexts::draw(&mut Dice::of_contexts(seed), &mut scenario, &edges);
    scenario.tls |= Dice::of_tls(seed).one_in(4);
    handshakes::draw(&mut Dice::of_handshakes(seed), &mut scenario, &edges);
    slow_parts::draw(&mut Dice::of_slow_parts(seed), &mut scenario, &edges);
    waiting::draw(&mut Dice::of_waiting(seed), &mut scenario, &edges);
    sequences::draw(&mut Dice::of_sequences(seed), &mut scenario, &edges);
    head_requests::draw(&mut Dice::of_head_requests(seed), &mut scenario, &edges);
    handler_closes::draw(&mut Dice::of_handler_closes(seed), &mut scenario, &edges);
    noise::draw(&mut Dice::of_noise(seed), &mut scenario, &edges);
    starts::draw(&mut Dice::of_starts(seed), &mut scenario);
    let edges = Edges::of(&scenario);
    stalls_end_in_time(&mut scenario, &edges);
    scenario
}

/// Removes stalls that may last until the abort. A worker that does not run then ends with the
/// process, and what it had to do is not judged.
fn stalls_end_in_time(scenario: &mut Scenario, edges: &Edges) {
    let is_impatient = |stop: &StopRequest| matches!(stop.by, StopBy::Sigint | StopBy::Sigquit);
    let is_cut_short = scenario.stops.iter().skip(1).any(is_impatient);
    scenario.faults.retain(|fault| match fault {
        Fault::Stall { at_ms, for_ms, .. } => {
            !is_cut_short && at_ms + for_ms + STALL_ENDS_BEFORE_MS < edges.abort
        }
        Fault::Hold { .. }
        | Fault::PartialIo { .. }
        | Fault::NoDescriptors { .. }
        | Fault::AcceptAborted
        | Fault::ResetAll { .. }
        | Fault::Downstream { .. } => true,
    });
}

/// Time from the end of a stall to the abort, in which the worker does what it has missed.
const STALL_ENDS_BEFORE_MS: u64 = 50;

/// Sets the first-byte timeout, if no other client may be silent for that long.
fn limits(dice: &mut Dice, scenario: &mut Scenario) {
    let is_silent = |client: &Client| matches!(client.traffic, Traffic::ByteLess);
    let is_late = |client: &Client| matches!(client.traffic, Traffic::Late { .. });
    if scenario.faults.is_empty()
        && scenario.clients.iter().any(is_silent)
        && !scenario.clients.iter().any(is_late)
    {
        let least = 4 * scenario.latency_ms.1 + 100;
        scenario.limits.first_byte_timeout = Some(least + dice.pick(&[100, 400, 2_500]));
    }
}

fn plan(dice: &mut Dice, features: Features) -> PlanMs {
    let mut span = |usual: &[u64], brief: &[u64]| {
        if features.zeros && dice.one_in(2) {
            dice.pick(&[0, 0, 1, 2])
        } else if features.brief {
            dice.pick(brief)
        } else {
            dice.pick(usual)
        }
    };
    PlanMs {
        start: span(&[2_000, 10_000], &[500, 1_000]).max(100),
        // The host's defaults appear as often as not: 5 s, 10 s, 3 s, 5 s, 1 s.
        lame_duck: span(&[1_000, 3_000, 5_000, 5_000, 5_000, 15_000], &[10, 50, 200]),
        drain: span(
            &[2_000, 7_000, 10_000, 10_000, 10_000, 25_000],
            &[20, 100, 249, 300, 600, 1_500],
        ),
        cancel: span(&[1_000, 3_000, 3_000], &[20, 249, 250, 251, 300]),
        cleanup: span(&[1_000, 5_000, 5_000, 9_000], &[20, 100, 300]),
        internal_close: span(&[500, 1_000, 1_000], &[20, 100, 300]),
        streams: 0,
    }
}

/// Draws the faults around the host and at its own end of the network.
fn faults(dice: &mut Dice, features: Features, edges: &Edges, clients: &[Client]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if features.held {
        let at_ms = edges.aim(dice);
        faults.push(Fault::Hold { at_ms, for_ms: dice.pick(&[1, 20, 100, 300, 1_000]) });
    }
    if features.torn {
        faults.push(Fault::PartialIo { bytes: dice.pick(&[1, 3, 20, 500]) });
    }
    if features.no_descriptors {
        // As a client connects before the drain, so that the fault excuses no lost request; or at
        // any time.
        let comes = clients.iter().map(|client| client.at_ms).filter(|at| *at < edges.drain).max();
        let at_ms = match comes {
            Some(at_ms) if !dice.one_in(4) => at_ms.saturating_sub(dice.below(20)),
            Some(_) | None => edges.aim(dice),
        };
        faults.push(Fault::NoDescriptors { at_ms, for_ms: dice.pick(&[25, 60, 100, 400]) });
    }
    if features.accepts_aborted {
        faults.push(Fault::AcceptAborted);
    }
    if features.stalled {
        let at_ms = edges.aim(dice).saturating_sub(dice.pick(&[0, 0, 20]));
        let worker = usize::try_from(dice.below(2)).unwrap_or(0);
        faults.push(Fault::Stall { worker, at_ms, for_ms: dice.pick(&[1, 5, 20, 100, 190, 400]) });
    }
    if features.reset_all {
        let at_ms = edges.aim(dice);
        faults.push(Fault::ResetAll { at_ms });
    }
    faults
}

fn latency(dice: &mut Dice, features: Features) -> (u64, u64) {
    if features.far {
        dice.pick(&[(10, 20), (20, 40), (40, 40), (1, 60)])
    } else {
        dice.pick(&[(1, 1), (1, 1), (1, 3), (2, 2), (1, 9), (5, 9)])
    }
}

fn deadline(dice: &mut Dice, features: Features) -> Option<u64> {
    if features.no_deadline {
        None
    } else if features.short_deadline {
        Some(dice.pick(&[1, 20, 100, 300, 700]))
    } else {
        Some(dice.pick(&[2_000, 5_000]))
    }
}

fn hooks(dice: &mut Dice, features: Features, cleanup_ms: u64) -> Vec<HookScript> {
    if !features.hooks && !features.start {
        return Vec::new();
    }
    let count = dice.pick(&[1, 2, 2, 3, 4]);
    // All budgets together must fit into the cleanup.
    let own_most = cleanup_ms / count;
    (0..count)
        .map(|n| {
            let mut hook = HookScript::new(&format!("hook-{n}"));
            hook.start.after_ms = dice.pick(&[0, 0, 1, 20, 150]);
            if features.start && dice.one_in(3) {
                hook.start.end = dice.pick(&[ActEnd::Fails, ActEnd::Hangs, ActEnd::Panics]);
            }
            let budget = if dice.one_in(4) { Some(dice.between(0, own_most)) } else { None };
            // The time that a hook is sure to get; draw near it.
            let share = budget.unwrap_or(own_most);
            hook.stop.after_ms = if dice.one_in(3) {
                dice.about(share)
            } else {
                dice.pick(&[0, 0, 1, 20, 150, share / 2])
            };
            if features.bad_hooks && dice.one_in(2) {
                let end = dice.pick(&[ActEnd::Fails, ActEnd::Hangs, ActEnd::Panics]);
                hook.stop = Act { after_ms: dice.pick(&[0, 0, 20]), end };
            }
            hook.budget_ms = budget;
            hook
        })
        .collect()
}

fn first_stop(dice: &mut Dice, features: Features, scenario: &Scenario) -> StopRequest {
    let ready = edges::start_takes(scenario);
    let at_ms = if features.start {
        match dice.below(4) {
            0 => dice.about(ready),
            1 => dice.about(scenario.plan.start),
            _ => dice.below(ready + 2),
        }
    } else {
        // Long enough for idle connections to be parked, and for a partial head to time out.
        let serves = if features.long_service {
            dice.between(1_000, features.service_max)
        } else {
            dice.between(100, 900)
        };
        ready + serves
    };
    StopRequest { at_ms, by: dice.pick(&STOPS) }
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn the_same_seed_draws_the_same_scenario_and_another_another() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_drawn_scenario_can_be_written_down_and_read_again() {
        for seed in 0..200 {
            let scenario = draw(seed);
            let text = serde_json::to_string(&scenario).unwrap();
            assert_eq!(serde_json::from_str::<crate::scenario::Scenario>(&text).unwrap(), scenario);
            assert!(scenario.first_stop_ms().is_some(), "without a stop it would never end");
        }
    }
}

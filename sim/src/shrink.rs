//! Shrinks a failing scenario to a small one that still fails.
//!
//! The search is greedy: it takes each simpler candidate that still fails, and goes on with the
//! simplifications after it, round by round, until a whole round finds none. Every candidate is
//! strictly simpler (fewer parts, or a smaller or rounder number), so the search ends. The largest
//! simplifications come first. The seed stays, because another seed would be another scenario.

use crate::{
    hooks::{Act, ActEnd},
    scenario::{Fault, Filter, LimitsMs, Pacing, RequestKind, Scenario, StuckResponse, Traffic},
};

/// Shrinks `scenario` while `fails` returns true, with at most `tries` calls of `fails`.
pub fn shrink(
    scenario: &Scenario,
    mut tries: u32,
    mut fails: impl FnMut(&Scenario) -> bool,
) -> Scenario {
    let mut least = scenario.clone();
    let mut candidates = simpler(&least);
    let (mut next, mut refused) = (0, 0);
    while refused < candidates.len() && tries > 0 {
        let candidate = &candidates[next % candidates.len()];
        tries -= 1;
        if is_valid(candidate) && fails(candidate) {
            least = candidate.clone();
            candidates = simpler(&least);
            refused = 0;
        } else {
            next += 1;
            refused += 1;
        }
    }
    least
}

/// Whether the host accepts the plan: the budgets of the stop hooks fit into the clean-up.
fn is_valid(scenario: &Scenario) -> bool {
    let budgets: u64 = scenario.hooks.iter().filter_map(|hook| hook.budget_ms).sum();
    budgets <= scenario.plan.cleanup
}

/// Returns all candidates that are one step simpler, the largest steps first.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    without(scenario, &mut all, scenario.clients.len(), |scenario, n| {
        drop(scenario.clients.remove(n));
    });
    without(scenario, &mut all, scenario.hooks.len(), |scenario, n| drop(scenario.hooks.remove(n)));
    without(scenario, &mut all, scenario.tasks.len(), |scenario, n| drop(scenario.tasks.remove(n)));
    without(scenario, &mut all, scenario.checks.len(), |scenario, n| {
        drop(scenario.checks.remove(n));
    });
    without(scenario, &mut all, scenario.faults.len(), |scenario, n| {
        let _ = scenario.faults.remove(n);
    });
    if scenario.stops.len() > 1 {
        without(scenario, &mut all, scenario.stops.len(), |scenario, n| {
            let _ = scenario.stops.remove(n);
        });
    }
    let mut change = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        if candidate != *scenario {
            all.push(candidate);
        }
    };
    change(&|scenario| scenario.clock_skew_ppm = 0);
    change(&|scenario| scenario.reloads = None);
    change(&|scenario| scenario.workers = 1);
    change(&|scenario| scenario.second_address = false);
    change(&|scenario| scenario.reordered = false);
    change(&|scenario| scenario.syn_filter = Filter::Available);
    change(&|scenario| scenario.latency_ms = (1, 1));
    change(&|scenario| scenario.request_timeout_ms = None);
    change(&|scenario| scenario.limits = LimitsMs::default());
    change(&|scenario| scenario.caps.clear());
    for name in scenario.caps.keys() {
        change(&|scenario| {
            let _ = scenario.caps.remove(name);
        });
    }
    change(&|scenario| scenario.tls = false);
    change(&|scenario| scenario.probe_every_ms = scenario.probe_every_ms.max(1_000));
    for n in 0..scenario.clients.len() {
        change(&|scenario| {
            scenario.clients[n].traffic = simpler_traffic(scenario.clients[n].traffic);
        });
        change(&|scenario| {
            scenario.clients[n].request_kind = simpler_request(&scenario.clients[n].request_kind);
        });
        for place in 0..scenario.clients[n].then.len() {
            change(&|scenario| drop(scenario.clients[n].then.remove(place)));
        }
        change(&|scenario| scenario.clients[n].header = None);
        change(&|scenario| scenario.clients[n].fields = None);
    }
    for n in 0..scenario.hooks.len() {
        change(&|scenario| scenario.hooks[n].start.end = ActEnd::Done);
        change(&|scenario| scenario.hooks[n].stop.end = ActEnd::Done);
        change(&|scenario| scenario.hooks[n].start = Act::PROMPT);
        change(&|scenario| scenario.hooks[n].budget_ms = None);
    }
    for place in 0..numbers(&mut scenario.clone()).len() {
        for round in ROUNDINGS {
            change(&|scenario| {
                if let Some(number) = numbers(scenario).into_iter().nth(place) {
                    *number = round(*number);
                }
            });
        }
    }
    all
}

/// Adds candidates without one half of the items, then without a single item.
fn without(
    scenario: &Scenario,
    all: &mut Vec<Scenario>,
    count: usize,
    remove: impl Fn(&mut Scenario, usize),
) {
    if count > 2 {
        for from in [0, count / 2] {
            let mut candidate = scenario.clone();
            (0..count / 2).for_each(|_| remove(&mut candidate, from.min(count - count / 2)));
            all.push(candidate);
        }
    }
    for n in (0..count).rev() {
        let mut candidate = scenario.clone();
        remove(&mut candidate, n);
        all.push(candidate);
    }
}

fn simpler_traffic(traffic: Traffic) -> Traffic {
    if let Traffic::KeepAlive { requests, every_ms, retries: true } = traffic {
        return Traffic::KeepAlive { requests, every_ms, retries: false };
    }
    let many = matches!(
        traffic,
        Traffic::KeepAlive { .. }
            | Traffic::PerRequest { .. }
            | Traffic::Pipelined { .. }
            | Traffic::Once(Pacing::HalfClosed)
    );
    if many { Traffic::Once(Pacing::Prompt) } else { traffic.at_full_pace() }
}

fn simpler_request(request_kind: &RequestKind) -> RequestKind {
    match request_kind {
        RequestKind::Stuck(ms, StuckResponse::Length | StuckResponse::Chunked) => {
            RequestKind::Stuck(*ms, StuckResponse::Nothing)
        }
        RequestKind::Stuck(ms, StuckResponse::Nothing)
        | RequestKind::Stream(ms)
        | RequestKind::Within(ms, _)
        | RequestKind::Unlimited(ms) => RequestKind::Slow(*ms),
        RequestKind::Slow(_)
        | RequestKind::Echo(_)
        | RequestKind::Unread(_)
        | RequestKind::Panic
        | RequestKind::Breaks
        | RequestKind::Head
        | RequestKind::HeadOf(_)
        | RequestKind::Bytes(_)
        | RequestKind::Events
        | RequestKind::Work(..)
        | RequestKind::User(_)
        | RequestKind::Odd(_)
        | RequestKind::Mismatch(_)
        | RequestKind::Rare(_)
        | RequestKind::Fast => RequestKind::Fast,
    }
}

/// None of these makes a number greater.
const ROUNDINGS: [fn(u64) -> u64; 5] = [
    |_| 0,
    |number| number / 2,
    |number| number - number % 1_000,
    |number| number - number % 100,
    |number| number - number % 10,
];

/// Returns all numbers that may be made smaller: times, counts, sizes.
fn numbers(scenario: &mut Scenario) -> Vec<&mut u64> {
    let plan = &mut scenario.plan;
    let mut all = vec![
        &mut plan.lame_duck,
        &mut plan.drain,
        &mut plan.cancel,
        &mut plan.cleanup,
        &mut plan.internal_close,
    ];
    all.extend(scenario.request_timeout_ms.as_mut());
    all.extend(scenario.stops.iter_mut().map(|stop| &mut stop.at_ms));
    for fault in &mut scenario.faults {
        match fault {
            Fault::Hold { at_ms, for_ms }
            | Fault::NoDescriptors { at_ms, for_ms }
            | Fault::Stall { at_ms, for_ms, .. }
            | Fault::Downstream { at_ms, for_ms, .. } => {
                all.extend([at_ms, for_ms]);
            }
            Fault::ResetAll { at_ms } => all.push(at_ms),
            // Not shrunk: partial I/O of more bytes is the simpler case.
            Fault::PartialIo { .. } | Fault::AcceptAborted => {}
        }
    }
    for hook in &mut scenario.hooks {
        all.extend([&mut hook.start.after_ms, &mut hook.stop.after_ms]);
        all.extend(hook.budget_ms.as_mut());
    }
    all.extend(scenario.tasks.iter_mut().map(|task| &mut task.then.after_ms));
    if let Some(reloads) = &mut scenario.reloads {
        all.push(&mut reloads.takes_ms);
        all.extend(&mut reloads.at_ms);
    }
    for check in &mut scenario.checks {
        all.extend([&mut check.takes_ms, &mut check.fails_from, &mut check.fails]);
    }
    for client in &mut scenario.clients {
        all.push(&mut client.at_ms);
        all.extend(client.noise_ms.as_mut());
        match &mut client.request_kind {
            RequestKind::Slow(ms)
            | RequestKind::Stuck(ms, _)
            | RequestKind::Stream(ms)
            | RequestKind::Work(ms, _)
            | RequestKind::Unlimited(ms) => all.push(ms),
            RequestKind::Within(ms, within) => all.extend([ms, within]),
            RequestKind::Fast
            | RequestKind::Echo(_)
            | RequestKind::Unread(_)
            | RequestKind::Bytes(_)
            | RequestKind::Panic
            | RequestKind::Breaks
            | RequestKind::Head
            | RequestKind::HeadOf(_)
            | RequestKind::Events
            | RequestKind::User(_)
            | RequestKind::Odd(_)
            | RequestKind::Mismatch(_)
            | RequestKind::Rare(_) => {}
        }
        match &mut client.traffic {
            Traffic::KeepAlive { requests, every_ms, .. }
            | Traffic::PerRequest { requests, every_ms }
            | Traffic::Pipelined { requests, every_ms }
            | Traffic::Http2 { requests, every_ms }
            | Traffic::Http2GoesOn { requests, every_ms, .. }
            | Traffic::Session { times: requests, every_ms } => all.extend([requests, every_ms]),
            Traffic::Http2Leaves { requests, after_ms } => all.extend([requests, after_ms]),
            Traffic::Http2HalfFrame { requests, after_ms, every_ms, .. } => {
                all.extend([requests, after_ms, every_ms]);
            }
            Traffic::Http2Windowless { requests } => all.push(requests),
            Traffic::Http2Resets { rounds, streams } => all.extend([rounds, streams]),
            Traffic::InternalStrangers { count, .. } => all.push(count),
            Traffic::InPieces(how) => {
                all.extend([&mut how.earlier, &mut how.pieces, &mut how.every_ms]);
                all.extend(how.idle_ms.as_mut());
            }
            Traffic::SendsOn(how) => all.extend([&mut how.after_ms, &mut how.every_ms]),
            Traffic::Stalls { reads, for_ms, idle_ms, requests, between_ms } => {
                all.extend(between_ms.as_mut());
                all.extend([reads, for_ms, requests]);
                all.extend(idle_ms.as_mut());
            }
            Traffic::Http2Stalls { for_ms, idle_ms, beside_ms } => {
                all.push(for_ms);
                all.extend(idle_ms.iter_mut().chain(beside_ms));
            }
            Traffic::Late { after_ms, requests, every_ms } => {
                all.extend([after_ms, requests, every_ms]);
            }
            Traffic::Leaves { after_ms, next_ms, .. } => {
                all.push(after_ms);
                all.extend(next_ms.as_mut());
            }
            Traffic::Http2Upload { every_ms: ms, .. }
            | Traffic::Http2Slowly { every_ms: ms, .. }
            | Traffic::SlowHttp2 { every_ms: ms, .. }
            | Traffic::SlowHello { every_ms: ms, .. }
            | Traffic::Abandons { after_ms: ms }
            | Traffic::Upgraded { every_ms: ms, .. } => {
                all.push(ms);
            }
            Traffic::Once(
                Pacing::HeadPause(ms) | Pacing::SlowUpload(_, ms) | Pacing::SlowReader(_, ms),
            ) => all.push(ms),
            Traffic::Once(Pacing::Prompt | Pacing::HalfClosed)
            | Traffic::ByteLess
            | Traffic::HalfHead
            | Traffic::InternalHalfHead
            | Traffic::BadHeader(_)
            | Traffic::SilentHttp2 => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use crate::{
        draw::draw,
        scenario::{Client, RequestKind, Scenario, Traffic},
    };

    #[test]
    fn what_fails_for_one_reason_shrinks_to_that_reason() {
        let is_late = |client: &Client| {
            client.at_ms >= 1_234 && matches!(client.traffic, Traffic::Http2 { .. })
        };
        let fails = |scenario: &Scenario| scenario.clients.iter().any(is_late);
        let mut shrunk = 0;
        for scenario in (0..2_000).map(draw).filter(fails) {
            let least = shrink(&scenario, 10_000, fails);
            assert!(fails(&least));
            assert_eq!(
                (least.clients.len(), least.hooks.len(), least.stops.len(), least.faults.len()),
                (1, 0, 1, 0)
            );
            assert_eq!(least.clients[0].request_kind, RequestKind::Fast);
            assert!(least.clients[0].at_ms < 2 * 1_234 + 1_000, "{least:?}");
            shrunk += 1;
        }
        assert!(shrunk > 20, "{shrunk}");
    }

    // Each simplification started the search again at its first candidate: a service that is slow
    // to simulate took minutes until its failure was reported.
    #[test]
    fn a_search_takes_few_rounds() {
        let scenario = draw(3);
        let cause = scenario.clients.last().unwrap();
        let mut calls = 0;
        let least = shrink(&scenario, 10_000, |candidate| {
            calls += 1;
            candidate.clients.contains(cause)
        });
        assert_eq!(least.clients, std::slice::from_ref(cause));
        let round = super::simpler(&scenario).len();
        assert!(calls < 3 * round, "{calls} calls for a round of {round}");
    }

    #[test]
    fn what_always_fails_shrinks_to_one_stop_of_nothing() {
        let least = shrink(&draw(3), 10_000, |_| true);
        assert_eq!((least.clients.len(), least.stops[0].at_ms, least.plan.drain), (0, 0, 0));
    }
}

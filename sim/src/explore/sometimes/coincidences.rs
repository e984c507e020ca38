//! Events that happen within a moment of each other, and probes in each phase.

use super::{Coverage, Sometimes};
use crate::scenario::Filter;
use lameduck::lifecycle::Phase;

pub(super) fn coincidences(all: &mut Vec<Sometimes>) {
    let mut meets = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("meets: {what}"), test));
    };
    meets("a request within 2 ms of the begin of the drain", |coverage| {
        coverage.handler_near("handler begins", Phase::Draining)
    });
    meets("a request that ends within 2 ms of the end of the drain", |coverage| {
        coverage.handler_near("handler ends", Phase::Cancelling)
    });
    meets("a request that ends within 2 ms of the end of the cancel wait", |coverage| {
        coverage.handler_near("handler ends", Phase::CleaningUp)
    });
    meets("a connection while the listeners are sealed", |coverage| {
        coverage.connected_while_settling()
    });
    meets("a signal in the instant the drain begins", |coverage| {
        coverage.signal_at(Phase::Draining)
    });
    meets("a signal in the instant the drain ends", |coverage| {
        coverage.signal_at(Phase::Cancelling)
    });
    meets("a signal in the instant cleaning up begins", |coverage| {
        coverage.signal_at(Phase::CleaningUp)
    });
    meets("no connection when the drain begins", |coverage| {
        coverage.history.phases.iter().any(|(phase, place, _)| {
            *phase == Phase::Draining
                && coverage.history.records[*place].number("connections") == Some(0)
        })
    });
    meets("a held link when the drain begins", |coverage| coverage.held_at(Phase::Draining));
    meets("a held link when the drain ends", |coverage| coverage.held_at(Phase::Cancelling));
    meets("new connections without a filter", |coverage| {
        coverage.history.scenario.syn_filter == Filter::Missing
            && coverage.connected_while_settling()
    });
    meets("several workers in the drain", |coverage| {
        coverage.history.scenario.workers > 1 && coverage.in_flight_at(Phase::Draining) > Some(0)
    });
    meets("a clock that runs fast in a long shutdown", |coverage| {
        coverage.history.scenario.clock_skew_ppm > 0
            && coverage.in_flight_at(Phase::Cancelling) > Some(0)
    });
    meets("a clock that runs slow in a long shutdown", |coverage| {
        coverage.history.scenario.clock_skew_ppm < 0
            && coverage.in_flight_at(Phase::Cancelling) > Some(0)
    });
    for phase in
        [Phase::Starting, Phase::LameDuck, Phase::Draining, Phase::Cancelling, Phase::CleaningUp]
    {
        all.push(Sometimes::new(format!("probe: readiness 503 in {phase}"), move |coverage| {
            coverage.probed("/readiness", 503, phase)
        }));
        all.push(Sometimes::new(format!("probe: liveness 200 in {phase}"), move |coverage| {
            coverage.probed("/liveness", 200, phase)
        }));
    }
    for (status, phase) in [
        (200, Phase::Serving),
        (200, Phase::LameDuck),
        (503, Phase::LameDuck),
        (503, Phase::Draining),
    ] {
        all.push(Sometimes::new(format!("probe: serving {status} in {phase}"), move |coverage| {
            coverage.probed("/serving", status, phase)
        }));
    }
    all.push(Sometimes::new("probe: readiness 200", |coverage| {
        coverage.probed("/readiness", 200, Phase::Serving)
    }));
}

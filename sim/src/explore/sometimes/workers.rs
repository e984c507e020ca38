//! States of a host with several workers or addresses.

use super::{Coverage, Sometimes};
use crate::scenario::Fault;
use lameduck::lifecycle::Phase;
use std::{collections::BTreeSet, time::Duration};

pub(super) fn workers(all: &mut Vec<Sometimes>) {
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("workers: {what}"), test));
    };
    state("each of several accepted connections", |coverage| {
        let accepted = coverage.history.server("accepted");
        let by: BTreeSet<_> = accepted.filter_map(|record| record.number("worker")).collect();
        by.len() > 1 && by.len() == coverage.history.scenario.workers
    });
    state("one accepted in the drain", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        coverage.history.server("accepted").any(|record| record.at >= draining)
    });
    state("a reordered shutdown", |coverage| {
        coverage.history.scenario.reordered && coverage.history.began(Phase::Draining).is_some()
    });
    // The faults must reach the loop of a worker, which is a task of its own.
    state("one seals its listener later than others", |coverage| {
        let sealed = || coverage.history.server("listener sealed").map(|record| record.at);
        sealed().min() != sealed().max()
    });
    state("the first seals its listener after another one in the same instant", |coverage| {
        let sealed = coverage.history.server("listener sealed");
        let first = sealed.clone().find(|record| record.number("worker") == Some(0));
        let at = first.map(|record| record.at);
        let mut others = sealed.take_while(|record| record.number("worker") != Some(0));
        others.any(|other| Some(other.at) == at)
    });
    state("a second address served", |coverage| {
        let second = |client: usize| client % 2 == 1;
        coverage.history.scenario.second_address
            && coverage.history.requests.iter().any(|observed| {
                second(observed.client) && observed.head.is_some_and(|(_, status, _)| status == 200)
            })
    });
    for phase in [Phase::LameDuck, Phase::Draining, Phase::Cancelling] {
        all.push(Sometimes::new(
            format!("workers: one stalled as {phase} begins"),
            move |coverage| {
                let Some(edge) = coverage.history.began(phase) else { return false };
                let scenario = coverage.history.scenario;
                scenario.faults.iter().any(|fault| {
                    let Fault::Stall { worker, at_ms, for_ms } = fault else { return false };
                    let from = Duration::from_millis(*at_ms);
                    *worker < scenario.workers
                        && from <= edge
                        && edge < from + Duration::from_millis(*for_ms)
                })
            },
        ));
    }
}

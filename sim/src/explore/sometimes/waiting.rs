//! States of handlers that take their time, on connections that are served without hyper.

use super::{Coverage, Sometimes};
use crate::{
    oracle::{ObservedRequest, RequestResult},
    scenario::{RareRequest, RequestKind, Traffic},
};

pub(super) fn waiting(all: &mut Vec<Sometimes>) {
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("a handler takes its time: {what}"), test));
    };
    state("on a connection without a task", |coverage| {
        coverage.late(|late, traffic, observed| {
            let parks = matches!(traffic, Traffic::KeepAlive { every_ms: 1_300.., .. });
            parks && observed.earlier > 0 && matches!(late, RareRequest::Late { .. })
        })
    });
    state("with a body that came with the head", |coverage| {
        coverage.late(|late, _, _| matches!(late, RareRequest::Late { body: 1.., .. }))
    });
    state("before a long response", |coverage| {
        coverage.late(|late, _, _| matches!(late, RareRequest::Late { bytes: 40_000.., .. }))
    });
    state("before the last response", |coverage| {
        coverage.late(|late, _, _| matches!(late, RareRequest::Late { closes: true, .. }))
    });
    state("while its client sends the next request", |coverage| {
        coverage.late(|late, traffic, _| {
            matches!(traffic, Traffic::Pipelined { every_ms: 1.., .. })
                && matches!(late, RareRequest::Late { ms: 30.., .. })
        })
    });
    state("and its client leaves after its next request", |coverage| {
        let sends = |traffic: &Traffic| matches!(traffic, Traffic::Leaves { next_ms: Some(_), .. });
        coverage.history.scenario.clients.iter().any(|client| sends(&client.traffic))
            && coverage.clients_did("leaves")
            && coverage.tally().is_some_and(|tally| tally.gone > 0)
    });
    state("at the limit of connections", |coverage| {
        coverage.history.scenario.limits.connections_max.is_some()
            && coverage.late(|_, traffic, _| matches!(traffic, Traffic::KeepAlive { .. }))
            && coverage.report().is_some_and(|report| report.connections.evicted > 0)
    });
}

impl Coverage<'_> {
    /// Whether a request whose handler takes its time got its response, and `is` accepts it.
    fn late(&self, is: impl Fn(RareRequest, Traffic, &ObservedRequest) -> bool) -> bool {
        self.history.requests.iter().any(|observed| {
            let Some(RequestKind::Rare(late @ RareRequest::Late { .. })) =
                self.history.request_kind(observed)
            else {
                return false;
            };
            let traffic = self.history.client(observed).map(|client| client.traffic);
            matches!(observed.end, Some((_, RequestResult::Completed(200, _))))
                && traffic.is_some_and(|traffic| is(*late, traffic, observed))
        })
    }
}

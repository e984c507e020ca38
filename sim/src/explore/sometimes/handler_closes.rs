//! States of responses whose handlers announce the close.

use super::{Coverage, Sometimes};
use crate::{
    oracle::{ObservedRequest, RequestResult},
    scenario::{CloseOption, RareRequest, RequestKind, Traffic},
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

pub(super) fn handler_closes(all: &mut Vec<Sometimes>) {
    for option in CloseOption::ALL {
        all.push(Sometimes::new(format!("handler closes: {option:?}"), move |coverage| {
            coverage.closes(|closes, _, observed| {
                matches!(closes, RareRequest::Closes { says, .. } if *says == option)
                    && !coverage.history.is_http2(observed)
            })
        }));
    }
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("handler closes: {what}"), test));
    };
    state("over HTTP/2", |coverage| {
        coverage.closes(|_, _, observed| coverage.history.is_http2(observed))
    });
    state("with a response of unknown length", |coverage| {
        coverage.closes(|closes, _, observed| {
            matches!(closes, RareRequest::Closes { chunked: true, .. })
                && !coverage.history.is_http2(observed)
        })
    });
    state("a next request crosses it, and counts as a close race", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        coverage.report().is_some_and(|report| report.connections.close_races > 0)
            && coverage.closes(|closes, traffic, observed| {
                matches!(closes, RareRequest::Closes { bytes: ..=14_000, .. })
                    && matches!(traffic, Traffic::Pipelined { every_ms: 1.., .. })
                    && observed.head.is_some_and(|(at, ..)| at < draining)
                    && coverage.is_followed(observed)
            })
    });
    state("a next request crosses a response of several round trips", |coverage| {
        coverage.closes(|closes, traffic, observed| {
            matches!(closes, RareRequest::Closes { bytes: 40_000.., .. })
                && matches!(traffic, Traffic::Pipelined { .. })
                && coverage.is_followed(observed)
        })
    });
    state("its client reads late, and has sent a next request", |coverage| {
        coverage.closes(|_, traffic, observed| {
            matches!(traffic, Traffic::Stalls { .. }) && coverage.is_followed(observed)
        })
    });
}

impl Coverage<'_> {
    /// Whether a request whose handler announces the close got its response, and `is` accepts it.
    fn closes(&self, is: impl Fn(&RareRequest, Traffic, &ObservedRequest) -> bool) -> bool {
        self.history.requests.iter().any(|observed| {
            let kind = self.history.request_kind(observed);
            let Some(RequestKind::Rare(closes @ RareRequest::Closes { .. })) = kind else {
                return false;
            };
            let traffic = self.history.client(observed).map(|client| client.traffic);
            matches!(observed.end, Some((_, RequestResult::Completed(200, _))))
                && traffic.is_some_and(|traffic| is(closes, traffic, observed))
        })
    }

    /// Whether the client had sent a later request on the connection before it had the response.
    fn is_followed(&self, observed: &ObservedRequest) -> bool {
        let end = observed.end.as_ref().map_or(Duration::MAX, |(at, _)| *at);
        self.history.requests.iter().any(|later| {
            (later.client, later.connection) == (observed.client, observed.connection)
                && later.earlier > observed.earlier
                && later.sent.is_some_and(|sent| sent < end)
        })
    }
}

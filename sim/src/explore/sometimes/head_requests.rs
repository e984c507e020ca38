//! States of requests with the method `HEAD`.

use super::{Coverage, Sometimes};
use crate::{
    oracle::{ObservedRequest, RequestResult},
    scenario::{RequestKind, StuckResponse, has_failing_body},
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Whether a response to such a request, which came before the cancellation or after it, is the
/// one.
type Is = fn(&RequestKind, status: u64, is_early: bool) -> bool;

const STATES: [(&str, Is); 6] = [
    ("a 503 for its deadline", |_, status, is_early| status == 503 && is_early),
    ("a 503 for the shutdown", |_, status, is_early| status == 503 && !is_early),
    ("a 500 for a panic", |kind, status, _| *kind == RequestKind::Panic && status == 500),
    ("no stream of unknown length", |kind, status, _| {
        let is_stream = matches!(
            kind,
            RequestKind::Stream(_)
                | RequestKind::Events
                | RequestKind::Stuck(_, StuckResponse::Chunked)
        );
        is_stream && status == 200
    }),
    ("no body that fails", |kind, _, _| has_failing_body(kind)),
    ("a long length", |kind, status, _| {
        matches!(kind, RequestKind::Bytes(20_000..)) && status == 200
    }),
];

pub(super) fn head_requests(all: &mut Vec<Sometimes>) {
    for (over, is_http2) in [("HTTP/1", false), ("HTTP/2", true)] {
        for (what, is) in STATES {
            let what = format!("head request: {what}, over {over}");
            all.push(Sometimes::new(what, move |coverage| {
                let cancelling = coverage.history.began(Phase::Cancelling);
                let cancelling = cancelling.unwrap_or(Duration::MAX);
                coverage.answered_head(is_http2, |observed, at, status| {
                    let kind = coverage.history.request_kind(observed);
                    matches!(kind, Some(RequestKind::HeadOf(kind))
                        if is(kind, status, at < cancelling))
                })
            }));
        }
        let what = format!("head request: a 431, over {over}");
        all.push(Sometimes::new(what, move |coverage| {
            coverage.answered_head(is_http2, |_, _, status| status == 431)
        }));
    }
}

impl Coverage<'_> {
    /// Whether a whole response to `HEAD` is one that `is` accepts.
    fn answered_head(
        &self,
        is_http2: bool,
        is: impl Fn(&ObservedRequest, Duration, u64) -> bool,
    ) -> bool {
        self.history.requests.iter().filter(|observed| observed.is_head).any(|observed| {
            let Some((at, RequestResult::Completed(status, _))) = observed.end else {
                return false;
            };
            self.history.is_http2(observed) == is_http2 && is(observed, at, status)
        })
    }
}

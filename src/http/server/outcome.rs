//! The outcome of each request, for an observer of the app's.

use crate::{
    lifecycle::Phase,
    runtime::Address,
    unwind::{AppValue, catch},
};
use http::{Method, StatusCode, Version};
use std::{fmt, sync::Arc, time::Duration};

/// How a request ended. Each request ends in exactly one way (P5c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestOutcome {
    /// The kernel has taken the complete response.
    Finished,
    /// The request's deadline, or its client's body timeout, expired.
    TimedOut,
    /// The host cut the request: at the end of a drain; in the drain, because its client made no
    /// progress for 5 s; because its response failed; or because another request of the client, a
    /// CONNECT with a `content-length`, ended the HTTP/2 connection.
    Aborted,
    /// The client left first.
    Gone,
}

impl RequestOutcome {
    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::TimedOut => "timed_out",
            Self::Aborted => "aborted",
            Self::Gone => "gone",
        }
    }
}

/// A request that has ended, as [`Builder::on_outcome`](crate::Builder::on_outcome) sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EndedRequest<'a> {
    /// How it ended.
    pub outcome: RequestOutcome,
    /// The method of the request.
    pub method: &'a Method,
    /// The path without the query, which may hold secrets.
    pub path: &'a str,
    /// The protocol of the connection: HTTP/1.1 or HTTP/2. A client of HTTP/1.0 counts as HTTP/1.1.
    pub version: Version,
    /// The client's address.
    pub peer: &'a Address,
    /// The status of the response; `None` if there was none.
    pub status: Option<StatusCode>,
    /// Bytes of the response body that were passed on to be sent. A client that left may have
    /// received fewer. 0 for the host's 503 to a request that timed out or was aborted: its body is
    /// written after the outcome.
    pub body_bytes: u64,
    /// Time from the complete request head until now.
    pub duration: Duration,
    /// The phase in which it ended.
    pub phase: Phase,
}

/// The app's observer of outcomes.
#[derive(Clone)]
pub(crate) struct OutcomeObserver(Arc<dyn Fn(&EndedRequest<'_>) + Send + Sync>);

impl OutcomeObserver {
    pub(crate) fn new(observe: impl Fn(&EndedRequest<'_>) + Send + Sync + 'static) -> Self {
        let observe = AppValue::new(observe);
        Self(Arc::new(move |ended: &EndedRequest<'_>| observe(ended)))
    }

    /// Calls the observer. A panic in it is logged and costs nothing else.
    pub(crate) fn observe(&self, outcome: &EndedRequest<'_>) {
        if let Err(panic) = catch(|| (self.0)(outcome)) {
            crate::log::error!(panic, "the outcome observer panicked");
        }
    }
}

impl fmt::Debug for OutcomeObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutcomeObserver")
    }
}

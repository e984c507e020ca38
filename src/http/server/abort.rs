//! Requests that were cut.

use crate::lifecycle::Phase;
use std::time::Duration;

/// A request that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedRequest {
    /// Its method.
    pub method: String,
    /// Its path, without the query, which may hold secrets.
    pub path: String,
    /// From its complete head to the cut.
    pub age: Duration,
    /// The phase in which it was cut.
    pub phase: Phase,
    /// Whether its client had received the head of an answer, and so got a reset; otherwise it got a 503, or a 500 if the length of
    /// its response was a contradiction.
    pub head_sent: bool,
    /// Whether the shutdown cut it, which makes the exit code 3; otherwise a response body failed, panicked or was not as long as its
    /// `content-length`, in whatever phase.
    pub by_shutdown: bool,
}

/// Who cut a request. Only what the shutdown cut makes the exit code 3 (P13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortCause {
    Shutdown,
    /// A body that failed, panicked, or was not as long as its head said: its own, or on HTTP/1 one behind it.
    Body,
    /// Its client, which took nothing of the response for the send timeout: the request is *gone*.
    Client,
}

//! Requests that were cut: aborted before their response was complete.

use crate::lifecycle::Phase;
use http::StatusCode;
use std::time::Duration;

/// A request that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AbortedRequest {
    /// The request's method, of a longer one the first 1,024 characters.
    pub method: String,
    /// The request's path, of a longer one the first 1,024 characters. It is without the query,
    /// which may hold secrets.
    pub path: String,
    /// Time from the complete head to the cut.
    pub age: Duration,
    /// The phase in which it was cut.
    pub phase: Phase,
    /// Whether a part of the response may have been written, so that the client got a reset.
    /// Otherwise it got a 503, a 500 if its response failed, or no response if a CONNECT ended its
    /// connection.
    pub head_sent: bool,
    /// Whether the shutdown cut the request, which makes the exit code 3. Otherwise, in whatever
    /// phase, a response body failed, panicked or did not match its `content-length`, or a CONNECT
    /// with a `content-length` ended the HTTP/2 connection.
    pub by_shutdown: bool,
}

/// The cause of a cut. Only a cut by the shutdown makes the exit code 3 (P13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortCause {
    Shutdown,
    /// A body that failed, panicked or did not match the length in its head. On HTTP/1 it may also
    /// be the body of a later response on the same connection, if the client does not read: a reset
    /// then ends the connection. Or a CONNECT, at which hyper drops an HTTP/2 connection.
    Body,
    /// The client, which received nothing of the response for the send timeout. The request counts
    /// as *gone*.
    Client,
}

impl AbortCause {
    /// Returns the status of the host's response if the head of the handler's was not written.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body | Self::Client => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

//! The point of the shutdown at which a streaming response ends.

use super::{response_body_error::ResponseBodyError, tracked_chunk::TrackedChunk};
use crate::http::server::state::PhaseTokens;
use http::{Response, header};
use http_body::{Body, Frame};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The point of the shutdown at which a streaming response ends. Set it in the response's
/// extensions.
///
/// Default: [`EndAtDraining`](Self::EndAtDraining) for a `text/event-stream` of unknown length, and
/// [`Finish`](Self::Finish) for every other response. A response whose head states its length
/// always finishes: an early end would make it incomplete.
///
/// ```
/// # use http::Response;
/// let mut response = Response::new("a long poll");
/// response.extensions_mut().insert(lameduck::StreamShutdown::EndAtCancel);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamShutdown {
    /// The body runs to its own end. It is cut when the drain and the cancel wait are over.
    #[default]
    Finish,
    /// The body ends regularly when the drain begins. For event streams, whose clients reconnect to
    /// another process.
    EndAtDraining,
    /// The body ends regularly when the root context is cancelled, after the drain.
    EndAtCancel,
}

impl StreamShutdown {
    pub(super) fn of<B: Body>(response: &Response<B>) -> Self {
        if let Some(class) = response.extensions().get::<Self>() {
            return *class;
        }
        if response.body().size_hint().exact().is_some() {
            return Self::Finish;
        }
        let is_event_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_event_stream { Self::EndAtDraining } else { Self::Finish }
    }
}

/// How the host ends a body before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlyEnd {
    /// The body ends early as its `StreamShutdown` says. The response is complete.
    Complete,
    Cut,
    /// The deadline of a gRPC call has passed.
    TimedOut,
}

impl EarlyEnd {
    pub(super) fn into_frame(self) -> Option<Result<Frame<TrackedChunk>, ResponseBodyError>> {
        match self {
            Self::Complete => None,
            Self::Cut => Some(Err(ResponseBodyError::Cut)),
            Self::TimedOut => Some(Err(ResponseBodyError::TimedOut)),
        }
    }
}

/// Whether the remaining length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownLength {
    Yes,
    No,
}

/// Futures that wake a pending body at the shutdown. Created at the first wait, since most bodies
/// never wait.
#[derive(Debug)]
pub(super) struct ShutdownWaits {
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl ShutdownWaits {
    pub(super) fn new(class: StreamShutdown, tokens: &PhaseTokens) -> Self {
        let end = match class {
            StreamShutdown::Finish => None,
            StreamShutdown::EndAtDraining => Some(&tokens.draining),
            StreamShutdown::EndAtCancel => Some(&tokens.root),
        };
        Self {
            abort: Box::pin(tokens.abort.clone().cancelled_owned()),
            end: end.map(|end| Box::pin(end.clone().cancelled_owned())),
        }
    }

    /// Ready once the shutdown cuts or ends the body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let aborted = self.abort.as_mut().poll(cx).is_ready();
        let ended = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if aborted || ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

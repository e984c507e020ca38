//! The point of the shutdown at which a streaming response ends.

use super::{
    grpc, request_state::RequestState, response_body_error::ResponseBodyError,
    tracked_chunk::TrackedChunk,
};
use http::{Response, header};
use http_body::{Body, Frame};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The content type of an event stream. Its letters may be in either case (RFC 9110 §8.3.1).
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// The point of the shutdown at which a streaming response ends. Set it in the response's
/// extensions.
///
/// Default: [`EndAtDraining`](Self::EndAtDraining) for a `text/event-stream` of unknown length and
/// for a watch of gRPC's health, [`Finish`](Self::Finish) for every other response, and for one
/// whose handler called [`RequestContext::stream_end`](crate::RequestContext::stream_end). A
/// response whose head states its length always finishes: an early end would make it incomplete.
///
/// A gRPC call that ends early gets trailers with the status UNAVAILABLE, so that its client does
/// not take it for complete and may repeat it.
///
/// ```
/// # use http::Response;
/// let mut response = Response::new("a long poll");
/// response.extensions_mut().insert(lameduck::StreamShutdown::EndAtCancel);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamShutdown {
    /// The body runs to its own end. It is cut 250 ms before the cancel wait ends, unless the rest
    /// of it has a known length and is ready.
    #[default]
    Finish,
    /// The body ends regularly when the drain begins. For event streams, whose clients reconnect to
    /// another process.
    EndAtDraining,
    /// The body ends regularly when ordinary requests are cancelled, at the end of their drain.
    EndAtCancel,
    /// The body is a long stream, with a separate budget: [`Plan::streams`], counted from the
    /// start of the drain. It ends regularly at a moment in it that is drawn from the seed. So the
    /// clients of many streams do not reconnect at once. Without a budget the moment is the begin
    /// of the drain.
    ///
    /// Also for a response that changes the protocol, such as the 101 of a WebSocket. The host does
    /// not know the new protocol: its code waits for [`RequestContext::stream_end`] and ends it.
    ///
    /// [`Plan::streams`]: crate::lifecycle::Plan::streams
    /// [`RequestContext::stream_end`]: crate::RequestContext::stream_end
    EndSpread,
}

impl StreamShutdown {
    pub(super) fn of<B: Body>(response: &Response<B>, request: &RequestState) -> Self {
        if let Some(class) = response.extensions().get::<Self>() {
            return *class;
        }
        if response.body().size_hint().exact().is_some() {
            return Self::Finish;
        }
        if request.is_stream() {
            // Its code ends it: it called `RequestContext::stream_end`.
            return Self::Finish;
        }
        if request.is_call() && request.has_path(grpc::HEALTH_WATCH) {
            return Self::EndAtDraining;
        }
        let is_event_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.as_bytes().get(..EVENT_STREAM.len()))
            .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
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
    CallDeadline,
}

impl EarlyEnd {
    pub(super) fn into_frame(self) -> Option<Result<Frame<TrackedChunk>, ResponseBodyError>> {
        match self {
            Self::Complete => None,
            Self::Cut => Some(Err(ResponseBodyError::Cut)),
            Self::CallDeadline => Some(Err(ResponseBodyError::CallDeadline)),
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
pub(super) struct ShutdownWaits {
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl fmt::Debug for ShutdownWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownWaits").finish_non_exhaustive()
    }
}

impl ShutdownWaits {
    pub(super) fn new(class: StreamShutdown, request: &Arc<RequestState>) -> Self {
        let end: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>> = match class {
            StreamShutdown::Finish => None,
            StreamShutdown::EndAtDraining => {
                Some(Box::pin(request.server().tokens.draining.clone().cancelled_owned()))
            }
            StreamShutdown::EndAtCancel => Some(Box::pin(request.root().clone().cancelled_owned())),
            StreamShutdown::EndSpread => {
                let request = request.clone();
                Some(Box::pin(async move { request.stream_ended().await }))
            }
        };
        Self { abort: Box::pin(request.abort().clone().cancelled_owned()), end }
    }

    /// Ready once the shutdown cuts or ends the body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let aborted = self.abort.as_mut().poll(cx).is_ready();
        let ended = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if aborted || ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

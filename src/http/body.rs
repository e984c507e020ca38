//! The body of a request, on its way to the handler.

use super::{RequestContext, request::Request};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// The body of a request.
///
/// It is hyper's, and tells its connection when nobody holds it any more: a connection whose body is held is never taken for
/// idle.
#[derive(Debug)]
pub struct Body {
    /// `None` if there is nothing to read, and never was.
    incoming: Option<Incoming>,
    // After what is hyper's, so that hyper sees it dropped before the connection does.
    held: Held,
}

/// Tells the connection when the body is dropped.
#[derive(Debug)]
struct Held {
    context: RequestContext,
    rest: Rest,
}

/// What of it the handler has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// There was nothing to read.
    NeverAny,
    Unread,
    Read,
}

impl Body {
    pub(crate) fn new(incoming: Option<Incoming>, request: Arc<Request>) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let rest = if incoming.is_none() { Rest::NeverAny } else { Rest::Unread };
        if rest == Rest::Unread {
            request.link.on_body_held();
        }
        Self { incoming, held: Held { context: RequestContext(request), rest } }
    }

    /// The context of the request that this is the body of.
    #[must_use]
    pub fn context(&self) -> &RequestContext {
        &self.held.context
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let me = self.get_mut();
        let Some(incoming) = &mut me.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        me.held.context.0.link.on_body_awaited(polled.is_pending());
        if matches!(polled, Poll::Ready(None)) || incoming.is_end_stream() {
            me.held.rest = Rest::Read;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.rest != Rest::NeverAny {
            self.context.0.link.on_body_dropped(self.rest == Rest::Unread);
        }
    }
}

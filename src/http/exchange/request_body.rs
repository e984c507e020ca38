//! The body of a request, as the handler reads it.

use super::{
    connection_state::Protocol,
    context::RequestContext,
    request_state::{BodyRead, RequestState},
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// The body of a request, which carries the request's [context](Self::context).
///
/// It implements [`http_body::Body`]. While a body exists, its connection does not count as idle.
#[derive(Debug)]
pub struct Body {
    /// `None` if the request has no body, or an empty one.
    incoming: Option<Incoming>,
    // Declared after `incoming`, so that hyper sees the drop before the connection does.
    on_drop: DropNotifier,
}

/// Records in the connection state that the body was dropped.
#[derive(Debug)]
struct DropNotifier {
    context: RequestContext,
    read: BodyRead,
}

impl Body {
    pub(crate) fn new(incoming: Option<Incoming>, request: Arc<RequestState>) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let is_http1 = request.connection.protocol == Protocol::Http1;
        let read = match &incoming {
            None => BodyRead::Absent,
            Some(incoming) if is_http1 && incoming.size_hint().exact().is_none() => {
                BodyRead::ChunksUnread
            }
            Some(_) => BodyRead::Unread,
        };
        if read != BodyRead::Absent {
            request.connection.bodies.on_body_held();
            request.expect_body(read);
        }
        Self { incoming, on_drop: DropNotifier { context: RequestContext(request), read } }
    }

    /// The context of the request.
    #[must_use]
    pub fn context(&self) -> &RequestContext {
        &self.on_drop.context
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let me = self.get_mut();
        let Some(incoming) = &mut me.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let request = &*me.on_drop.context.0;
        match &polled {
            Poll::Pending => request.begin_body_wait(cx.waker()),
            Poll::Ready(frame) => {
                let frame = frame.as_ref().and_then(|frame| frame.as_ref().ok());
                request.end_body_wait(frame.and_then(Frame::data_ref).map_or(0, Bytes::len));
            }
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                me.on_drop.set(BodyRead::WithTrailers);
            }
            Poll::Ready(None) => me.on_drop.set(BodyRead::Complete),
            Poll::Ready(_) if incoming.is_end_stream() => me.on_drop.set(BodyRead::Complete),
            Poll::Ready(_) | Poll::Pending => {}
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

impl DropNotifier {
    fn set(&mut self, read: BodyRead) {
        if self.read != BodyRead::WithTrailers {
            self.read = read;
            self.context.0.set_body(read);
        }
    }
}

impl Drop for DropNotifier {
    fn drop(&mut self) {
        if self.read != BodyRead::Absent {
            let unread = matches!(self.read, BodyRead::Unread | BodyRead::ChunksUnread);
            self.context.0.end_body_wait(0);
            self.context.0.connection.bodies.on_body_dropped(unread);
        }
    }
}

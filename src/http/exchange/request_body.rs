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
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Shorter frames of a body are copied. Each would otherwise hold a whole read buffer, so that a
/// handler that collects its body would hold thousands of bytes for one that the client has sent.
const COPIED_BELOW: usize = 4 * 1024;

/// The body of a request, which carries the request's [context](Self::context).
///
/// It implements [`http_body::Body`]. While a body exists that did not arrive with its head, its
/// connection does not count as idle. On HTTP/2 this ends when all of the body was read. If a task
/// waits for more of it after the response, the client has the
/// [body timeout](crate::Limits::body_timeout). After that HTTP/1 closes the connection, and an
/// HTTP/2 connection counts as idle.
pub struct Body {
    source: Source,
    // Declared after `source`, so that hyper sees the drop before the connection does.
    on_drop: DropNotifier,
}

enum Source {
    /// The request has no body, or an empty one, or all of it was read.
    Absent,
    /// hyper reads the body.
    Incoming(Incoming),
    /// The body arrived with the head.
    Arrived(Bytes),
}

/// Records in the connection state that the body was dropped.
#[derive(Debug)]
struct DropNotifier {
    context: RequestContext,
    read: BodyRead,
}

impl Body {
    /// Wraps a body that hyper reads.
    pub(crate) fn new(incoming: Incoming, request: Arc<RequestState>) -> Self {
        if incoming.is_end_stream() {
            return Self::arrived(None, request);
        }
        let is_http1 = request.connection.protocol == Protocol::Http1;
        let read = if is_http1 && incoming.size_hint().exact().is_none() {
            BodyRead::ChunksUnread
        } else {
            BodyRead::Unread
        };
        request.connection.bodies.on_body_held(Arc::as_ptr(&request));
        request.expect_body(read);
        let source = Source::Incoming(incoming);
        Self { source, on_drop: DropNotifier { context: RequestContext(request), read } }
    }

    /// Wraps a body that arrived with its head. No bytes of it are left in the connection, so its
    /// handler waits for no client, and its drop needs no record.
    pub(crate) fn arrived(bytes: Option<Bytes>, request: Arc<RequestState>) -> Self {
        let source = bytes.map_or(Source::Absent, Source::Arrived);
        let context = RequestContext(request);
        Self { source, on_drop: DropNotifier { context, read: BodyRead::Absent } }
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
        let incoming = match &mut me.source {
            // If the response has ended before, hyper reports the end with the next request only.
            Source::Incoming(_) if me.on_drop.read == BodyRead::Complete => {
                return Poll::Ready(None);
            }
            Source::Incoming(incoming) => incoming,
            Source::Absent => return Poll::Ready(None),
            Source::Arrived(bytes) => {
                let bytes = mem::take(bytes);
                me.source = Source::Absent;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let request = &me.on_drop.context.0;
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
        polled.map_ok(|frame| frame.map_data(without_its_buffer))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Absent => true,
            Source::Incoming(incoming) => incoming.is_end_stream(),
            Source::Arrived(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Absent => SizeHint::with_exact(0),
            Source::Incoming(incoming) => incoming.size_hint(),
            Source::Arrived(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

fn without_its_buffer(data: Bytes) -> Bytes {
    if data.len() < COPIED_BELOW { Bytes::copy_from_slice(&data) } else { data }
}

// Without the bytes, which may be secret.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl DropNotifier {
    fn set(&mut self, read: BodyRead) {
        if self.read != BodyRead::WithTrailers {
            let was_held = self.is_held();
            self.read = read;
            let request = &self.context.0;
            request.set_body(read);
            request.connection.bodies.on_body_whole(Arc::as_ptr(request));
            if was_held && !self.is_held() {
                request.connection.bodies.on_body_dropped();
            }
        }
    }

    /// Whether the body counts as held. On HTTP/2 it does so only until all of it was read.
    fn is_held(&self) -> bool {
        match self.read {
            BodyRead::Absent => false,
            BodyRead::Unread | BodyRead::ChunksUnread => true,
            BodyRead::Complete | BodyRead::WithTrailers => {
                self.context.0.connection.protocol == Protocol::Http1
            }
        }
    }
}

impl Drop for DropNotifier {
    fn drop(&mut self) {
        if self.read != BodyRead::Absent {
            let request = &self.context.0;
            request.end_body_wait(0);
            if matches!(self.read, BodyRead::Unread | BodyRead::ChunksUnread) {
                request.connection.bodies.on_body_unread(Arc::as_ptr(request));
            }
            if self.is_held() {
                request.connection.bodies.on_body_dropped();
            }
        }
    }
}

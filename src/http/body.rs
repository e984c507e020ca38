//! The body of a request, on its way to the handler.

use super::link::Link;
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
    incoming: Incoming,
    /// Absent where there is nothing to read.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    link: Arc<Link>,
    unread: bool,
}

impl Body {
    pub(crate) fn new(incoming: Incoming, link: &Arc<Link>) -> Self {
        let held = (!incoming.is_end_stream()).then(|| {
            link.on_body_held();
            Held { link: link.clone(), unread: true }
        });
        Self { incoming, held }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let me = self.get_mut();
        let polled = Pin::new(&mut me.incoming).poll_frame(cx);
        if let Some(held) = &mut me.held {
            held.link.on_body_awaited(polled.is_pending());
            held.unread &= !matches!(polled, Poll::Ready(None)) && !me.incoming.is_end_stream();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.link.on_body_dropped(self.unread);
    }
}

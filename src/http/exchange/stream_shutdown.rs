//! The point of the shutdown at which a streaming response ends.

use http::{Response, header};
use http_body::Body;

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

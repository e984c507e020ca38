//! The point of the shutdown at which a streaming response ends.

use http::{Response, header};
use http_body::Body;

/// When an answer whose body streams is ended by the shutdown. Put it into the response's extensions to choose.
///
/// Without one, an answer of the type `text/event-stream` whose length is not known ends at draining, every other finishes. So does,
/// whatever its class, one whose head says how long it is: an early end would be no end of it.
///
/// ```
/// # use http::Response;
/// let mut response = Response::new("a long poll");
/// response.extensions_mut().insert(lameduck::StreamShutdown::EndAtCancel);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamShutdown {
    /// It runs to its own end, as long as the drain and the cancel wait last; then it is cut. The default.
    #[default]
    Finish,
    /// It ends, whole, when the drain begins: event streams, whose clients reconnect to somebody else.
    EndAtDraining,
    /// It ends, whole, when the root context is cancelled.
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

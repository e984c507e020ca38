//! The context of a request, for its handler.

use super::{request_end::CancelCause, request_state::RequestState};
use crate::http::server::tracked::WorkOrigin;
use crate::{
    lifecycle::{Moment, Phase},
    runtime::Address,
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The context of one request (P9): its deadline, its cancellation, the app's version, the phase of
/// the process.
///
/// A tower service finds it in the request's extensions, which is `Extension<RequestContext>` in
/// axum; a hyper service in the request's [`Body`](crate::Body::context). With the feature `axum`
/// it is an extractor: `async fn handler(context: RequestContext)`. Clones are cheap and refer to
/// the same request. [`TestHost`](crate::TestHost) makes contexts for unit tests of handlers.
///
/// ```
/// # async fn work() -> &'static str { "done" }
/// async fn handler(context: lameduck::RequestContext) -> &'static str {
///     tokio::select! {
///         biased;
///         response = work() => response,
///         () = context.cancelled() => "gave up in time",
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RequestContext(pub(crate) Arc<RequestState>);

impl RequestContext {
    /// The version of the app, from the [settings](crate::Settings::app_version).
    #[must_use]
    pub fn app_version(&self) -> &str {
        &self.0.server().config.app_version
    }

    /// The current phase of the process.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.process().phase()
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> &Address {
        &self.0.connection.peer
    }

    /// The local address of the connection.
    #[must_use]
    pub fn local(&self) -> &Address {
        &self.0.connection.local
    }

    /// The time at which the response head is due, by the host's clock; `None` for no deadline.
    /// Then the context is cancelled, the handler dropped, and the client gets a 503, or the status
    /// DEADLINE_EXCEEDED of gRPC. The deadline does not cut a body that is being sent; the timeout
    /// that the client of a gRPC call has set (`grpc-timeout`) does.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let at = self.0.deadline();
        (at != Moment::NEVER).then_some(at)
    }

    /// The time until the deadline; zero once it has passed, `None` for no deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|at| at.since(self.0.server().clock.now()))
    }

    /// Sets the timeout of this request, counted from its complete head; `None` removes the
    /// deadline. A gRPC call never outlasts the timeout that its client has set. For a whole route
    /// in axum or tower see [`RouteTimeout`](crate::RouteTimeout).
    ///
    /// Set it in the future of the handler itself. A shorter timeout that another task sets while
    /// the handler waits holds from the next poll of the handler on.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.0.set_deadline(timeout.map_or(Moment::NEVER, |timeout| self.0.arrived + timeout));
    }

    /// Ready when the context is cancelled: at the request's deadline, when its client has shut its
    /// side of the connection, is gone or makes no progress for a timeout (in the drain at most
    /// 5 s), when its response body fails, when a CONNECT of the client ends the HTTP/2 connection,
    /// or when the drain ends. [`cancel_cause`](Self::cancel_cause) says which.
    ///
    /// A client that has shut its side of an HTTP/1 connection may still read the response, and
    /// gets it unless [`Limits::half_close`](crate::Limits::half_close) says otherwise. A handler
    /// that should not run for a client that may have left returns at this cause, too. The host
    /// notices it at once, or within a second if the client has already sent its next request or
    /// resets the connection afterwards.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn cancelled(&self) {
        self.0.cancellation().cancelled().await;
    }

    /// Whether the context is cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancellation().is_cancelled()
    }

    /// Why the context was cancelled; `None` if it is not, or only by its
    /// [token](Self::cancellation_token).
    #[must_use]
    pub fn cancel_cause(&self) -> Option<CancelCause> {
        self.0.cancel_cause()
    }

    /// The cancellation as a token, for libraries. Cancelling it cancels only this request's
    /// context.
    ///
    /// Keep a clone of the context as long as the token. Once the request has ended and its last
    /// context is dropped, a token that is left is cancelled only with the root context. That is
    /// after the long streams, not at the end of the drain of ordinary requests.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.cancellation().clone()
    }

    /// Ready from the stop request on: readiness fails, everything is still served.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn stopping(&self) {
        self.0.process().tokens.stopping.cancelled().await;
    }

    /// Ready once the drain begins: the moment for event streams to end. A client of a stream that
    /// ends earlier may reconnect to the same process.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.0.process().tokens.draining.cancelled().await;
    }

    /// Ready once the server of this request drains. The internal server drains after the main one.
    #[cfg(feature = "profiles")]
    pub(crate) async fn server_draining(&self) {
        self.0.server().tokens.draining.cancelled().await;
    }

    /// Ready when this long stream should end: at its moment in the drain, which is drawn from the
    /// seed, evenly over [`Plan::streams`](crate::lifecycle::Plan::streams); at the latest when the
    /// root context is cancelled. For streams that close by their own protocol, such as a WebSocket
    /// with the close code 1001.
    ///
    /// From the call on the request is a long stream, as with
    /// [`StreamShutdown::EndSpread`](crate::StreamShutdown::EndSpread): call it only in the handler
    /// of one, or in the code that runs the protocol after an upgrade.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing. The request stays a long stream.
    pub fn stream_end(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.0.begin_stream();
        let request = self.0.clone();
        async move {
            request.stream_ended().await;
            request.count_stream_end();
        }
    }

    /// Spawns work that may outlive the response and that the drain waits for. It is dropped 250 ms
    /// before the cancel wait ends; to end in time, watch [`draining`](Self::draining) or
    /// [`root_cancelled`](Self::root_cancelled).
    ///
    /// It runs on the current runtime, which is the worker's single-threaded one under
    /// [`run`](crate::run): work that blocks stalls that worker and its connections. Use
    /// `spawn_blocking` for it.
    ///
    /// # Panics
    /// If called outside a tokio runtime. A panic inside `work` ends only that work. It is logged
    /// with the request's method and path, and makes the exit code 1, or 3 if the shutdown also cut
    /// requests or work.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let origin = WorkOrigin::of_request(self.0.method_and_path());
        let request = self.0.clone();
        self.0.process().spawn(origin, move || request.is_stream(), work);
    }

    /// Ready once the root context is cancelled, after the drain: return now. While long streams go
    /// on, it is ready for other requests when their drain ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn root_cancelled(&self) {
        self.0.root_cancelled().await;
    }
}

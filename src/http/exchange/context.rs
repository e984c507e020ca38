//! The context of a request, for its handler.

use super::request_state::{CancelCause, RequestState};
use crate::http::server::tracked::WorkOrigin;
use crate::{
    lifecycle::{Moment, Phase},
    runtime::Address,
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The context of one request, derived from the host's root (P9): its deadline, its cancellation, the app's version, the phase
/// of the process.
///
/// A hyper service finds it in the request's [`Body`](crate::Body::context); a tower service in the request's extensions, which is
/// `Extension<RequestContext>` in axum.
/// With the feature `axum` it is an extractor of its own: `async fn handler(context: RequestContext)`.
/// Clones are cheap and refer to the same request. For unit tests of handlers, [`TestHost`](crate::TestHost) makes contexts.
///
/// ```
/// # async fn work() -> &'static str { "done" }
/// async fn handler(context: lameduck::RequestContext) -> &'static str {
///     tokio::select! {
///         biased;
///         answer = work() => answer,
///         () = context.cancelled() => "gave up in time",
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RequestContext(pub(crate) Arc<RequestState>);

impl RequestContext {
    /// The version of the app, as the host was told it.
    #[must_use]
    pub fn app_version(&self) -> &str {
        &self.0.server().config.app_version
    }

    /// The phase of the process, now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.server().phase()
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> &Address {
        &self.0.connection.peer
    }

    /// The address of ours that the client came to.
    #[must_use]
    pub fn local(&self) -> &Address {
        &self.0.connection.local
    }

    /// When the head of the answer must be there, by the host's clock; `None` if this request has no deadline. At it the
    /// context is cancelled, the handler dropped, and the client gets a 503. A body that streams is not cut by it.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let at = self.0.deadline();
        (at != Moment::NEVER).then_some(at)
    }

    /// The time left until the deadline; zero once it has passed, `None` if there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|at| at.since(self.0.server().clock.now()))
    }

    /// Gives this request a time of its own, counted from its complete head; `None` takes the deadline away. For a whole route
    /// in axum or tower see [`RouteTimeout`](crate::RouteTimeout).
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.0.set_deadline(timeout.map_or(Moment::NEVER, |timeout| self.0.arrived + timeout));
    }

    /// Ready when the context is cancelled: at the request's deadline, when its client has shut its side
    /// of the connection or is gone, when its response body fails, or when the drain is over.
    /// [`cancel_cause`](Self::cancel_cause) says which.
    ///
    /// A client that has shut its side of an HTTP/1 connection may still read the response, and gets it
    /// unless [`Limits::half_close`](crate::Limits::half_close) says otherwise. A handler that should not
    /// run for a client that may have left returns at this cause, too. It is noticed at once; where the
    /// client has sent a next request before it, or resets the connection after it, within a second.
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

    /// The cancellation as a token, to hand to libraries. Cancelling it cancels this request's context alone.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.cancellation().clone()
    }

    /// Ready from the stop request on: readiness fails, all is still served.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn stopping(&self) {
        self.0.server().tokens.stopping.cancelled().await;
    }

    /// Ready once the drain begins: the moment for event streams to end. Ended earlier, a client would reconnect to the very
    /// same lame duck.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.0.server().tokens.draining.cancelled().await;
    }

    /// Runs work that may outlive the answer, and that the drain waits for. When the cancel wait is nearly over it is dropped;
    /// to end in time, watch [`draining`](Self::draining), or the root's [`cancelled`](Self::root_cancelled).
    ///
    /// It runs on the worker of whoever calls it, a single-threaded runtime under [`run`](crate::run): work that blocks holds that
    /// worker and its connections. Leave what blocks to `spawn_blocking`.
    ///
    /// # Panics
    /// If called outside a tokio runtime. A panic inside `work` ends that work alone; it is logged with the request's method and
    /// path, and makes the exit code 1.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let origin = WorkOrigin::of_request(self.0.method_and_path());
        self.0.server().spawn(origin, work);
    }

    /// Ready once the root context is cancelled, after the drain: all that still runs is asked to return.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn root_cancelled(&self) {
        self.0.server().tokens.root.cancelled().await;
    }
}

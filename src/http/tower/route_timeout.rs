//! A deadline of its own for a route, as a tower layer.

use crate::http::exchange::context::RequestContext;
use std::{
    task::{Context, Poll},
    time::Duration,
};

/// Gives the requests that pass it a time of their own instead of the host's (P9), counted from the complete head.
///
/// A [tower layer](https://docs.rs/tower-layer): in axum, `get(handler).layer(RouteTimeout::after(Duration::from_secs(30)))`.
/// Outside a lameduck host it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeout(Option<Duration>);

impl RouteTimeout {
    /// The head of the answer must be there after this long.
    #[must_use]
    pub const fn after(timeout: Duration) -> Self {
        Self(Some(timeout))
    }

    /// No deadline: long polls, slow reports.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl<S> tower_layer::Layer<S> for RouteTimeout {
    type Service = RouteTimeoutService<S>;

    fn layer(&self, inner: S) -> RouteTimeoutService<S> {
        RouteTimeoutService { inner, timeout: self.0 }
    }
}

/// The service that [`RouteTimeout`] makes.
#[derive(Clone, Debug)]
pub struct RouteTimeoutService<S> {
    inner: S,
    timeout: Option<Duration>,
}

impl<S, B> tower_service::Service<http::Request<B>> for RouteTimeoutService<S>
where
    S: tower_service::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        if let Some(context) = request.extensions().get::<RequestContext>() {
            context.set_timeout(self.timeout);
        }
        self.inner.call(request)
    }
}

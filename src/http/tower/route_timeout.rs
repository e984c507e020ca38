//! The deadline of a route, as a tower layer.

use crate::http::exchange::context::RequestContext;
use std::{
    task::{Context, Poll},
    time::Duration,
};

/// Replaces the host's request timeout for the requests of a route (P9). The time counts from the
/// complete request head.
///
/// It is a [tower layer](https://docs.rs/tower-layer). In axum:
/// `get(handler).layer(RouteTimeout::after(Duration::from_secs(30)))`.
/// It has no effect outside a lameduck host, nor while the service that it wraps is not ready: put
/// it around a service that is always ready, and a limit on concurrency around both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteTimeout(Option<Duration>);

impl RouteTimeout {
    /// Returns a layer under which the response head must be ready within `timeout`.
    #[must_use]
    pub const fn after(timeout: Duration) -> Self {
        Self(Some(timeout))
    }

    /// Returns a layer under which requests have no deadline, for long polls and slow reports.
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

/// The service that [`RouteTimeout`] returns.
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

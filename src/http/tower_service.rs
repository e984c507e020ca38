//! A tower service as a hyper service, which finds the context of its request where tower looks for such things.

use super::Body;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tower_service::Service;

/// A tower service, such as an axum `Router`, hosted: [`Builder::tower`](crate::Builder::tower) makes it.
///
/// Each request carries its [`RequestContext`](super::RequestContext) in its extensions, which a hyper service does not pay for.
#[derive(Clone, Copy, Debug)]
pub struct TowerService<S>(S);

impl<S> TowerService<S> {
    pub(crate) const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> hyper::service::Service<http::Request<Body>> for TowerService<S>
where
    S: Service<http::Request<Body>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S>;

    fn call(&self, mut request: http::Request<Body>) -> Self::Future {
        let context = request.body().context().clone();
        request.extensions_mut().insert(context);
        let mut service = self.0.clone();
        // Most services are always ready, and a request that need not wait for its service is moved about less often. Whoever is
        // not ready is asked again, by who can be woken.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Answering::Called { future: service.call(request) },
            Poll::Ready(Err(error)) => Answering::Refused { error: Some(error) },
            Poll::Pending => {
                let service = TowerToHyperService::new(service);
                Answering::Waiting { future: hyper::service::Service::call(&service, request) }
            }
        }
    }
}

pin_project! {
    /// The answer of a tower service, under way.
    #[project = AnsweringProjection]
    pub enum Answering<S>
    where
        S: Service<http::Request<Body>>,
    {
        /// The service was ready.
        Called {
            #[pin]
            future: S::Future,
        },
        /// It was not, and is waited for.
        Waiting {
            #[pin]
            future: TowerToHyperServiceFuture<S, http::Request<Body>>,
        },
        /// It will not be.
        Refused {
            error: Option<S::Error>,
        },
    }
}

impl<S> Future for Answering<S>
where
    S: Service<http::Request<Body>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringProjection::Called { future } => future.poll(cx),
            AnsweringProjection::Waiting { future } => future.poll(cx),
            AnsweringProjection::Refused { error } => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl<S: Service<http::Request<Body>>> fmt::Debug for Answering<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Called { .. } => "Called",
            Self::Waiting { .. } => "Waiting",
            Self::Refused { .. } => "Refused",
        })
    }
}

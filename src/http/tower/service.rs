//! Adapter from a tower service to a hyper service. It puts the request context into the request's
//! extensions, where tower services expect it.

use crate::http::exchange::{
    http_service::{BoxError, HttpService},
    request_body::Body,
};
use crate::runtime::Address;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use pin_project_lite::pin_project;
use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tower_service::Service;

/// A hosted tower service, such as an axum `Router`. Made by
/// [`Builder::serve`](crate::Builder::serve).
///
/// Each request carries its [`RequestContext`](crate::http::exchange::context::RequestContext) in
/// its extensions. A hyper service avoids that cost.
#[derive(Clone, Copy, Debug)]
pub struct TowerService<S>(S);

impl<S> TowerService<S> {
    pub(super) const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> hyper::service::Service<http::Request<Body>> for TowerService<S>
where
    S: Service<http::Request<Body>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TowerFuture<S>;

    fn call(&self, mut request: http::Request<Body>) -> Self::Future {
        let context = request.body().context().clone();
        request.extensions_mut().insert(context);
        let mut service = self.0.clone();
        // Most services are always ready, and a request that need not wait for its service is moved
        // less often. A service that is not ready is polled again, with the task's waker.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => TowerFuture::CallFuture { future: service.call(request) },
            Poll::Ready(Err(error)) => TowerFuture::Refused { error: Some(error) },
            Poll::Pending => {
                let service = TowerToHyperService::new(service);
                TowerFuture::Waiting { future: hyper::service::Service::call(&service, request) }
            }
        }
    }
}

pin_project! {
    /// The response future of a [`TowerService`].
    #[project = TowerFutureProjection]
    pub enum TowerFuture<S>
    where
        S: Service<http::Request<Body>>,
    {
        /// The service was ready.
        CallFuture {
            #[pin]
            future: S::Future,
        },
        /// The service was not ready; the request waits for it.
        Waiting {
            #[pin]
            future: TowerToHyperServiceFuture<S, http::Request<Body>>,
        },
        /// The readiness of the service failed.
        Refused {
            error: Option<S::Error>,
        },
    }
}

impl<S> Future for TowerFuture<S>
where
    S: Service<http::Request<Body>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            TowerFutureProjection::CallFuture { future } => future.poll(cx),
            TowerFutureProjection::Waiting { future } => future.poll(cx),
            TowerFutureProjection::Refused { error } => {
                error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
        }
    }
}

impl<S: Service<http::Request<Body>>> fmt::Debug for TowerFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CallFuture { .. } => "Called",
            Self::Waiting { .. } => "Waiting",
            Self::Refused { .. } => "Refused",
        })
    }
}

/// Argument of [`Builder::serve`](crate::Builder::serve): a tower service, or a service that makes
/// one for a client's address.
///
/// `Kind` distinguishes the two, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be hosted by `Builder::serve`",
    note = "it takes a `tower::Service<http::Request<lameduck::Body>>` that is `Clone + Send + \
            Sync + 'static`, such as an axum `Router`, or a \
            `Router::into_make_service_with_connect_info`"
)]
pub trait IntoHttpService<Kind> {
    /// The hyper service that the host runs.
    type Service: HttpService;

    /// Converts the tower service into the hyper service.
    fn into_http_service(self) -> Self::Service;
}

/// The `Kind` of an [`IntoHttpService`] that is itself a service.
#[derive(Clone, Copy, Debug)]
pub struct OfRequests(());

/// The `Kind` of an [`IntoHttpService`] that makes a service for an address of type `A`.
#[derive(Clone, Copy, Debug)]
pub struct OfPeers<A>(PhantomData<A>);

impl<S> IntoHttpService<OfRequests> for S
where
    TowerService<S>: HttpService,
{
    type Service = TowerService<S>;

    fn into_http_service(self) -> TowerService<S> {
        TowerService::new(self)
    }
}

/// As in axum's `serve`. Clients of a Unix socket have no `SocketAddr`: they receive a 500, and the
/// reason is logged.
impl<M> IntoHttpService<OfPeers<SocketAddr>> for M
where
    TowerMakeService<M, SocketAddr>: HttpService,
{
    type Service = TowerMakeService<M, SocketAddr>;

    fn into_http_service(self) -> Self::Service {
        TowerMakeService {
            make: self,
            address: |peer| peer.tcp().ok_or_else(|| NoTcpAddress(peer.clone())),
        }
    }
}

/// For `impl axum::extract::connect_info::Connected<lameduck::runtime::Address>`, which covers TCP
/// clients and clients of a Unix socket.
impl<M> IntoHttpService<OfPeers<Address>> for M
where
    TowerMakeService<M, Address>: HttpService,
{
    type Service = TowerMakeService<M, Address>;

    fn into_http_service(self) -> Self::Service {
        TowerMakeService { make: self, address: |peer| Ok(peer.clone()) }
    }
}

/// A hosted service that makes a tower service from a client's address, such as axum's
/// `Router::into_make_service_with_connect_info`.
#[derive(Clone, Copy)]
pub struct TowerMakeService<M, A> {
    make: M,
    address: fn(&Address) -> Result<A, NoTcpAddress>,
}

impl<M, A, S> hyper::service::Service<http::Request<Body>> for TowerMakeService<M, A>
where
    M: Service<A, Response = S> + Clone + Send + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    A: Send + 'static,
    S: Service<http::Request<Body>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn call(&self, mut request: http::Request<Body>) -> Self::Future {
        let context = request.body().context().clone();
        let address = (self.address)(context.peer());
        request.extensions_mut().insert(context);
        let mut make = self.make.clone();
        Box::pin(async move {
            let address = address?;
            poll_fn(|cx| make.poll_ready(cx)).await.map_err(Into::into)?;
            let mut service = make.call(address).await.map_err(Into::into)?;
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            service.call(request).await.map_err(Into::into)
        })
    }
}

impl<M: fmt::Debug, A> fmt::Debug for TowerMakeService<M, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerMakeService").field("make", &self.make).finish_non_exhaustive()
    }
}

/// Error for a client without a TCP address, if the service requires one.
#[derive(Clone, Debug)]
struct NoTcpAddress(Address);

impl fmt::Display for NoTcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the client at {} has no TCP address for ConnectInfo<SocketAddr>: use \
             RequestContext::peer, or a ConnectInfo of a type that implements \
             Connected<lameduck::runtime::Address>",
            self.0
        )
    }
}

impl Error for NoTcpAddress {}

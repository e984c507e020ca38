//! A tower service as a hyper service, which finds the context of its request where tower looks for such things.

use super::Body;
use hyper_util::service::TowerToHyperService;
use tower_service::Service;

/// A tower service, such as an axum `Router`, hosted: [`Builder::tower`](crate::Builder::tower) makes it.
///
/// Each request carries its [`RequestContext`](super::RequestContext) in its extensions, which a hyper service does not pay for.
#[derive(Clone, Copy, Debug)]
pub struct TowerService<S>(TowerToHyperService<S>);

impl<S> TowerService<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(TowerToHyperService::new(service))
    }
}

impl<S> hyper::service::Service<http::Request<Body>> for TowerService<S>
where
    S: Service<http::Request<Body>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = <TowerToHyperService<S> as hyper::service::Service<http::Request<Body>>>::Future;

    fn call(&self, mut request: http::Request<Body>) -> Self::Future {
        let context = request.body().context().clone();
        request.extensions_mut().insert(context);
        self.0.call(request)
    }
}

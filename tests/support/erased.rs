//! One type for the services of all tests: for each type the compiler makes the whole host again,
//! which takes seconds.

use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes};
use std::{error::Error, pin::Pin, sync::Arc};

type BoxError = Box<dyn Error + Send + Sync>;
type BoxResponse = Response<UnsyncBoxBody<Bytes, BoxError>>;
type ResponseFuture = Pin<Box<dyn Future<Output = Result<BoxResponse, BoxError>> + Send>>;

/// A service of any function. See [`service_fn`].
#[derive(Clone)]
pub(crate) struct FnService(Arc<dyn Fn(Request<lameduck::Body>) -> ResponseFuture + Send + Sync>);

impl hyper::service::Service<Request<lameduck::Body>> for FnService {
    type Response = BoxResponse;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn call(&self, request: Request<lameduck::Body>) -> ResponseFuture {
        (self.0)(request)
    }
}

/// Like hyper's, with one type for all functions.
pub(crate) fn service_fn<H, R, B, E>(handler: H) -> FnService
where
    H: Fn(Request<lameduck::Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    FnService(Arc::new(move |request| {
        let response = handler(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }))
}

//! The bounds on a hosted service.

use super::request_body::Body;
use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;
use std::error::Error;

/// A boxed error of a service or a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The bounds on a hosted service, in one trait. Every hyper service that meets them implements it.
pub trait HttpService:
    hyper::service::Service<
        http::Request<Body>,
        Response = Response<Self::ResponseBody>,
        Error = Self::ServiceError,
        Future = Self::ServiceFuture,
    > + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type ResponseBody: HttpBody<Data = Bytes, Error = Self::BodyError> + Send + 'static;
    /// The error of its response bodies.
    type BodyError: Into<BoxError>;
    /// The error of the service. The client receives a 500.
    type ServiceError: Into<BoxError>;
    /// The future that a call returns.
    type ServiceFuture: Future<Output = Result<Response<Self::ResponseBody>, Self::ServiceError>>
        + Send
        + 'static;
}

impl<S, B> HttpService for S
where
    S: hyper::service::Service<http::Request<Body>, Response = Response<B>> + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type ResponseBody = B;
    type BodyError = B::Error;
    type ServiceError = S::Error;
    type ServiceFuture = S::Future;
}

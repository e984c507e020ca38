//! The bounds on a hosted service.

use super::request_body::Body;
use crate::{
    errors::Chain,
    unwind::{catch, discard},
};
use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;
use std::{error::Error, fmt};

/// A boxed error of a service or a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An error of a service or a body. Making, formatting and dropping it is the app's code, whose
/// panics are contained (P15).
#[derive(Debug)]
pub(crate) struct AppError(Option<BoxError>);

impl AppError {
    /// Converts an error of the app.
    ///
    /// # Errors
    /// The message, if the conversion panicked.
    pub(super) fn new(error: impl Into<BoxError>) -> Result<Self, String> {
        catch(|| error.into()).map(|error| Self(Some(error)))
    }

    pub(super) fn get(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|error| error as _)
    }
}

impl Drop for AppError {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

/// Formats the error with its causes.
impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().map_or(Ok(()), |error| Chain(error).fmt(f))
    }
}

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

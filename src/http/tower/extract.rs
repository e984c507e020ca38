//! [`RequestContext`] as an axum extractor.

use crate::http::exchange::context::RequestContext;
use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use std::{convert::Infallible, error::Error, fmt};

/// The rejection of the extractor [`RequestContext`]: the request has no context. The client
/// receives a 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingRequestContext;

impl fmt::Display for MissingRequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the request has no lameduck::RequestContext: it did not come through Builder::serve, \
             or a layer dropped its extensions; in a unit test use TestHost::request, or insert \
             TestHost::context into the extensions",
        )
    }
}

impl Error for MissingRequestContext {}

impl IntoResponse for MissingRequestContext {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{self}\n")).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = MissingRequestContext;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingRequestContext> {
        parts.extensions.get::<Self>().cloned().ok_or(MissingRequestContext)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

//! Responses of the internal server: small and complete.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// The body of an internal response.
pub(crate) type InternalBody = Full<Bytes>;

/// A response of plain text, which no cache may store.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<InternalBody> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A probe's response is only valid now.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

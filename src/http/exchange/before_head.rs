//! The last check of a response, before hyper writes its head.

use super::{
    connection_state::Protocol, error_response::ErrorResponse, framing::declared_length, grpc,
    http_service::BoxError, response_body::ResponseBody,
};
use crate::http::server::date;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;
use std::task::{Context, Poll};

/// Completes a response that hyper writes. Replaces it by a 500 if its head and its body contradict
/// each other in length (P5d).
pub(super) fn for_hyper<B>(
    cx: &mut Context<'_>,
    mut response: Response<ResponseBody<B>>,
) -> Response<ResponseBody<B>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return response };
    let (protocol, method, is_call) = (
        in_flight.connection().protocol,
        in_flight.request().method().clone(),
        in_flight.request().is_call(),
    );
    let wall = in_flight.server().clock.wall();
    response.headers_mut().entry(header::DATE).or_insert_with(|| date::header(wall));
    let checked = match declared_length(response.headers_mut()) {
        Ok(None) => Ok(()),
        Ok(Some(says)) => response.body().check_length(says),
        Err(why) => Err(why),
    };
    let is_broken = match checked {
        Err(why) => {
            let (head, body) = response.into_parts();
            body.refuse(&why);
            response = Response::from_parts(head, ResponseBody::text(None, None));
            true
        }
        Ok(()) if response.body().may_exceed_zero_length() => {
            let (head, body) = response.into_parts();
            let mut body = Box::pin(Some(body));
            let polled =
                body.as_mut().as_pin_mut().map_or(Poll::Pending, |body| body.poll_before_head(cx));
            response = Response::from_parts(head, ResponseBody::resumed(body));
            polled.is_ready()
        }
        Ok(()) => false,
    };
    if !is_broken {
        return response;
    }
    if is_call {
        return replacement_trailers(&response);
    }
    // On HTTP/1 hyper omits the body of a response to HEAD itself, and sends its length.
    let is_unsent = protocol == Protocol::Http2 && method == Method::HEAD;
    replacement_500(
        &response,
        (!is_unsent).then(|| Bytes::from(format!("{}\n", ErrorResponse::Failed))),
    )
}

/// Returns the response of only trailers that replaces a response to a gRPC call.
#[cold]
fn replacement_trailers<B>(response: &Response<ResponseBody<B>>) -> Response<ResponseBody<B>> {
    let (mut head, ()) = Response::new(()).into_parts();
    if let Some(date) = response.headers().get(header::DATE) {
        head.headers.insert(header::DATE, date.clone());
    }
    let error = ErrorResponse::Failed;
    grpc::set_trailers_only(&mut head, error.grpc_status(), &error.to_string());
    Response::from_parts(head, ResponseBody::text(None, None))
}

/// Returns the 500 that replaces a response. Keeps the date and a `Connection: close` of its head.
#[cold]
fn replacement_500<B>(
    response: &Response<ResponseBody<B>>,
    line: Option<Bytes>,
) -> Response<ResponseBody<B>> {
    let mut error = Response::new(ResponseBody::text(line, None));
    *error.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    *error.version_mut() = response.version();
    let headers = error.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(date) = response.headers().get(header::DATE) {
        headers.insert(header::DATE, date.clone());
    }
    if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    error
}

//! The last check of a response, before hyper writes its head.

use super::{
    connection_state::Protocol,
    error_response::ErrorResponse,
    framing::{LengthError, declared_length, number},
    http_service::BoxError,
    response_body::ResponseBody,
    response_head::announces_close,
};
use crate::http::server::date;
use bytes::Bytes;
use http::{
    Response,
    header::{self, Entry},
};
use http_body::Body as HttpBody;
use std::task::{Context, Poll};

/// Whether hyper may write the head of a response now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Complete,
    /// Not before the end of the body is known.
    NeedsEnd,
}

/// Completes the head of a response that hyper writes.
///
/// # Errors
/// The head and the body disagree about the length, so the response must not be sent (P5d).
pub(super) fn complete<B>(response: &mut Response<ResponseBody<B>>) -> Result<Head, LengthError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return Ok(Head::Complete) };
    let protocol = in_flight.connection().protocol;
    let wall = in_flight.server().clock.wall();
    response.headers_mut().entry(header::DATE).or_insert_with(|| date::header(wall));
    if protocol == Protocol::Http2 {
        if add_length(response) {
            return Ok(Head::Complete);
        }
    } else if announces_close(response.headers())
        && let Some(in_flight) = response.body().in_flight()
    {
        in_flight.connection().responses.set_closes();
    }
    if let Some(says) = declared_length(response.headers_mut())? {
        response.body().check_length(says)?;
    }
    let needs_end = response.body().may_exceed_zero_length();
    Ok(if needs_end { Head::NeedsEnd } else { Head::Complete })
}

/// Adds the length to an HTTP/2 head that has none. Returns false if it has one, which must be
/// checked. hyper would add the same, but would allocate the value twice.
fn add_length<B>(response: &mut Response<ResponseBody<B>>) -> bool
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = response.body();
    let length = if body.is_end_stream() { None } else { body.size_hint().exact() };
    match response.headers_mut().entry(header::CONTENT_LENGTH) {
        Entry::Occupied(_) => false,
        Entry::Vacant(entry) => {
            if let Some(length) = length {
                entry.insert(number(length));
            }
            true
        }
    }
}

/// A response whose head is not written at once.
pub(super) enum CheckedHead<B> {
    Ready(Response<ResponseBody<B>>),
    /// The head is written once the end of the body is known.
    Wait(Box<Response<ResponseBody<B>>>),
}

/// Polls the body of a response for its end, or replaces a response that must not be sent, because
/// of `error`, by an error response.
#[cold]
pub(super) fn replace_or_wait<B>(
    cx: &mut Context<'_>,
    response: Response<ResponseBody<B>>,
    error: Option<&LengthError>,
) -> CheckedHead<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return CheckedHead::Ready(response) };
    let request = in_flight.request().clone();
    let (head, body) = response.into_parts();
    let replace = |error: ErrorResponse| CheckedHead::Ready(error.replace(&head, &request));
    if let Some(why) = error {
        body.refuse(why);
        return replace(ErrorResponse::Failed);
    }
    let mut body = body.into_pinned();
    match body.poll_before_head(cx) {
        Poll::Ready(Ok(())) => CheckedHead::Ready(Response::from_parts(head, body)),
        Poll::Ready(Err(cause)) => replace(cause.into()),
        Poll::Pending => CheckedHead::Wait(Box::new(Response::from_parts(head, body))),
    }
}

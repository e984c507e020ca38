//! The last check of a response, before hyper writes its head.

use super::{
    error_response::ErrorResponse,
    framing::{LengthError, declared_length},
    http_service::BoxError,
    response_body::ResponseBody,
};
use crate::http::server::date;
use bytes::Bytes;
use http::{Response, header};
use http_body::Body as HttpBody;
use std::task::{Context, Poll};

/// A response before its head is written.
pub(super) enum BeforeHead<B> {
    Ready(Response<ResponseBody<B>>),
    /// The head is written once the end of the body is known.
    Wait(Box<Response<ResponseBody<B>>>),
}

/// Completes a response that hyper writes. Replaces it by an error response if its head and its
/// body disagree about the length (P5d).
pub(super) fn for_hyper<B>(
    cx: &mut Context<'_>,
    mut response: Response<ResponseBody<B>>,
) -> BeforeHead<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return BeforeHead::Ready(response) };
    let wall = in_flight.server().clock.wall();
    response.headers_mut().entry(header::DATE).or_insert_with(|| date::header(wall));
    let checked = match declared_length(response.headers_mut()) {
        Ok(None) => Ok(()),
        Ok(Some(says)) => response.body().check_length(says),
        Err(why) => Err(why),
    };
    match checked {
        Ok(()) if !response.body().may_exceed_zero_length() => BeforeHead::Ready(response),
        checked => replace_or_wait(cx, response, checked),
    }
}

#[cold]
fn replace_or_wait<B>(
    cx: &mut Context<'_>,
    response: Response<ResponseBody<B>>,
    checked: Result<(), LengthError>,
) -> BeforeHead<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return BeforeHead::Ready(response) };
    let request = in_flight.request().clone();
    let (head, body) = response.into_parts();
    let replace = |error: ErrorResponse| BeforeHead::Ready(error.replace(&head, &request));
    if let Err(why) = checked {
        body.refuse(&why);
        return replace(ErrorResponse::Failed);
    }
    let mut body = body.into_pinned();
    match body.poll_before_head(cx) {
        Poll::Ready(Ok(())) => BeforeHead::Ready(Response::from_parts(head, body)),
        Poll::Ready(Err(cause)) => replace(cause.into()),
        Poll::Pending => BeforeHead::Wait(Box::new(Response::from_parts(head, body))),
    }
}

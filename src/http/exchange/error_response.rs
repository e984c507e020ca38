//! The host's responses in place of a handler's.

use super::{
    connection_state::Protocol,
    grpc::{self, GrpcStatus},
    in_flight::InFlight,
    request_end::CancelCause,
    request_state::RequestState,
    response_body::ResponseBody,
    response_head::{add_date, add_standard_headers, announce_close, announces_close},
};
use crate::http::server::{
    abort::AbortCause,
    date,
    state::{ServerState, millis},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version, header, response};
use std::{fmt, sync::Arc, time::Duration};

/// An error response in place of the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorResponse {
    DeadlinePassed(Duration),
    Aborted,
    /// The handler waited for the request body for this time.
    RequestBodyLate(Duration),
    /// The handler waited for the request body during the drain, which has a shorter timeout.
    Stalled,
    Failed,
    /// The request must not be served, for this reason.
    Refused(&'static str),
}

impl ErrorResponse {
    /// Builds the response, and settles the outcome of its request unless that is *finished*.
    pub(super) fn respond<B>(
        self,
        mut in_flight: InFlight,
        version: Version,
    ) -> Response<ResponseBody<B>> {
        let (mut head, ()) = Response::new(()).into_parts();
        self.set_in(&mut head, in_flight.request());
        let mut response = Response::from_parts(head, ());
        add_date(response.headers_mut(), &in_flight);
        add_standard_headers(&mut response, &in_flight, version);
        if matches!(self, Self::Refused(_)) {
            announce_close(&mut response, version);
        }
        let request = in_flight.request().clone();
        let line = self.line(&request);
        match self {
            // This response counts as the handler's: the request is *finished* once it was sent
            // (P5c).
            Self::Failed | Self::Refused(_) => {
                // Over HTTP/2 its line may wait for the client's window.
                if version >= Version::HTTP_2 && line.is_some() {
                    in_flight.record_head_sent(true);
                    in_flight.set_slow();
                }
                return response.map(|()| ResponseBody::text(line, Some(in_flight)));
            }
            Self::DeadlinePassed(_) | Self::RequestBodyLate(_) => in_flight.time_out(),
            Self::Aborted | Self::Stalled => in_flight.abort(AbortCause::Shutdown),
        }
        request.connection.on_request_ended();
        response.map(|()| ResponseBody::settled_text(line, &request))
    }

    /// Returns the response that replaces the handler's, whose request was aborted before its
    /// `head` was written.
    #[cold]
    pub(super) fn replace<B>(
        self,
        head: &response::Parts,
        request: &Arc<RequestState>,
    ) -> Response<ResponseBody<B>> {
        let (mut head, _) = self.replace_with_text::<B>(head, request.server()).into_parts();
        self.set_in(&mut head, request);
        Response::from_parts(head, ResponseBody::settled_text(self.line(request), request))
    }

    /// Returns that response for a request of the fast path. Keeps a `Connection: close` of `head`.
    #[cold]
    pub(crate) fn replace_with_text<B>(
        self,
        head: &response::Parts,
        server: &ServerState,
    ) -> Response<ResponseBody<B>> {
        let line = Bytes::from(format!("{self}\n"));
        let mut response = Response::new(ResponseBody::text(Some(line), None));
        *response.status_mut() = self.status();
        *response.version_mut() = head.version;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
        headers.insert(header::DATE, date::header(server.clock.wall()));
        if announces_close(&head.headers) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Returns the bytes of this response, which is the last on its HTTP/1 connection.
    pub(crate) fn last_response(self, server: &ServerState) -> Bytes {
        last_response(self.status(), &format!("{self}\n"), server)
    }

    fn set_in(self, head: &mut response::Parts, request: &RequestState) {
        if request.is_call() {
            grpc::set_trailers_only(head, self.grpc_status(), &self.to_string());
        } else {
            head.status = self.status();
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
        }
        request.record_status(head.status);
    }

    /// Returns the line of text of the response, if it has one. On HTTP/1 hyper omits the body of a
    /// response to HEAD itself, and sends its length.
    fn line(self, request: &RequestState) -> Option<Bytes> {
        let is_unsent =
            request.connection.protocol == Protocol::Http2 && *request.method() == Method::HEAD;
        (!is_unsent && !request.is_call()).then(|| Bytes::from(format!("{self}\n")))
    }

    /// Returns the cause for which the context is cancelled before the handler is dropped.
    pub(super) const fn cancel_cause(self) -> Option<CancelCause> {
        match self {
            Self::DeadlinePassed(_) | Self::RequestBodyLate(_) => Some(CancelCause::Deadline),
            Self::Aborted | Self::Stalled => Some(CancelCause::Shutdown),
            Self::Failed | Self::Refused(_) => None,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::DeadlinePassed(_) | Self::RequestBodyLate(_) | Self::Aborted | Self::Stalled => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the status of a gRPC call. A refusal is the one to which gRPC maps a 400.
    pub(super) const fn grpc_status(self) -> GrpcStatus {
        match self {
            Self::DeadlinePassed(_) | Self::RequestBodyLate(_) => GrpcStatus::DeadlineExceeded,
            Self::Aborted | Self::Stalled => GrpcStatus::Unavailable,
            Self::Failed | Self::Refused(_) => GrpcStatus::Internal,
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Returns the bytes of a response that announces the close of its HTTP/1 connection, with a date
/// (RFC 9110 §6.6.1).
pub(crate) fn last_response(status: StatusCode, line: &str, server: &ServerState) -> Bytes {
    let (date, length) = (date::header(server.clock.wall()), line.len());
    let date = date.to_str().unwrap_or_default();
    Bytes::from(format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ndate: {date}\r\ncontent-type: {TEXT}\r\n\
         content-length: {length}\r\n\r\n{line}"
    ))
}

impl From<AbortCause> for ErrorResponse {
    fn from(cause: AbortCause) -> Self {
        match cause {
            AbortCause::Shutdown => Self::Aborted,
            AbortCause::Body | AbortCause::Client => Self::Failed,
        }
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadlinePassed(after) => {
                write!(
                    f,
                    "request timed out: no response within its deadline of {}",
                    humantime::format_duration(*after)
                )
            }
            Self::Aborted => {
                f.write_str("request aborted: the service is shutting down and the drain has ended")
            }
            Self::RequestBodyLate(after) => {
                let after = humantime::format_duration(Duration::from_millis(millis(*after)));
                write!(f, "request timed out: no byte of its body arrived for {after}")
            }
            Self::Stalled => f.write_str(
                "request aborted: its body stopped arriving while the service was shutting down",
            ),
            Self::Failed => f.write_str("internal server error"),
            Self::Refused(why) => write!(f, "bad request: {why}"),
        }
    }
}

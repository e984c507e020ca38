//! The host's responses in place of a handler's.

use super::{
    connection_state::Protocol,
    grpc::{self, GrpcStatus},
    in_flight::InFlight,
    response_body::ResponseBody,
    response_head::{add_date, add_standard_headers, announce_close},
};
use crate::http::server::{abort::AbortCause, state::millis};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use std::{fmt, time::Duration};

/// An error response in place of the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorResponse {
    TimedOut(Duration),
    Aborted,
    /// The handler waited for the request body for this time.
    BodyTimedOut(Duration),
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
        in_flight: InFlight,
        version: Version,
    ) -> Response<ResponseBody<B>> {
        let is_call = in_flight.request().is_call();
        let (mut head, ()) = Response::new(()).into_parts();
        if is_call {
            grpc::set_trailers_only(&mut head, self.grpc_status(), &self.to_string());
        } else {
            head.status = self.status();
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            head.headers.insert(header::CONTENT_TYPE, text);
        }
        let mut response = Response::from_parts(head, ());
        add_date(response.headers_mut(), &in_flight);
        add_standard_headers(&mut response, &in_flight, version);
        if matches!(self, Self::Refused(_)) {
            announce_close(&mut response, version);
        }
        let connection = in_flight.connection().clone();
        // On HTTP/1 hyper omits the body of a response to HEAD itself, and sends its length.
        let is_unsent =
            connection.protocol == Protocol::Http2 && *in_flight.request().method() == Method::HEAD;
        let line = (!is_unsent && !is_call).then(|| Bytes::from(format!("{self}\n")));
        let left = match self {
            // This response counts as the handler's: the request is *finished* once it was sent
            // (P5c).
            Self::Failed | Self::Refused(_) => Some(in_flight),
            Self::TimedOut(_) | Self::BodyTimedOut(_) => {
                in_flight.time_out();
                connection.on_request_ended();
                None
            }
            Self::Aborted | Self::Stalled => {
                in_flight.abort(AbortCause::Shutdown);
                connection.on_request_ended();
                None
            }
        };
        response.map(|()| ResponseBody::text(line, left))
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::TimedOut(_) | Self::BodyTimedOut(_) | Self::Aborted | Self::Stalled => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the status of a gRPC call. A refusal is the one to which gRPC maps a 400.
    pub(super) const fn grpc_status(self) -> GrpcStatus {
        match self {
            Self::TimedOut(_) | Self::BodyTimedOut(_) => GrpcStatus::DeadlineExceeded,
            Self::Aborted | Self::Stalled => GrpcStatus::Unavailable,
            Self::Failed | Self::Refused(_) => GrpcStatus::Internal,
        }
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => {
                write!(
                    f,
                    "request timed out: no response within its deadline of {}",
                    humantime::format_duration(*after)
                )
            }
            Self::Aborted => {
                f.write_str("request aborted: the service is shutting down and the drain has ended")
            }
            Self::BodyTimedOut(after) => {
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

//! Failures of a response body: what the log says, what the client gets, and how the request ends.

use super::{
    connection_state::Protocol,
    grpc::{self, GrpcStatus},
    http_service::{AppError, BoxError},
    in_flight::InFlight,
    response_body_error::ResponseBodyError,
    response_body_state::{BodyState, WaitingOn},
};
use crate::errors::Chain;
use http::HeaderMap;
use std::{error::Error, task::Poll};

impl BodyState {
    pub(super) fn failed(&self, error: impl Into<BoxError>) -> ResponseBodyError {
        AppError::new(error).map_or_else(|panic| self.panicked(&panic), ResponseBodyError::Handler)
    }

    pub(super) fn panicked(&self, panic: &str) -> ResponseBodyError {
        self.record_panic(panic);
        ResponseBodyError::Panicked
    }

    pub(super) fn record_panic(&self, panic: &str) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.count_panic();
        }
        let (method, path) = self.in_flight.as_ref().map(InFlight::method_and_path).unzip();
        crate::log::error!(panic, method, path, "response body panicked");
    }

    /// Aborts the request of a response that hyper writes. On HTTP/1 its connection then ends.
    /// Returns `Pending` if bytes of the response, or of earlier ones, may be written or waiting.
    pub(super) fn abort(&mut self, why: &ResponseBodyError) -> Poll<()> {
        let Some(in_flight) = &self.in_flight else { return Poll::Ready(()) };
        let connection = in_flight.connection().clone();
        if connection.protocol == Protocol::Http2 {
            self.abort_request(why);
            return Poll::Ready(());
        }
        connection.responses.set_abort_cause(why.abort_cause());
        if connection.io.is_response_begun() {
            self.abort_request(why);
            Poll::Pending
        } else {
            self.abort_before_head(why);
            Poll::Ready(())
        }
    }

    /// Aborts the request of a response whose head was not written.
    pub(super) fn abort_before_head(&mut self, why: &ResponseBodyError) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.record_head_sent(false);
            in_flight.request().record_replaced(why.abort_cause());
        }
        self.abort_request(why);
    }

    fn abort_request(&mut self, why: &ResponseBodyError) {
        self.wait_on(WaitingOn::Client);
        self.stop_timer();
        let Some(in_flight) = self.in_flight.take() else { return };
        if matches!(why, ResponseBodyError::CallDeadline) {
            let connection = in_flight.connection().clone();
            in_flight.time_out();
            connection.on_request_ended();
            return;
        }
        let error: Option<&(dyn Error + 'static)> = match why {
            ResponseBodyError::Handler(error) => error.get(),
            ResponseBodyError::Short(_) | ResponseBodyError::Long => Some(why),
            // A panic was logged already, and the shutdown logs what it aborts.
            ResponseBodyError::Panicked
            | ResponseBodyError::Cut
            | ResponseBodyError::CallDeadline => None,
        };
        if let Some(error) = error {
            let (method, path) = in_flight.method_and_path();
            crate::log::error!(error = %Chain(error), method, path, "response body failed");
        }
        in_flight.connection().on_request_ended();
        in_flight.abort(why.abort_cause());
    }

    /// Returns the trailers that tell the client of a gRPC call why its response failed. `None` if
    /// the stream must be reset: it is no call, its head promised more bytes, or many bytes of it
    /// wait for the client, and the trailers would wait after them.
    pub(super) fn grpc_trailers(&self, why: &ResponseBodyError) -> Option<HeaderMap> {
        let request = self.in_flight.as_ref()?.request();
        if !request.is_call() || self.remaining.is_some() {
            return None;
        }
        let status = match why {
            ResponseBodyError::Cut => GrpcStatus::Unavailable,
            ResponseBodyError::CallDeadline => GrpcStatus::DeadlineExceeded,
            ResponseBodyError::Handler(_)
            | ResponseBodyError::Panicked
            | ResponseBodyError::Short(_)
            | ResponseBodyError::Long => GrpcStatus::Internal,
        };
        let message = match why {
            // What the service says of its errors is for the log only.
            ResponseBodyError::Handler(_) => "the response body failed".to_owned(),
            ResponseBodyError::Cut
            | ResponseBodyError::CallDeadline
            | ResponseBodyError::Panicked
            | ResponseBodyError::Short(_)
            | ResponseBodyError::Long => why.to_string(),
        };
        let wait_max = request.server().caps().copied_bytes.get_u64();
        (request.progress.unwritten() <= wait_max).then(|| grpc::trailers(status, &message))
    }
}

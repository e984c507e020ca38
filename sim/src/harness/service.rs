//! Wraps a user's service, and records which responses it made.

use crate::{
    client::{GRPC_STATUS, NAME_FIELD},
    oracle::{ENDS_CALL, RESPONDS},
    scenario::SERVER,
    trace::Trace,
};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use lameduck::{Body, HttpService};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A service whose responses are recorded as `service responds`.
///
/// The record is made between the host and the service, outside of the response. No response of the
/// service looks like one of the host, and the reverse, whatever its status and body are. The same
/// holds for the status of a gRPC call after its head, which is recorded as `service ends call`.
#[derive(Debug)]
pub(super) struct RecordedService<S> {
    service: S,
    trace: Trace,
}

impl<S> RecordedService<S> {
    pub(super) const fn new(service: S, trace: Trace) -> Self {
        Self { service, trace }
    }
}

impl<S: HttpService> hyper::service::Service<http::Request<Body>> for RecordedService<S> {
    type Response = Response<RecordedBody<S::ResponseBody>>;
    type Error = S::ServiceError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: http::Request<Body>) -> Self::Future {
        // The service sees its request as a user's client would send it.
        let name = request.headers_mut().remove(NAME_FIELD);
        let name = name.and_then(|name| {
            let (client, number) = name.to_str().ok()?.split_once('/')?;
            Some((client.to_owned(), number.parse::<u64>().ok()?))
        });
        let trace = self.trace.clone();
        let handler = self.service.call(request);
        Box::pin(async move {
            let response = handler.await?;
            if let Some((client, request)) = &name {
                let fields = [
                    ("client", client.as_str().into()),
                    ("request", (*request).into()),
                    ("status", response.status().as_u16().into()),
                ];
                trace.record(SERVER, RESPONDS, &fields);
            }
            Ok(response.map(|body| RecordedBody { body: Box::pin(body), trace, name }))
        })
    }
}

/// A response body of a user's service.
#[derive(Debug)]
pub(super) struct RecordedBody<B> {
    body: Pin<Box<B>>,
    trace: Trace,
    /// The client and the number of its request.
    name: Option<(String, u64)>,
}

impl<B> RecordedBody<B> {
    fn record<D>(&self, frame: &Frame<D>) {
        let status = frame.trailers_ref().and_then(|trailers| trailers.get(GRPC_STATUS));
        if let (Some(_), Some((client, request))) = (status, &self.name) {
            let fields = [("client", client.as_str().into()), ("request", (*request).into())];
            self.trace.record(SERVER, ENDS_CALL, &fields);
        }
    }
}

impl<B: HttpBody> HttpBody for RecordedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = self.body.as_mut().poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.record(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Wraps a user's service, and records which responses it made.

use crate::{client::NAME_FIELD, scenario::SERVER, trace::Trace};
use http::Response;
use lameduck::{Body, HttpService};
use std::{future::Future, pin::Pin};

/// A service whose responses are recorded as `service responds`.
///
/// The record is made between the host and the service, outside of the response. No response of the
/// service looks like one of the host, and the reverse, whatever its status and body are.
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
    type Response = Response<S::ResponseBody>;
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
            if let Some((client, request)) = name {
                let fields = [
                    ("client", client.into()),
                    ("request", request.into()),
                    ("status", response.status().as_u16().into()),
                ];
                trace.record(SERVER, "service responds", &fields);
            }
            Ok(response)
        })
    }
}

//! Orders that are paid over HTTP. When the process stops, it settles the payments.

#![forbid(unsafe_code)]

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, connect::Connect};
use lameduck::{Builder, Hook, Host, HttpService};
use std::{io, time::Duration};
use tokio::time::timeout;

/// How long the service waits for a response to its payments.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The client of the payment service, over any connector.
pub type Payments<C> = Client<C, Empty<Bytes>>;

/// Builds the host of the service, in `main` and in tests. The stop hook waits for `patience`, at
/// most.
pub fn host<C>(
    builder: Builder,
    payments: Payments<C>,
    patience: Duration,
) -> Host<impl HttpService + use<C>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = payments.clone();
    let settle = Hook::on_stop("settlement", move || async move {
        send(&client, "http://payments/settle", patience).await
    });
    let router = Router::new().route("/orders", post(order::<C>)).with_state(payments);
    builder.hook(settle).serve(router)
}

async fn order<C>(State(payments): State<Payments<C>>) -> StatusCode
where
    C: Connect + Clone + Send + Sync + 'static,
{
    match send(&payments, "http://payments/pay", PATIENCE).await {
        Ok(()) => StatusCode::CREATED,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

async fn send<C>(payments: &Payments<C>, uri: &'static str, patience: Duration) -> io::Result<()>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let mut request = http::Request::new(Empty::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(uri);
    let response = timeout(patience, payments.request(request)).await?;
    let status = response.map_err(io::Error::other)?.status();
    if status.is_success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

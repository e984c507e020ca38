#![expect(clippy::disallowed_methods, reason = "a service lives on tokio's time")]

use axum::{Router, http::StatusCode, routing::post};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, connect::Connect};
use lameduck::{Builder, Host, HttpService};
use std::time::Duration;

/// The client of the payment service, over any connector.
pub type Payments<C> = Client<C, Empty<Bytes>>;

pub fn host<C>(builder: Builder, payments: Payments<C>) -> Host<impl HttpService + use<C>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let order = move || pay(payments.clone());
    builder.serve(Router::new().route("/orders", post(order)))
}

async fn pay<C>(payments: Payments<C>) -> StatusCode
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let paid = payments.get(http::Uri::from_static("http://payments/pay"));
    match tokio::time::timeout(Duration::from_secs(2), paid).await {
        Ok(Ok(response)) if response.status().is_success() => StatusCode::CREATED,
        _ => StatusCode::BAD_GATEWAY,
    }
}

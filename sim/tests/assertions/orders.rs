//! The service of step 7 of `docs/test-your-shutdown.md`.

#![expect(clippy::disallowed_methods, reason = "a service lives on tokio's time")]

use axum::{Extension, Router, extract::State, http::StatusCode, routing::post};
use lameduck::{Builder, Host, HttpService, RequestContext, lifecycle::Phase, sometimes};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

#[derive(Clone, Default)]
pub struct Store(Arc<AtomicUsize>);

impl Store {
    async fn insert(&self, _order: String) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.0.fetch_add(1, SeqCst);
    }
}

pub fn host(builder: Builder, store: Store) -> Host<impl HttpService + use<>> {
    builder.serve(Router::new().route("/orders", post(order)).with_state(store))
}

async fn order(
    State(store): State<Store>,
    Extension(context): Extension<RequestContext>,
    order: String,
) -> StatusCode {
    let request = context.clone();
    context.spawn(async move {
        store.insert(order).await;
        sometimes!(request.phase() == Phase::Draining, "an order is stored in the drain");
    });
    StatusCode::ACCEPTED
}

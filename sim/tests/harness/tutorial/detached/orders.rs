#![expect(
    clippy::disallowed_methods,
    reason = "a service lives on tokio's time; the spawn is a bug"
)]

use axum::{Router, extract::State, http::StatusCode, routing::post};
use lameduck::{Builder, Host, HttpService};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Stands for a database.
#[derive(Clone, Default)]
pub struct Store(Arc<AtomicUsize>);

impl Store {
    async fn insert(&self, _order: String) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.0.fetch_add(1, SeqCst);
    }

    /// Returns the number of orders that were stored.
    pub fn stored(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Builds the host of the service, in `main` and in tests.
pub fn host(builder: Builder, store: Store) -> Host<impl HttpService + use<>> {
    builder.serve(Router::new().route("/orders", post(order)).with_state(store))
}

async fn order(State(store): State<Store>, order: String) -> StatusCode {
    tokio::spawn(async move { store.insert(order).await });
    StatusCode::ACCEPTED
}

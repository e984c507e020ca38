//! The service: its routes, and what it opens and closes. `main` adds the process, and
//! `tests/shutdown.rs` the shutdowns.

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use lameduck::{Builder, Hook, Host, HttpService, ReadinessCheck, RequestContext};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Stands for a database: opened before the first request, closed after the last handler.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_open: AtomicBool,
    stored: AtomicUsize,
}

impl Orders {
    fn open(&self) {
        self.0.is_open.store(true, SeqCst);
    }

    fn close(&self) {
        self.0.is_open.store(false, SeqCst);
    }

    /// The number of orders that were stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.0.stored.load(SeqCst)
    }

    fn check(&self) -> io::Result<()> {
        if self.0.is_open.load(SeqCst) { Ok(()) } else { Err(io::Error::other("it is closed")) }
    }

    async fn store(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.stored.fetch_add(1, SeqCst);
    }
}

/// Returns the host of this service.
pub fn host(builder: Builder, orders: &Orders) -> Host<impl HttpService + use<>> {
    let (opened, checked) = (orders.clone(), orders.clone());
    let pool = Hook::pair(
        "orders",
        || async move {
            opened.open();
            Ok::<_, io::Error>(opened)
        },
        |opened| async move {
            opened.close();
            Ok::<_, io::Error>(())
        },
    );
    let check = ReadinessCheck::new("orders", move || {
        let orders = checked.clone();
        async move { orders.check() }
    });
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/orders", post(order))
        .with_state(orders.clone());
    builder.hook(pool).readiness_check(check).serve(router)
}

/// Acknowledges an order and stores it afterwards: as work that the drain waits for.
async fn order(State(orders): State<Orders>, context: RequestContext) -> StatusCode {
    context.spawn(async move { orders.store().await });
    StatusCode::ACCEPTED
}

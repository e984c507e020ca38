//! A service on `axum::serve`. `docs/from-axum-serve.md` shows the change to lameduck.

use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() {
    let router = Router::new().route("/", get(|| async { "hello world" }));
    let listener = TcpListener::bind("[::]:8080").await.expect("a free port");
    axum::serve(listener, router).with_graceful_shutdown(terminated()).await.expect("a listener");
}

async fn terminated() {
    signal(SignalKind::terminate()).expect("a handler").recv().await;
}

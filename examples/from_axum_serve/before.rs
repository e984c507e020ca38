//! A service on `axum::serve`. `docs/from-axum-serve.md` shows the change to lameduck.

use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() {
    let router = Router::new().route("/", get(|| async { "hello world" }));
    let listener = TcpListener::bind("[::]:8080").await.unwrap();
    axum::serve(listener, router).with_graceful_shutdown(terminated()).await.unwrap();
}

async fn terminated() {
    signal(SignalKind::terminate()).unwrap().recv().await;
}

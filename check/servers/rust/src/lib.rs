//! What the servers share: their routes, their address, and their signal.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /` | hello world |
//! | `GET /slow?ms=N` | responds after N ms |
//! | `POST /echo` | responds with the request's body |
//! | `GET /stream?ms=N` | a chunk every 50 ms, for N ms |
//! | `GET /big?bytes=N` | N bytes |
//! | `GET /ws` | a WebSocket, which echoes |

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, WebSocketUpgrade},
    http::{StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use std::{convert::Infallible, env, net::SocketAddr, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tower_http::timeout::TimeoutLayer;

/// Time for the requests in flight, where a server has such a limit.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Parameters of all routes.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    #[serde(default)]
    pub ms: u64,
    #[serde(default)]
    pub bytes: usize,
}

/// Returns the routes, with the timeout that axum's example of a graceful shutdown has: "Graceful
/// shutdown will wait for outstanding requests to complete. Add a timeout so requests don't hang
/// forever."
pub fn router() -> Router {
    routes().layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DRAIN))
}

/// Returns the routes.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "hello world" }))
        .route("/slow", get(slow))
        .route("/echo", post(|body: Bytes| async { body }))
        .route(
            "/stream",
            get(|query: Query<Parameters>| async move { Body::from_stream(pieces(query.ms)) }),
        )
        .route("/big", get(big))
        .route("/ws", any(upgrade))
}

async fn slow(Query(parameters): Query<Parameters>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(parameters.ms)).await;
    "slow"
}

async fn big(Query(parameters): Query<Parameters>) -> impl IntoResponse {
    ([(CONTENT_LENGTH, parameters.bytes)], Body::from_stream(bytes(parameters.bytes)))
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// Returns a body with a piece every 50 ms.
pub fn pieces(ms: u64) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(ms, |left| async move {
        let pause = left.min(50);
        if pause == 0 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Some((Ok(Bytes::from_static(b"piece\n")), left - pause))
    })
}

/// Returns a body of this length.
pub fn bytes(length: usize) -> impl Stream<Item = Result<Bytes, Infallible>> {
    static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    stream::unfold(length, |left| async move {
        let chunk = left.min(CHUNK.len());
        (chunk > 0).then(|| (Ok(Bytes::from_static(&CHUNK[..chunk])), left - chunk))
    })
}

/// Returns the address to listen on: the port of the environment.
///
/// # Panics
/// If there is none.
pub fn address() -> SocketAddr {
    let port = env::var("PORT").expect("PORT is set").parse().expect("PORT is a number");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Returns at SIGTERM.
///
/// # Panics
/// If the signal cannot be handled.
pub async fn stopped() {
    signal(SignalKind::terminate()).expect("SIGTERM can be handled").recv().await;
}

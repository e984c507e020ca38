//! Helpers for the tests of networks, clients and parts: servers on the simulated network without a
//! lameduck host.
#![allow(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]
#![allow(dead_code, reason = "each test file takes what it needs")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lameduck::runtime::{ListenAddress, Listener, Reservation, Seed, ServerRole};
use lameduck_sim::{
    Trace,
    network::{HostNetwork, World, WorldConfig},
};
use std::{convert::Infallible, future::poll_fn, time::Duration};
use tokio::task::JoinSet;

pub(crate) const LIMIT: Duration = Duration::from_secs(600);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[expect(clippy::disallowed_methods, reason = "tests follow the world's time")]
pub(crate) async fn sleep(span: Duration) {
    tokio::time::sleep(span).await;
}

#[expect(clippy::disallowed_methods, reason = "tests follow the world's time")]
pub(crate) async fn within<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(span, future).await.ok()
}

pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

pub(crate) fn world<W: World>(seed: u64) -> (W, Trace) {
    let trace = Trace::new();
    (W::new(WorldConfig::new(Seed(seed)), trace.clone()), trace)
}

pub(crate) async fn listen<H: HostNetwork>(host: &H, port: u16) -> H::Listener {
    let reservation = host.reserve(&ListenAddress::Port(port), ServerRole::Main, 1).unwrap();
    reservation.listen().await.unwrap().pop().unwrap()
}

pub(crate) async fn accept<L: Listener>(listener: &mut L) -> L::Io {
    poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().0
}

/// Serves HTTP/1 and HTTP/2. `/slow/250` responds after 250 ms, `/big/1000` with 1000 bytes. All
/// other paths echo the request body.
pub(crate) async fn serve_http<H: HostNetwork>(host: H, port: u16) {
    let mut listener = listen(&host, port).await;
    let mut connections = JoinSet::new();
    loop {
        let io = TokioIo::new(accept(&mut listener).await);
        connections.spawn(async move {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().auto_date_header(false).half_close(true);
            builder.http2().auto_date_header(false);
            let _ = builder.serve_connection(io, service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let got = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let body = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some(("slow", millis)) => {
            sleep(ms(millis.parse().unwrap())).await;
            Bytes::from_static(b"slow")
        }
        Some(("big", bytes)) => vec![b'x'; bytes.parse().unwrap()].into(),
        _ => got,
    };
    Ok(Response::new(Full::new(body)))
}

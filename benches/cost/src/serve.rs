//! The servers: the same service on a lameduck host and on hyper alone, and the same axum router on
//! a lameduck host and by `axum::serve`. Each has one thread.

use crate::Result;
use axum::{
    Json, Router,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lameduck::{Host, Settings, runtime::ListenAddress};
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// A server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Lameduck,
    /// `serve_connection`, in its default configuration.
    Hyper,
    LameduckAxum,
    /// `axum::serve`.
    Axum,
}

impl Server {
    const ALL: [Self; 4] = [Self::Lameduck, Self::Hyper, Self::LameduckAxum, Self::Axum];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lameduck => "lameduck",
            Self::Hyper => "hyper",
            Self::LameduckAxum => "lameduck_axum",
            Self::Axum => "axum",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|server| server.name() == name);
        found.ok_or_else(|| format!("no such server: {name}").into())
    }
}

/// Runs a server until SIGTERM.
pub(crate) fn run(server: Server, address: SocketAddr) -> Result<ExitCode> {
    let runtime = || Builder::new_current_thread().enable_all().build();
    match server {
        Server::Lameduck => lameduck::run(move || {
            let service = service_fn(|request: Request<lameduck::Body>| respond(request));
            Ok(Host::builder(settings(address)).serve_hyper(service))
        }),
        Server::LameduckAxum => {
            lameduck::run(move || Ok(Host::builder(settings(address)).serve(router())))
        }
        Server::Hyper => runtime()?.block_on(async {
            tokio::select! {
                biased;
                stopped = stopped() => stopped,
                served = serve_hyper(address) => served,
            }
        })?,
        Server::Axum => runtime()?.block_on(async {
            let listener = TcpListener::bind(address).await?;
            axum::serve(listener, router())
                .with_graceful_shutdown(async { drop(stopped().await) })
                .await
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn stopped() -> std::io::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

fn settings(address: SocketAddr) -> Settings {
    let mut settings = Settings::default()
        .main_address(ListenAddress::Tcp(address))
        .internal_address(ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into()))
        .workers(Some(NonZeroUsize::MIN));
    settings.plan.lame_duck = Duration::ZERO;
    settings
}

/// One connection of each: HTTP/2 if it begins like that, as on a lameduck host.
async fn serve_hyper(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        drop(tokio::spawn(serve_connection(stream)));
    }
}

async fn serve_connection(stream: TcpStream) {
    let mut start = [0; 3];
    let is_http2 = matches!(stream.peek(&mut start).await, Ok(3)) && start == *b"PRI";
    let (io, service) = (TokioIo::new(stream), service_fn(respond::<hyper::body::Incoming>));
    // A client that left is no error here.
    let _ = if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

static LARGE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// The future of all routes but the first is boxed, so that the first does not pay for their size.
fn respond<B>(
    request: Request<B>,
) -> impl Future<Output = std::result::Result<Response<Full<Bytes>>, Infallible>> + Send
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    let other = (request.uri().path() != "/").then(|| Box::pin(respond_otherwise(request)));
    async move {
        match other {
            Some(other) => Ok(other.await),
            None => Ok(text(Bytes::from_static(b"hello world"))),
        }
    }
}

async fn respond_otherwise<B>(request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
{
    match request.uri().path() {
        "/read" => {
            let body = request.into_body().collect().await;
            text(body.map_or(Bytes::new(), http_body_util::Collected::to_bytes))
        }
        "/waits" => {
            tokio::task::yield_now().await;
            text(Bytes::from_static(b"hello world"))
        }
        _ => text(Bytes::from_static(&LARGE)),
    }
}

fn text(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn router() -> Router {
    let json = async |Json(words): Json<Vec<String>>| Json(words);
    Router::new().route("/", get(async || "hello world")).route("/json", post(json))
}

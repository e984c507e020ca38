//! Shared by all servers of the comparison: one response, one way to be started, one way to be
//! stopped.
//!
//! Each server takes the address to listen on as its only argument. It prints `listening <address>`
//! once it listens, uses a thread for each core it may run on, sets `TCP_NODELAY`, and ends at
//! SIGTERM. Servers that drain have a second route, [`SLOW`], with a slow response. A server that
//! cannot detect HTTP/2 uses it if [`speaks_http2`] returns true.

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use lameduck::{Host, Settings, runtime::ListenAddress};
use std::{
    convert::Infallible,
    env, hint,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// Body of every response.
pub const HELLO: &str = "hello world";

/// Content type of every response, as axum sets it.
pub const KIND: &str = "text/plain; charset=utf-8";

/// Path of the slow response.
pub const SLOW: &str = "/slow";

/// Delay of the slow response.
pub const SLOW_TIME: Duration = Duration::from_millis(200);

/// Path of a response that a router computes for [`COMPUTE_TIME`] without yielding.
const COMPUTE: &str = "/compute";

/// Time for which [`COMPUTE`] has its thread.
const COMPUTE_TIME: Duration = Duration::from_millis(20);

/// Path of a response for which a router blocks its thread for [`BLOCK_TIME`].
const BLOCK: &str = "/block";

/// Time for which [`BLOCK`] has its thread.
const BLOCK_TIME: Duration = Duration::from_secs(1);

/// Returns the response of a hyper service. The future of the slow route is boxed, so that the
/// other route does not pay for its size.
pub fn respond<B>(
    request: &Request<B>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<B> {
    let slow = request.uri().path() == SLOW;
    async move {
        if slow {
            Box::pin(tokio::time::sleep(SLOW_TIME)).await;
        }
        Ok(hello())
    }
}

/// Returns the routes of the servers with an axum router.
pub fn router() -> Router {
    let slow = async || {
        tokio::time::sleep(SLOW_TIME).await;
        HELLO
    };
    let compute = async || {
        let begin = Instant::now();
        while begin.elapsed() < COMPUTE_TIME {
            hint::spin_loop();
        }
        HELLO
    };
    let block = async || {
        thread::sleep(BLOCK_TIME);
        HELLO
    };
    Router::new()
        .route("/", get(async || HELLO))
        .route(SLOW, get(slow))
        .route(COMPUTE, get(compute))
        .route(BLOCK, get(block))
}

/// Returns the response.
fn hello() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(HELLO.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
}

/// Returns the address to listen on.
///
/// # Errors
/// If the first argument is not an address.
pub fn address() -> io::Result<SocketAddr> {
    let word = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    word.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("not an address: {word}")))
}

/// Returns the number of cores that this process may run on.
#[must_use]
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Prints that connections are accepted at `address`.
///
/// # Errors
/// If standard output is closed.
pub fn announce(address: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening {address}")?;
    out.flush()
}

/// Returns a listener that shares its port with those of other threads.
///
/// # Errors
/// Errors of the system.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns whether clients begin with the HTTP/2 preface at once, without TLS or an upgrade: if
/// `PEER_HTTP2` is set.
#[must_use]
pub fn speaks_http2() -> bool {
    env::var_os("PEER_HTTP2").is_some()
}

/// Returns lameduck with its defaults, except that there is no lame duck delay unless the
/// environment sets one.
///
/// # Errors
/// If the first argument is not an address, or the environment has an invalid setting.
pub fn host() -> Result<lameduck::Builder, Box<dyn std::error::Error + Send + Sync>> {
    let mut settings = Settings::default();
    settings.plan.lame_duck = Duration::ZERO;
    settings.limits.connections_max = CONNECTIONS_MAX;
    let settings = settings
        .with_env()?
        .main_address(ListenAddress::Tcp(address()?))
        .internal_address(ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
    let announced = |bound: &lameduck::BoundAddresses| drop(bound.main.first().map(announce));
    Ok(Host::builder(settings).on_bound(announced))
}

/// More than the bench opens.
const CONNECTIONS_MAX: usize = 12_000;

/// Length of the accept queue: the same as lameduck's default.
pub const BACKLOG: i32 = 4096;

/// Returns at SIGTERM.
///
/// # Errors
/// If the signal handler cannot be installed.
pub async fn stopped() -> io::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

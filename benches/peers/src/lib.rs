//! What all servers of the comparison share: one answer, one way to be started, one way to be stopped.
//!
//! Each server takes the address to listen on as its only argument, prints `listening <address>` once it does, uses a thread for
//! each core it may run on, sets `TCP_NODELAY`, and ends at SIGTERM. Those that drain have a second route, [`SLOW`], of which the
//! answer takes a while. One that cannot tell HTTP/2 from HTTP/1 by itself speaks the former if [`speaks_http2`].

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use lameduck::{Host, Settings, runtime::ListenAddress};
use std::{
    convert::Infallible,
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    thread,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// The body of every answer.
pub const HELLO: &str = "hello world";

/// Its type, as axum says it.
pub const KIND: &str = "text/plain; charset=utf-8";

/// The path of the answer that takes a while.
pub const SLOW: &str = "/slow";

/// How long it takes.
pub const SLOW_TIME: Duration = Duration::from_millis(200);

/// A hyper service's answer. What takes a while is in a box, so that it costs the others nothing.
pub fn answer<B>(request: &Request<B>) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<B> {
    let slow = request.uri().path() == SLOW;
    async move {
        if slow {
            Box::pin(tokio::time::sleep(SLOW_TIME)).await;
        }
        Ok(hello())
    }
}

/// The answer.
fn hello() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(HELLO.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
}

/// Where to listen.
///
/// # Errors
/// If the first argument is no address.
pub fn address() -> io::Result<SocketAddr> {
    let word = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("not an address: {word}")))
}

/// The cores that this process may run on.
#[must_use]
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Says that connections are accepted at `address`.
///
/// # Errors
/// If nobody listens.
pub fn announce(address: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening {address}")?;
    out.flush()
}

/// A listener that shares its port with those of other threads.
///
/// # Errors
/// The system's.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether clients will begin with the preface of HTTP/2 at once, without TLS or an upgrade: if `PEER_HTTP2` is set.
#[must_use]
pub fn speaks_http2() -> bool {
    env::var_os("PEER_HTTP2").is_some()
}

/// lameduck as it comes, but for its delay, unless the environment sets one.
///
/// # Errors
/// If the first argument is no address, or the environment has a bad setting.
pub fn host() -> Result<lameduck::Builder, Box<dyn std::error::Error + Send + Sync>> {
    let mut settings = Settings::default();
    settings.plan.lame_duck = Duration::ZERO;
    settings.limits.connections_max = CONNECTIONS_MAX;
    let host = Host::builder()
        .settings(settings.with_env()?)
        .main_address(ListenAddress::Tcp(address()?))
        .internal_address(ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
        .on_bound(|bound| drop(bound.main.first().map(announce)));
    Ok(host)
}

/// More than the bench opens.
const CONNECTIONS_MAX: usize = 12_000;

/// As long a queue as lameduck's.
pub const BACKLOG: i32 = 4096;

/// Ready at SIGTERM.
///
/// # Errors
/// If the signal cannot be had.
pub async fn stopped() -> io::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

//! The host of the downstreams: one listener each.

use crate::{
    network::{AnyHost, AnyListener, BoxStream},
    task_count::{Downstreams, counted, of_downstream, spawning},
};
use hyper::{body::Incoming, rt::Executor};
use hyper_util::{
    rt::TokioIo, server::conn::auto::Builder as HttpBuilder, service::TowerToHyperService,
};
use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

/// Name of the host of all downstreams.
pub(crate) const HOST: &str = "downstreams";

/// Serves one connection.
type Serve = Box<dyn FnMut(BoxStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A downstream that is to be served.
pub(crate) struct Server {
    port: u16,
    serve: Serve,
}

/// Serves the downstreams that arrive, until the world ends.
pub(crate) async fn serve_all(host: Arc<dyn AnyHost>, mut servers: UnboundedReceiver<Server>) {
    let _spawned = Downstreams;
    let mut tasks = JoinSet::new();
    while let Some(server) = servers.recv().await {
        let listening = host.listen(server.port);
        tasks.spawn(counted(async move {
            if let Ok(listener) = listening.await {
                serve(listener, server.serve).await;
            }
        }));
    }
    std::future::pending::<()>().await;
}

async fn serve(mut listener: Box<dyn AnyListener>, mut serve: Serve) {
    let mut connections = JoinSet::new();
    while let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
        let serving = of_downstream(|| serve(stream));
        connections.spawn(counted(spawning(serving)));
    }
}

/// Returns the server of an HTTP service, over HTTP/1 and HTTP/2.
pub(crate) fn serve_http<S, B>(port: u16, service: S) -> Server
where
    S: tower_service::Service<http::Request<Incoming>, Response = http::Response<B>>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let serve: Serve = Box::new(move |stream| {
        let service = TowerToHyperService::new(service.clone());
        Box::pin(async move {
            let http = HttpBuilder::new(Counted(TaskTracker::new()));
            // A client that leaves is an error here, but not one of the service under test.
            let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        })
    });
    Server { port, serve }
}

/// Returns the server of a function over a byte stream.
pub(crate) fn serve_tcp<F, Serving>(port: u16, mut function: F) -> Server
where
    F: FnMut(ServerConnection) -> Serving + Send + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    let serve: Serve = Box::new(move |stream| Box::pin(function(ServerConnection { stream })));
    Server { port, serve }
}

/// Spawns hyper's tasks as tasks of the simulation.
#[derive(Clone, Debug)]
struct Counted(TaskTracker);

impl<F> Executor<F> for Counted
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(counted(spawning(future)));
    }
}

/// The downstream's end of a connection: a byte stream.
pub struct ServerConnection {
    stream: BoxStream,
}

impl AsyncRead for ServerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ServerConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").finish_non_exhaustive()
    }
}

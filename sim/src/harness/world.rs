//! The world in which a service under test is built.

use super::ServerConnection;
use super::downstream::{Downstream, Schedule, Server, serve_http, serve_tcp};
use crate::{network::AnyHost, scenario::Fault, trace::Trace};
use hyper::body::Incoming;
use lameduck::Builder;
use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};
use tokio::sync::mpsc::UnboundedSender;

/// Port of the first downstream.
const FIRST_PORT: u16 = 1_000;

/// The world in which your service is built, once per run: the builder of its host, and the
/// services that it depends on.
pub struct TestWorld {
    pub(super) builder: Builder,
    pub(super) network: Arc<dyn AnyHost>,
    pub(super) servers: UnboundedSender<Server>,
    pub(super) trace: Trace,
    pub(super) faults: Vec<Fault>,
    pub(super) ports: AtomicU16,
}

impl TestWorld {
    pub(super) fn new(
        builder: Builder,
        network: Arc<dyn AnyHost>,
        servers: UnboundedSender<Server>,
        trace: Trace,
        faults: Vec<Fault>,
    ) -> Self {
        Self { builder, network, servers, trace, faults, ports: AtomicU16::new(FIRST_PORT) }
    }

    /// Returns the builder of the host, as `Host::builder` does in a `main`. It has a plan, ports
    /// and a request deadline, which must not be changed.
    pub fn host(self) -> Builder {
        self.builder
    }

    /// Adds an HTTP service that yours depends on: an axum router, or another tower service. It
    /// serves HTTP/1 and HTTP/2, so gRPC too. [`Downstream::connector`] has an example.
    pub fn downstream<S, B>(&self, name: &str, service: S) -> Downstream
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
        self.add(name, |port| serve_http(port, service))
    }

    /// Adds a service that yours depends on, as a function that serves one connection: a database,
    /// a queue, or anything else over a byte stream.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// use lameduck_sim::{ServerConnection, explore};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// async fn clock(mut connection: ServerConnection) {
    ///     let _ = connection.write_all(b"tea time").await;
    /// }
    ///
    /// explore(|world| {
    ///     let clock = world.tcp_downstream("clock", clock);
    ///     let time = move || async move {
    ///         let mut time = String::new();
    ///         match clock.connect().await {
    ///             Ok(mut clock) => drop(clock.read_to_string(&mut time).await),
    ///             Err(_) => time.push_str("unknown"),
    ///         }
    ///         time
    ///     };
    ///     world.host().serve(Router::new().route("/time", get(time)))
    /// })
    /// .get("/time").expect(200)
    /// .seeds(0..20)
    /// .run()
    /// .unwrap();
    /// ```
    pub fn tcp_downstream<F, Serving>(&self, name: &str, serve: F) -> Downstream
    where
        F: FnMut(ServerConnection) -> Serving + Send + 'static,
        Serving: Future<Output = ()> + Send + 'static,
    {
        self.add(name, |port| serve_tcp(port, serve))
    }

    fn add(&self, name: &str, server: impl FnOnce(u16) -> Server) -> Downstream {
        let port = self.ports.fetch_add(1, Relaxed);
        // The host of the downstreams lives as long as the world.
        let _ = self.servers.send(server(port));
        let place = u64::from(port - FIRST_PORT);
        let schedule = Schedule::new(name, self.trace.clone(), &self.faults, place);
        Downstream::new(name, Arc::clone(&self.network), port, schedule)
    }
}

impl fmt::Debug for TestWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorld").field("builder", &self.builder).finish_non_exhaustive()
    }
}

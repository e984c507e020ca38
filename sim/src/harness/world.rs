//! The world in which a service under test is built.

use super::ServerConnection;
use super::deploy::{Ledger, Resource};
use super::downstream::{Downstream, Schedule, Server, Serving, serve_http, serve_tcp};
use super::proof::ADDED;
use crate::{
    network::AnyHost,
    scenario::{Fault, SERVER},
    trace::Trace,
};
use hyper::body::Incoming;
use lameduck::Builder;
use std::{
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// Port of the first downstream.
const FIRST_PORT: u16 = 1_000;

/// The world in which your service is built, once per process: the builder of its host, and the
/// services that it depends on.
pub struct TestWorld {
    pub(super) builder: Builder,
    pub(super) network: Arc<dyn AnyHost>,
    pub(super) shared: Arc<Shared>,
    /// In a deploy, the process that is built.
    pub(super) process: Option<ProcessId>,
}

/// The process of a deploy.
#[derive(Clone, Debug)]
pub(super) struct ProcessId {
    /// Its actor in the trace.
    pub(super) name: String,
    /// Cancelled at its exit.
    pub(super) gone: CancellationToken,
}

/// What the processes of a run share.
pub(super) struct Shared {
    pub(super) servers: UnboundedSender<Server>,
    pub(super) trace: Trace,
    pub(super) faults: Vec<Fault>,
    /// When the faults begin to be counted.
    pub(super) serving: Serving,
    /// The names of the downstreams, in the order of their ports.
    pub(super) downstreams: Mutex<Vec<String>>,
    pub(super) count: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn new(
        servers: UnboundedSender<Server>,
        trace: Trace,
        faults: Vec<Fault>,
        serving: Serving,
    ) -> Self {
        let (downstreams, count) = (Mutex::default(), Arc::default());
        Self { servers, trace, faults, serving, downstreams, count }
    }

    /// Returns the number of a downstream, and whether it is new. Without `by_name`, each is.
    fn downstream(&self, name: &str, by_name: bool) -> (u16, bool) {
        let mut names = self.downstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| by_name && known == name);
        let place = known.unwrap_or(names.len());
        if known.is_none() {
            names.push(name.to_owned());
            self.count.store(names.len() as u64, Relaxed);
        }
        (u16::try_from(place).unwrap_or(u16::MAX - FIRST_PORT), known.is_none())
    }
}

impl TestWorld {
    pub(super) const fn new(
        builder: Builder,
        network: Arc<dyn AnyHost>,
        shared: Arc<Shared>,
        process: Option<ProcessId>,
    ) -> Self {
        Self { builder, network, shared, process }
    }

    /// Returns the builder of the host, as `Host::builder` does in a `main`. It has a plan, ports
    /// and a request deadline, which must not be changed.
    pub fn host(self) -> Builder {
        self.builder
    }

    /// Adds an HTTP service that yours depends on: an axum router, or another tower service. It
    /// serves HTTP/1 and HTTP/2, so gRPC too. [`Downstream::connector`] has an example.
    ///
    /// All processes of a [deploy](super::Trials::deploy) share the downstream of the same name:
    /// the first that adds it creates it.
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

    /// Returns the ledger of a database or queue, to record in it what was written and how each
    /// message ended. In a [deploy](super::Trials::deploy) it is judged by D1 to D3.
    ///
    /// ```
    /// # use axum::{Router, extract::State, http::StatusCode, routing::post};
    /// use hyper_util::{client::legacy::{Client, connect::Connect}, rt::TokioExecutor};
    /// use lameduck_sim::{Deploy, Request, TestWorld, explore};
    ///
    /// # type Body = http_body_util::Full<bytes::Bytes>;
    /// # fn shop<C: Connect + Clone + Send + Sync + 'static>(database: Client<C, Body>) -> Router {
    /// #     let order = |State(database): State<Client<C, Body>>, key: String| async move {
    /// #         let commit = http::Request::post("http://database/commit").body(key.into());
    /// #         match database.request(commit.expect("a request")).await {
    /// #             Ok(_) => StatusCode::CREATED,
    /// #             Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    /// #         }
    /// #     };
    /// #     Router::new().route("/orders", post(order)).with_state(database)
    /// # }
    /// explore(|world: TestWorld| {
    ///     let ledger = world.ledger("orders");
    ///     let commit = move |key: String| async move { ledger.wrote(&key) };
    ///     let router = Router::new().route("/commit", post(commit));
    ///     let database = world.downstream("database", router);
    ///     let client = Client::builder(TokioExecutor::new()).build(database.connector());
    ///     world.host().serve(shop(client))
    /// })
    /// .request(Request::post("/orders", "{key}").expect(201))
    /// .seeds(0..2)
    /// .deploy(Deploy::rolling(2))
    /// .run()
    /// .unwrap();
    /// ```
    #[must_use]
    pub fn ledger(&self, name: &str) -> Ledger {
        Ledger::new(name, self.shared.trace.clone())
    }

    /// Returns something that the process must not use after its stop hook ran. In a
    /// [deploy](super::Trials::deploy) it is judged by D4.
    #[must_use]
    pub fn resource(&self, name: &str) -> Resource {
        let process = self.process.as_ref().map_or(SERVER, |process| &process.name);
        let gone = self.process.as_ref().map(|process| process.gone.clone());
        Resource::new(name, process, self.shared.trace.clone(), gone)
    }

    fn add(&self, name: &str, server: impl FnOnce(u16) -> Server) -> Downstream {
        let shared = &self.shared;
        let (place, is_new) = shared.downstream(name, self.process.is_some());
        let port = FIRST_PORT + place;
        if is_new {
            // The host of the downstreams lives as long as the world.
            let _ = shared.servers.send(server(port));
            shared.trace.record(SERVER, ADDED, &[("what", name.into())]);
        }
        let gone = self.process.as_ref().map(|process| process.gone.clone());
        let (trace, count) = (shared.trace.clone(), Arc::clone(&shared.count));
        let serving = shared.serving.clone();
        let schedule = Schedule::new(name, trace, serving, &shared.faults, place.into(), count);
        let schedule = schedule.until(gone);
        Downstream::new(name, Arc::clone(&self.network), port, schedule)
    }
}

impl fmt::Debug for TestWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorld").field("builder", &self.builder).finish_non_exhaustive()
    }
}

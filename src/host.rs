//! The public builder of a host.

#[cfg(feature = "proxy-protocol")]
use crate::proxy_protocol::ProxyReservation;
#[cfg(feature = "tls")]
use crate::tls::TlsReservation;
use crate::{
    background::BackgroundTask,
    driver,
    hook::Hook,
    host_config::{BoundAddresses, HostConfig, ShutdownHandle},
    http::{Body, EndedRequest, HttpService, IntoHttpService, OutcomeObserver},
    internal::route,
    readiness::ReadinessCheck,
    report::{Ended, Report},
    runtime::{Network, Runtime, SignalSource, Spawner},
    settings::Settings,
    unwind::AppValue,
};
use bytes::Bytes;
use std::{fmt, future::Future, sync::Arc};

/// A service with everything that it needs to start, serve and stop.
///
/// There are two entry points with the same features: [`run`](crate::run) for a process that the
/// host owns, and [`Host::run`] inside your tokio runtime. `docs/operations.md` compares them.
///
/// ```no_run
/// # fn router() -> axum::Router { axum::Router::new() }
/// use lameduck::{Host, Settings};
///
/// #[tokio::main]
/// async fn main() {
///     let settings = Settings::default().app_version("1.2.3");
///     let report = Host::builder(settings).serve(router()).run().await;
///     // A return from `main` would wait for every `spawn_blocking`, however long it takes.
///     std::process::exit(report.code().into())
/// }
/// ```
#[must_use = "a host does nothing until it is run"]
pub struct Host<S> {
    pub(crate) service: S,
    pub(crate) config: HostConfig,
}

/// Builds a [`Host`]: what can be a flag or a variable is in [`Settings`], what is code is added
/// here.
#[derive(Debug)]
#[must_use = "a builder does nothing until it gets a service and is run"]
pub struct Builder {
    config: HostConfig,
}

impl Host<()> {
    /// A builder of a host with these settings, such as [`Settings::from_env`] or
    /// [`Settings::default`].
    ///
    /// Settings that no host can run with are refused at the start, with exit code 2. One that this
    /// machine cannot fulfil (a port in use, more connections than descriptors) is exit code 1.
    pub fn builder(settings: Settings) -> Builder {
        Builder { config: HostConfig { settings, ..HostConfig::default() } }
    }
}

impl Builder {
    /// Adds a pair of hooks. Start hooks run in this order, stop hooks in the reverse.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.config.hooks.push(hook);
        self
    }

    /// Adds a check on which readiness depends.
    pub fn readiness_check(mut self, check: ReadinessCheck) -> Self {
        self.config.checks.push(check);
        self
    }

    /// Adds a long-lived task. The drain waits for it.
    pub fn background_task(mut self, task: BackgroundTask) -> Self {
        self.config.background.push(task);
        self
    }

    /// Adds a route to the internal server, at exactly this path. A path that does not begin with a
    /// slash is refused at the start. A built-in route with the same path is replaced.
    ///
    /// The handler gets every method. A `GET` must change nothing, because prefetchers, crawlers
    /// and web pages may send one: check for `POST`, as `examples/axum_pool.rs` does. The [host
    /// name](Settings::internal_hosts) is checked before the handler is called.
    ///
    /// The handler runs on the thread that serves the probes. Code that blocks it delays every
    /// probe: use `await`, or another thread. It has no deadline (P9), and its connection no
    /// maximum age: the handler limits its own time.
    ///
    /// Its [context](crate::RequestContext) has the phase and the cancellation of the process, and
    /// the drain waits for work that it spawns. The drain does not wait for the request itself.
    pub fn internal_route<F, Fut, B>(mut self, path: impl Into<String>, handler: F) -> Self
    where
        F: Fn(http::Request<Body>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = http::Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        self.config.routes.insert(path.into(), route(handler));
        self
    }

    /// Adds the app's metrics to `/metrics`, after the host's and in both formats.
    ///
    /// The names `lameduck_…`, `process_…` and `tokio_…` are taken. The registry is read on the
    /// thread that serves the probes: a collector must not block. A panic in one is logged, and the
    /// scrape gets a 500. A second call replaces the first.
    ///
    /// ```
    /// use lameduck::{Host, Settings, prometheus_client};
    /// use prometheus_client::{metrics::counter::Counter, registry::Registry};
    ///
    /// let orders: Counter = Counter::default();
    /// let mut registry = Registry::with_prefix("shop");
    /// registry.register("orders", "Orders that were stored", orders.clone());
    /// let builder = Host::builder(Settings::default()).metrics(registry);
    /// ```
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self, registry: crate::internal::AppMetrics) -> Self {
        self.config.app_metrics = Some(Arc::new(AppValue::new(registry)));
        self
    }

    /// Calls `observe` once for each request to the main server, when it has ended: for an access
    /// log, a span, or counts by route. `examples/telemetry` does both of the first.
    ///
    /// It is called on the thread that served the request, when its outcome is settled: after a
    /// finished response was passed to the kernel, before the host's 503 to a request that timed
    /// out or was aborted. It must not block: pass what it needs to a channel or to a log that does
    /// not wait. A panic in it is logged. Requests that hyper refused, or that got a 408 or a 431,
    /// are not seen. A second call replaces the first.
    pub fn on_outcome(
        mut self,
        observe: impl Fn(&EndedRequest<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.config.outcome_observer = Some(OutcomeObserver::new(observe));
        self
    }

    /// Calls `reload` when SIGHUP arrives, which then no longer requests the stop: to read
    /// certificates, a log level or a configuration again.
    ///
    /// It runs on the control runtime (with [`Host::run`] on yours), one at a time, and only while
    /// the host serves. A SIGHUP that arrives during a reload begins one more after it. An error or
    /// a panic is logged, and the process continues as before. Its future is dropped at the exit.
    /// With `Builder::systemd`, the unit may have `Type=notify-reload`: `systemctl reload` returns
    /// when the reload has ended. A second call replaces the first.
    pub fn on_reload<F, Fut, E>(mut self, reload: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<crate::http::BoxError>,
    {
        let reload = AppValue::new(reload);
        self.config.reload = Some(Arc::new(move || {
            let reloading = reload();
            Box::pin(async move { reloading.await.map_err(Into::into) })
        }));
        self
    }

    /// Works with the service manager that started this process, by the variables of its
    /// environment. Without them, nothing changes.
    ///
    /// [`run`](crate::run) and [`Host::run`] notify the manager at `NOTIFY_SOCKET` of readiness, of
    /// the stop and of requests in flight, and feed its watchdog (`WATCHDOG_USEC`). They serve the
    /// sockets of `LISTEN_FDS` in place of the configured addresses; the one named `internal`
    /// belongs to the internal server. On systems other than Linux this does nothing.
    #[cfg(feature = "systemd")]
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "nothing to set there"))]
    pub fn systemd(mut self) -> Self {
        #[cfg(target_os = "linux")]
        {
            self.config.systemd = true;
        }
        self
    }

    /// Serves profiles of the process at `/debug/pprof/` on the internal server. Paths and formats
    /// are those of Go's `net/http/pprof`:
    /// `go tool pprof http://localhost:8081/debug/pprof/profile?seconds=5`.
    ///
    /// While a profile is taken, SIGPROF arrives 99 times in a second of CPU time, at the thread
    /// that runs. System calls of the app that do not restart may then return `EINTR`. The first
    /// profile allocates some 20 MB, which stay. Without a profile nothing runs.
    /// `docs/operations.md` lists what profiles need. They exist on Linux only, with
    /// [`run`](crate::run) and [`Host::run`]; elsewhere the response is a 501.
    #[cfg(feature = "profiles")]
    pub fn profiles(mut self) -> Self {
        self.config.profiles = true;
        self
    }

    /// Serves what `dump` returns as `/debug/pprof/heap`, and the other [profiles](Self::profiles).
    ///
    /// Which allocator runs, and whether it samples, is the app's choice. `docs/operations.md` has
    /// the recipe for jemalloc. `dump` runs on a separate thread and may block. The same limit of
    /// one profile at a time applies. A second call replaces the first.
    #[cfg(feature = "profiles")]
    pub fn heap_profile<F, E>(mut self, dump: F) -> Self
    where
        F: Fn() -> Result<Vec<u8>, E> + Send + Sync + 'static,
        E: Into<crate::http::BoxError>,
    {
        self.config.profiles = true;
        let dump = AppValue::new(dump);
        self.config.heap_profile = Some(Arc::new(move || {
            let dumped =
                crate::unwind::catch(&*dump).map_err(|panic| format!("it panicked: {panic}"))?;
            dumped.map_err(|error| crate::errors::Chain(&*error.into()).to_string())
        }));
        self
    }

    /// Makes the main server's TCP listeners speak TLS with this configuration. Unix sockets and
    /// the internal server do without. A second call replaces the first.
    ///
    /// The configuration decides on certificates (by SNI, if its resolver does), versions, client
    /// certificates and tickets. For HTTP/2 its `alpn_protocols` contain `h2`; a client without
    /// ALPN may speak either. To replace a certificate in a running host, use your own
    /// resolver, or [`Settings::tls_files`] in place of this method, whose files are watched.
    ///
    /// Both together are refused at the start, as is a configuration that rustls cannot use.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.config.tls = Some(config);
        self
    }

    /// Calls `callback` once the ports are reserved, before the start hooks. With port 0, this is
    /// where the port is found out. A second call replaces the first.
    ///
    /// The callback runs on the driver's thread, which receives the signals, and must not block:
    /// send the addresses to another task or thread.
    pub fn on_bound(mut self, callback: impl FnOnce(&BoundAddresses) + Send + 'static) -> Self {
        self.config.on_bound = Some(AppValue::new(Box::new(callback)));
        self
    }

    /// A handle that requests the stop by code.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.config.stop.clone()
    }

    /// Serves an axum `Router` or any other tower service.
    ///
    /// Each request has its [`RequestContext`](crate::RequestContext) in its extensions. For axum's
    /// `ConnectInfo<SocketAddr>` pass the same value as to `axum::serve`:
    ///
    /// ```
    /// use axum::{Router, extract::ConnectInfo, routing::get};
    /// use lameduck::{Host, Settings};
    /// use std::net::SocketAddr;
    ///
    /// async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    ///     client.to_string()
    /// }
    ///
    /// let router = Router::new().route("/whoami", get(whoami));
    /// let service = router.into_make_service_with_connect_info::<SocketAddr>();
    /// let host = Host::builder(Settings::default()).serve(service);
    /// ```
    ///
    /// The service is then made again for each request. Clients of a Unix socket have no
    /// `SocketAddr`: they get a 500, and the log says why. A type that implements
    /// `Connected<lameduck::runtime::Address>` takes both.
    pub fn serve<S, Kind>(self, service: S) -> Host<S::Service>
    where
        S: IntoHttpService<Kind>,
    {
        self.serve_hyper(service.into_http_service())
    }

    /// Serves a hyper service for `http::Request<lameduck::Body>`. It finds the
    /// [`RequestContext`](crate::RequestContext) in the [`Body`], which saves what extensions cost.
    pub fn serve_hyper<S: HttpService>(mut self, service: S) -> Host<S> {
        self.config.settings.read_zero_as_none();
        Host { service, config: self.config }
    }
}

impl<S: HttpService> Host<S> {
    /// Runs in the given environment until the end. [`Host::run`] does the same on the operating
    /// system.
    ///
    /// A failure is logged through `tracing`, and is the [`error`](Report::error) of the report
    /// (P14).
    ///
    /// # Cancel safety
    /// Dropping the future drops everything at once, without a drain.
    pub async fn run_in<N, G, R>(self, runtime: Runtime<N, G, R>) -> Report
    where
        N: Network,
        G: SignalSource,
        R: Spawner,
    {
        let Ended { report, leftovers: _leftovers } = self.run_quietly(runtime).await;
        report.log_failure();
        report
    }

    /// The same without logging a failure, for a caller that does so itself.
    pub(crate) async fn run_quietly<N, G, R>(self, runtime: Runtime<N, G, R>) -> Ended
    where
        N: Network,
        G: SignalSource,
        R: Spawner,
    {
        let service = Arc::new(self.service);
        let host = Host { service: service.clone(), config: self.config };
        host.run_shared(runtime).await.with(service)
    }
}

impl<S: HttpService> Host<Arc<S>> {
    #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "nothing to take"))]
    async fn run_shared<N, G, R>(mut self, mut runtime: Runtime<N, G, R>) -> Ended
    where
        N: Network,
        G: SignalSource,
        R: Spawner,
    {
        if let Some(refusal) = self.config.refusal() {
            let worst_case = self.config.settings.plan.worst_case();
            return Ended::new(Report::failed_to_start(refusal, worst_case), self.config);
        }
        // The certificate is read in the time of the start (P7).
        let begin = runtime.clock.now();
        #[cfg(feature = "tls")]
        let tls = match self.config.take_tls(&*runtime.clock, &mut runtime.signals).await {
            Ok(tls) => tls,
            Err(report) => return Ended::new(report, self.config),
        };
        let Self { service, config } = self;
        #[cfg(feature = "proxy-protocol")]
        let has_headers = !config.settings.proxy_protocol_addresses.is_empty();
        // Each kind of reservation is one more copy of the code that serves it. So with both
        // features there is one kind for headers, TLS, and both.
        #[cfg(all(feature = "proxy-protocol", feature = "tls"))]
        if has_headers || tls.is_some() {
            let wrap = |reservation, header| {
                TlsReservation::new(ProxyReservation::new(reservation, header), tls.clone())
            };
            return Box::pin(driver::run(service, config, runtime, begin, wrap)).await;
        }
        #[cfg(all(feature = "proxy-protocol", not(feature = "tls")))]
        if has_headers {
            let wrap = ProxyReservation::new;
            return Box::pin(driver::run(service, config, runtime, begin, wrap)).await;
        }
        #[cfg(all(feature = "tls", not(feature = "proxy-protocol")))]
        if tls.is_some() {
            let wrap = |reservation, _| TlsReservation::new(reservation, tls.clone());
            return Box::pin(driver::run(service, config, runtime, begin, wrap)).await;
        }
        driver::run(service, config, runtime, begin, |reservation, _| reservation).await
    }
}

impl<S: HttpService> Host<S> {
    /// A handle that requests the stop by code.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.config.stop.clone()
    }

    /// Replaces the service by another that `wrap` builds from it, for example by one that counts
    /// requests outside of all layers. Everything else stays.
    ///
    /// ```
    /// use lameduck::{Body, Host, Settings};
    /// use std::convert::Infallible;
    ///
    /// let service = tower::service_fn(|_: http::Request<Body>| async {
    ///     Ok::<_, Infallible>(http::Response::new(String::from("tea")))
    /// });
    /// let host = Host::builder(Settings::default()).serve(service);
    /// let host = host.map_service(|service| service);
    /// ```
    pub fn map_service<T: HttpService>(self, wrap: impl FnOnce(S) -> T) -> Host<T> {
        Host { service: wrap(self.service), config: self.config }
    }
}

impl<S> fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("config", &self.config).finish_non_exhaustive()
    }
}

//! The host: what it is told before it lives.

use crate::{
    background::{Background, TaskContext},
    driver,
    hook::{BoxFuture, Hook},
    http::{Body, BoxError, HttpService, IntoHttpService, Limits},
    internal::{HostStatus, InternalRoute, route},
    lifecycle::Plan,
    readiness::Check,
    report::Report,
    runtime::{Address, ListenAddress, Network, Runtime, SignalSource, Spawner},
    settings::Settings,
};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A service and everything it needs to live and die well.
///
/// In a process of its own, [`main`](crate::main) runs it. In a tokio runtime of yours:
/// ```no_run
/// # fn router() -> tower::util::BoxCloneSyncService<http::Request<lameduck::Body>,
/// #     http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible> { unimplemented!() }
/// #[tokio::main]
/// async fn main() {
///     let report = lameduck::Host::builder().app_version("1.2.3").tower(router()).run().await;
///     // To return would wait for a `spawn_blocking` that is stuck, for ever.
///     std::process::exit(report.code().into())
/// }
/// ```
#[must_use = "a host does nothing until it is run"]
pub struct Host<S> {
    pub(crate) service: S,
    pub(crate) config: HostConfig,
}

/// Tells a [`Host`] what it needs, before it gets its service.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it gets a service and is run"]
pub struct Builder {
    config: HostConfig,
}

/// All that a host is told, but for its service.
#[derive(Default)]
pub(crate) struct HostConfig {
    pub(crate) settings: Settings,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) background: Vec<Background>,
    pub(crate) checks: Vec<Check>,
    pub(crate) routes: BTreeMap<String, InternalRoute>,
    pub(crate) stop: ShutdownHandle,
    pub(crate) on_bound: Option<OnBound>,
    /// What reads the use of the machine; the door brings it.
    #[cfg(feature = "metrics")]
    pub(crate) process_stats: Option<Box<dyn crate::runtime::ProcessStats>>,
    pub(crate) observer: Option<Observer>,
    #[cfg(all(feature = "systemd", target_os = "linux"))]
    pub(crate) systemd: bool,
}

pub(crate) type OnBound = Box<dyn FnOnce(&BoundAddresses) + Send>;

/// Tells somebody outside how the life goes, from what the board says. It runs on the internal thread, which a blocked worker
/// does not stop, and ends with the internal server.
pub(crate) type Observer = Box<dyn FnOnce(Arc<HostStatus>) -> BoxFuture<()> + Send>;

/// The addresses a host has, once its ports are reserved: with port 0, those that the system chose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoundAddresses {
    /// Of the main server, in the order of the settings.
    pub main: Vec<Address>,
    /// Of the internal server.
    pub internal: Address,
}

impl Host<()> {
    /// A host with the default settings; see [`Settings`] for reading them from the environment.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// All settings at once, such as [`Settings::from_env`]. Call it first: it replaces what was set before.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.config.settings = settings;
        self
    }

    /// Adds an address of the main server to those that are chosen already; without any it is `[::]:8080`.
    pub fn main_address(mut self, address: ListenAddress) -> Self {
        self.config.settings.add_main_address(address);
        self
    }

    /// The address of the internal server. Default `[::]:8081`.
    pub fn internal_address(mut self, address: ListenAddress) -> Self {
        self.config.settings.internal_address = address;
        self
    }

    /// Adds a host name that the internal server responds to, in addition to IP addresses and `localhost`. `.example` stands for
    /// every name below it, `*` for any. A request for another name gets a 421, so that no web page can read `/status` by DNS
    /// rebinding. Requests by a Unix socket, and those without a host (HTTP/1.0), are not checked.
    pub fn internal_host(mut self, name: impl Into<String>) -> Self {
        self.config.settings.internal_hosts.push(name.into());
        self
    }

    /// The version of the app, which every handler can see. Default: empty.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.config.settings.app_version = version.into();
        self
    }

    /// The deadline of every request, from its complete head to the head of its answer. Default 5 s; `None` or zero
    /// for none.
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.settings.request_timeout = timeout;
        self
    }

    /// How long each step of the shutdown may take.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.config.settings.plan = plan;
        self
    }

    /// The platform's grace period, which the plan's worst case must fit into. Default 30 s; zero for no check.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.config.settings.grace_period = grace_period;
        self
    }

    /// Limits on connections and requests. What no connection could live with, such as a zero, is refused at the start.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.settings.limits = limits;
        self
    }

    /// Adds a pair of hooks. Start hooks run in this order, stop hooks in the reverse.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.config.hooks.push(hook);
        self
    }

    /// Adds a long-lived task. It begins with Serving, is told at the stop, and the drain waits for it. If it fails or panics
    /// while Serving, the host stops with exit code 1; returning `Ok` early is fine.
    pub fn background<F, Fut, E>(mut self, name: impl Into<String>, task: F) -> Self
    where
        F: FnOnce(TaskContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.config.background.push(Background {
            name: name.into(),
            run: Box::new(move |context| {
                let running = task(context);
                Box::pin(async move { running.await.map_err(Into::into) })
            }),
        });
        self
    }

    /// Adds a readiness check.
    pub fn readiness_check(mut self, check: Check) -> Self {
        self.config.checks.push(check);
        self
    }

    /// Mounts a route of your own on the internal server, at exactly this path, which begins with a slash: one that does not is
    /// refused at the start. It may take the place of a built-in one.
    ///
    /// It gets every method. Change nothing on a `GET`, which prefetchers, crawlers and web pages may send: check for `POST`, as
    /// `examples/axum_pool.rs` does. The [host name](Self::internal_host) is checked before.
    ///
    /// `handler` runs on the one thread that answers the probes. If it blocks that thread, it silences them: `await`, or leave what
    /// blocks to a thread of its own.
    pub fn internal_route<F, Fut, B>(mut self, path: impl Into<String>, handler: F) -> Self
    where
        F: Fn(http::Request<Body>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = http::Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        self.config.routes.insert(path.into(), route(handler));
        self
    }

    /// Works with the service manager that started this process, by the variables of its environment; without them, nothing
    /// changes. [`main`](crate::main) and [`Host::run`] notify the one at `NOTIFY_SOCKET` of readiness, of the stop and of what is in
    /// flight, feed its watchdog (`WATCHDOG_USEC`), and serve the sockets of `LISTEN_FDS` in place of the configured addresses: one
    /// named `internal` is the internal server's. On systems other than Linux this does nothing.
    #[cfg(feature = "systemd")]
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "nothing to set there"))]
    pub fn systemd(mut self) -> Self {
        #[cfg(target_os = "linux")]
        {
            self.config.systemd = true;
        }
        self
    }

    /// Calls `tell` once the ports are reserved, before the start hooks: whoever listens on port 0 learns its port here.
    ///
    /// It runs on the driver's thread, which hears the signals, and must not block: send the addresses to whoever waits for them.
    pub fn on_bound(mut self, tell: impl FnOnce(&BoundAddresses) + Send + 'static) -> Self {
        self.config.on_bound = Some(Box::new(tell));
        self
    }

    /// A handle that asks for a stop by code.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.config.stop.clone()
    }

    /// Hosts a tower service, such as an axum `Router` as it is.
    ///
    /// Each request carries its [`RequestContext`](crate::RequestContext) in its extensions. For axum's `ConnectInfo<SocketAddr>`
    /// hand over what you would hand to `axum::serve`:
    ///
    /// ```
    /// use axum::{Router, extract::ConnectInfo, routing::get};
    /// use std::net::SocketAddr;
    ///
    /// async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    ///     client.to_string()
    /// }
    ///
    /// let router = Router::new().route("/whoami", get(whoami));
    /// let host = lameduck::Host::builder().tower(router.into_make_service_with_connect_info::<SocketAddr>());
    /// ```
    ///
    /// The service is made for each request, which only such a host pays for. Clients of a Unix socket have no `SocketAddr`: they
    /// get a 500, and the log says why. A type of yours that implements `Connected<lameduck::runtime::Address>` takes both.
    pub fn tower<S, Kind>(self, service: S) -> Host<S::Service>
    where
        S: IntoHttpService<Kind>,
    {
        self.hyper(service.into_http_service())
    }

    /// Hosts a hyper service, which takes `Request<lameduck::Body>`.
    pub fn hyper<S: HttpService>(mut self, service: S) -> Host<S> {
        self.config.settings.read_zero_as_none();
        Host { service, config: self.config }
    }
}

impl<S: HttpService> Host<S> {
    /// Lives in a given world, until it is over. [`run`](Self::run) does it in the real one.
    ///
    /// A failure is logged through `tracing`, and is the report's [`error`](Report::error) (P14).
    ///
    /// # Cancel safety
    /// Dropping the future drops everything at once, without a drain.
    pub async fn run_in<N, G, R>(self, runtime: Runtime<N, G, R>) -> Report
    where
        N: Network,
        G: SignalSource,
        R: Spawner,
    {
        let report = self.run_quietly(runtime).await;
        report.log_failure();
        report
    }

    /// The same, for a caller that says itself why it failed.
    pub(crate) async fn run_quietly<N, G, R>(self, runtime: Runtime<N, G, R>) -> Report
    where
        N: Network,
        G: SignalSource,
        R: Spawner,
    {
        if let Some(refusal) = self.config.refusal() {
            return driver::bad_plan(refusal, self.config.settings.plan.worst_case());
        }
        driver::run(self.service, self.config, runtime).await
    }

    /// A handle that asks for a stop by code.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.config.stop.clone()
    }
}

impl HostConfig {
    /// Why no host can live with what it was told (P14).
    fn refusal(&self) -> Option<String> {
        if let Err(error) = self.settings.check_minimums() {
            return Some(error.to_string());
        }
        let path = self.routes.keys().find(|path| !path.starts_with('/'))?;
        Some(format!("internal route {path:?}: a path begins with a slash"))
    }
}

/// Asks a host to stop, like a signal would. Clones ask the same host.
#[derive(Clone, Debug, Default)]
pub struct ShutdownHandle(CancellationToken);

impl ShutdownHandle {
    /// Asks for the stop. A second call changes nothing.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Ready once the stop was asked for.
    pub(crate) async fn asked(&self) {
        self.0.cancelled().await;
    }
}

impl<S> fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("parts", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("settings", &self.settings)
            .field("hooks", &self.hooks)
            .field("background", &self.background)
            .field("checks", &self.checks)
            .field("routes", &self.routes.keys())
            .finish_non_exhaustive()
    }
}

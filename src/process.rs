//! The entry points: a host on the operating system.

pub(crate) mod end;

#[cfg(all(feature = "systemd", target_os = "linux"))]
use crate::systemd;
use crate::{
    Host, HttpService, PortSharing, Report, Settings,
    host_config::HostConfig,
    host_error::{HostError, HostErrorKind},
    http::BoxError,
    os::{
        CurrentRuntime, OsNetwork, ReusePort, SocketOptions, SpareFds, ThreadPerWorker, TokioClock,
        UnixSignals, block_signals, connections_max, connections_max_beside, cores,
        descriptors_max, preflight, with_limit,
    },
    report::Ended,
    runtime::{Clock, Runtime, Seed, Spawner},
    unwind::catch,
};
use end::{conclude, print_failure, with_limit_named};
use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::runtime::Handle;

impl<S: HttpService> Host<S> {
    /// Runs inside the current tokio runtime until the stop is complete, and returns the report.
    ///
    /// It has every feature of [`run`](crate::run): the same phases, drain, hooks, probes, metrics,
    /// signals, sockets and messages of a service manager. What differs follows from whose process
    /// it is:
    ///
    /// | | [`run`](crate::run) | `Host::run` |
    /// |---|---|---|
    /// | handlers run on | one single-threaded runtime per worker | your runtime, work stealing included |
    /// | accept loops | one per worker | one |
    /// | tasks and checks run on | a control runtime of two threads | your runtime |
    /// | hooks run on | a thread each | a thread each, or your runtime if it is single-threaded |
    /// | internal server (P16) | its own thread | its own thread |
    /// | driver and signals | their own thread | a task of your runtime |
    /// | bound of the stop (P7) | enforced by a watchdog, exit code 5 | kept as long as your runtime runs; no watchdog, because the process is yours to end |
    /// | the end | exits | returns the [`Report`] |
    ///
    /// SIGTERM, SIGINT, SIGQUIT and SIGHUP are received from the first poll on. The signal handlers
    /// stay installed: after the report, none of these signals ends the process.
    ///
    /// # Performance
    /// The accept loop is a task, and each connection is a task of your runtime. In a
    /// multi-threaded runtime they are spread over its threads as work arrives: a handler that
    /// computes stalls one thread, and others take over its waiting tasks. One that blocks while
    /// little else happens may stall all connections, although other threads are idle. Tasks move
    /// between threads, counters are shared, and each idle connection keeps a task (about 1 KB).
    /// One HTTP/1 connection uses one core at a time, as does the framing of one HTTP/2 connection;
    /// the handlers of HTTP/2 streams are separate tasks. In a `current_thread` runtime everything
    /// that [`run`](crate::run) says of one worker applies to the whole service.
    ///
    /// # The caller's part
    /// - The end: return the report from `main`, or its exit code is lost. The drop of a runtime,
    ///   at the end of a `#[tokio::main]`, waits for every `spawn_blocking`, and no signal ends
    ///   that wait. `std::process::exit(report.code().into())`, as in the example at [`Host`], or
    ///   `runtime.shutdown_background()` avoids it.
    /// - The log: a failure is logged as `the host failed`. If no subscriber takes that, it is one
    ///   line `error: …` on standard error (P14), as is a report with the exit code 3 or 4.
    ///   [`run`](crate::run#the-log) lists what a subscriber must not do.
    /// - The threads: a handler that blocks a thread of the runtime may delay the driver, and with
    ///   it signals and deadlines, for as long as it blocks.
    ///
    /// # Errors
    /// Outside of a tokio runtime nothing runs, and the report has the error, with exit code 1.
    ///
    /// # Panics
    /// If the tokio runtime has no time driver or no io driver.
    ///
    /// # Cancel safety
    /// Dropping the future drops everything without a drain. Other threads and tasks release their
    /// part, the addresses among it, a moment later.
    pub async fn run(self) -> Report {
        let Ended { report, leftovers: _leftovers } = self.run_here().await;
        let report = with_limit_named(report);
        report.log_failure();
        if !crate::log::takes_errors() {
            print_failure(&report);
        }
        report
    }

    async fn run_here(mut self) -> Ended {
        systemd::inspect();
        let signals = match UnixSignals::install() {
            Ok(signals) => signals,
            Err(error) => {
                let message = "cannot install the signal handlers";
                let kind = HostErrorKind::System;
                return self.not_started(HostError::with_source(kind, message, error));
            }
        };
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let spawner = CurrentRuntime::new(Handle::current());
        let network = match network(&mut self.config, spawner.workers()) {
            Ok(network) => network,
            Err(error) => return self.not_started(error),
        };
        let seed = seed(&*clock);
        self.with_process_stats()
            .with_profiler()
            .reading_files_aside()
            .run_quietly(Runtime { clock, network, signals, spawner, seed })
            .await
    }

    /// Adds the source of the process metrics.
    #[cfg(feature = "metrics")]
    fn with_process_stats(mut self) -> Self {
        #[cfg(target_os = "linux")]
        {
            self.config.process_stats = crate::os::ProcStats::new().ok().map(|process_stats| {
                Box::new(process_stats) as Box<dyn crate::runtime::ProcessStats>
            });
        }
        self
    }

    #[cfg(not(feature = "metrics"))]
    fn with_process_stats(self) -> Self {
        self
    }

    /// Adds the sampler of the profiles.
    #[cfg(all(feature = "profiles", target_os = "linux"))]
    fn with_profiler(mut self) -> Self {
        self.config.profiler = Some(Box::new(crate::os::SamplingProfiler));
        self
    }

    #[cfg(not(all(feature = "profiles", target_os = "linux")))]
    fn with_profiler(self) -> Self {
        self
    }

    /// Reads the files of a certificate on a separate thread.
    #[cfg(feature = "tls")]
    fn reading_files_aside(mut self) -> Self {
        self.config.reads_aside = true;
        self
    }

    #[cfg(not(feature = "tls"))]
    fn reading_files_aside(self) -> Self {
        self
    }

    fn not_started(self, error: HostError) -> Ended {
        let report = Report::failed_to_start(error, self.config.settings.plan.worst_case());
        Ended::new(report, self.config).with(self.service)
    }
}

/// Runs a host that owns its process, and exits with the code of its [`Report`].
///
/// The main server gets one single-threaded runtime per core, the internal server a thread, and a
/// watchdog bounds the stop. [`Host::run`] has the same features inside your tokio runtime; it has
/// a table of the differences.
///
/// `build` runs in the context of the control runtime, on which background tasks and readiness
/// checks will run; each hook has a thread in the same context. A signal that arrives meanwhile is
/// handled once it returns.
///
/// ```no_run
/// use lameduck::{Host, Settings};
///
/// # fn router() -> axum::Router { axum::Router::new() }
/// fn main() {
///     lameduck::run(|| Ok(Host::builder(Settings::from_env()?).serve(router())))
/// }
/// ```
///
/// # Errors
/// If `build` returns an error, any type will do: `anyhow::Error` by `.map_err(Into::into)`. The
/// exit code is 2 if a [`SettingsError`](crate::SettingsError) is in its chain of causes, and 1
/// otherwise. A panic in `build` is such an error, too. Every failure is one line `error: …` on
/// standard error.
///
/// # What may block and what may await
/// `build`, and the callback of [`on_bound`](crate::Builder::on_bound), run on the driver's thread:
/// no stop is carried out until they return. They must not block and cannot await. Create a client
/// that connects lazily in `build`. Create what must be awaited in a start hook, which runs before
/// the first request, and pass it on in a cell:
/// ```no_run
/// use axum::{Router, extract::State, routing::get};
/// use lameduck::{Hook, Host, Settings};
/// use std::sync::{Arc, OnceLock};
///
/// # struct Pool;
/// # impl Pool {
/// #     async fn connect() -> std::io::Result<Self> { Ok(Self) }
/// #     async fn name(&self) -> String { String::new() }
/// # }
/// async fn hello(State(pool): State<Arc<OnceLock<Pool>>>) -> String {
///     pool.get().expect("the start hook has filled it").name().await
/// }
///
/// fn main() {
///     lameduck::run(|| {
///         let pool = Arc::new(OnceLock::new());
///         let router = Router::new().route("/", get(hello)).with_state(pool.clone());
///         let connect = || async move { Pool::connect().await.map(|new| drop(pool.set(new))) };
///         let host = Host::builder(Settings::from_env()?).hook(Hook::on_start("pool", connect));
///         Ok(host.serve(router))
///     })
/// }
/// ```
/// A handler may await. A handler that blocks stalls its worker with all of its connections: use
/// `spawn_blocking`. `block_in_place` panics in a handler; it works in hooks, background tasks and
/// checks. Two tasks or checks that block at one time hold up the timers and sockets of all these.
///
/// # One thread per worker
/// Each worker is a single-threaded runtime with its own listeners. Requests are cheap because
/// nothing is locked, stolen or written by two cores. The costs:
/// - A handler that blocks or computes for long stalls every connection of its worker. It can stall
///   requests of *other* workers, too: a client that all handlers share (hyper's, reqwest's,
///   tonic's) drives each pooled connection by a task on the worker that opened it. A request on
///   another worker that gets this connection waits until that worker runs again. Use
///   `spawn_blocking`, or create the client in `build` behind a service that sends its requests on
///   the control runtime (`tokio::runtime::Handle::current()` in `build`).
/// - One connection is served by one worker. An HTTP/2 client that sends everything on one
///   connection, such as a gRPC channel or a proxy with `h2` upstreams, uses one core. Let it open
///   several connections.
/// - The kernel spreads connections by a hash of their addresses (`SO_REUSEPORT`), not by load. Few
///   connections are spread unevenly: of 8 connections on 4 workers, one worker has 4 or more in 45
///   of 100 cases. A worker with slow requests keeps getting its share, and no other worker takes
///   over its work.
///
/// Choose [`Host::run`] in a multi-threaded runtime if handlers compute, if few connections carry
/// most of the traffic, or if the app needs work stealing. Choose this function for many
/// connections and short handlers.
///
/// # The log
/// The host logs through `tracing`, also from its own threads. Without a subscriber nothing is
/// logged: if the exit code is not 0, standard error has one line that says why.
///
/// A subscriber must neither block these threads nor panic when the log's reader is gone. With the
/// feature `cli`, `cli::logging::install` installs such a one. Give `tracing_subscriber::fmt` a
/// writer that does not block, such as `tracing_appender::non_blocking`, and
/// `log_internal_errors(false)`, because it prints its errors with `eprintln!`.
///
/// # Panics
/// If called inside a tokio runtime, such as under `#[tokio::main]`. Use [`Host::run`] there.
pub fn run<S, Build>(build: Build) -> !
where
    S: HttpService,
    Build: FnOnce() -> Result<Host<S>, BoxError>,
{
    run_with(RunOptions::new(), build)
}

/// [`run`] with options.
///
/// # Panics
/// If called inside a tokio runtime, such as under `#[tokio::main]`. Use [`Host::run`] there.
pub fn run_with<S, Build>(options: RunOptions<'_>, build: Build) -> !
where
    S: HttpService,
    Build: FnOnce() -> Result<Host<S>, BoxError>,
{
    block_signals();
    let report = match prepare() {
        Ok(prepared) => prepared.run(build),
        Err(error) => conclude(not_built(error), build),
    };
    if let Some(finish) = options.finish {
        // A panic here must not change the exit code (P13).
        let _ = catch(|| finish(&report));
    }
    exit(report.code())
}

/// Options of [`run_with`].
#[derive(Default)]
#[non_exhaustive]
pub struct RunOptions<'a> {
    finish: Option<Finish<'a>>,
}

type Finish<'a> = Box<dyn FnOnce(&Report) + 'a>;

impl<'a> RunOptions<'a> {
    /// The options that [`run`] uses.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `finish` last, before the exit and after every failure, such as to flush a log. The
    /// watchdog bounds it: half a second after the plan's worst case. If the host never ran, it has
    /// five seconds after the failure; after a stop five seconds, or until half a second after the
    /// plan's worst case if that is sooner. The `error: …` line is printed before, and what the
    /// host holds of the app is dropped. Default: nothing.
    #[must_use]
    pub fn finish(mut self, finish: impl FnOnce(&Report) + 'a) -> Self {
        self.finish = Some(Box::new(finish));
        self
    }
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("finish", &self.finish.is_some()).finish()
    }
}

/// What a process has before its host is built.
struct Prepared {
    /// The driver has it and the main thread to itself. While the host runs, no user code runs
    /// there, so none can delay a signal (P7).
    driving: tokio::runtime::Runtime,
    /// Two threads, so that a task which blocks one does not hold up the others.
    control: tokio::runtime::Runtime,
    signals: UnixSignals,
}

fn prepare() -> Result<Prepared, HostError> {
    let failed = |what: &'static str| {
        move |error: io::Error| {
            HostError::with_source(HostErrorKind::System, what, with_limit(error))
        }
    };
    // Before anything is opened: see there.
    systemd::inspect();
    let driving =
        preflight::single_threaded().map_err(failed("cannot start the driver's runtime"))?;
    // Install the handlers first. Process 1 of a container has no default action for SIGTERM, so
    // until here the signal has no effect. Also before there is another thread: child processes
    // inherit the signals that a thread blocks, and a user's child could not be ended any more.
    let signals = driving
        .block_on(async { UnixSignals::install() })
        .map_err(failed("cannot install the signal handlers"))?;
    let control = preflight::multi_threaded("lameduck-control", 2)
        .map_err(failed("cannot start the control runtime"))?;
    Ok(Prepared { driving, control, signals })
}

impl Prepared {
    /// Runs a host until its report, and drops it.
    fn run<S, Build>(self, build: Build) -> Report
    where
        S: HttpService,
        Build: FnOnce() -> Result<Host<S>, BoxError>,
    {
        let Self { driving, control, signals } = self;
        let ended = driving.block_on(async {
            let built = {
                let _context = control.enter();
                host_of(build)
            };
            let mut host = match built {
                Ok(host) => host,
                Err(error) => return Ended::new(not_built(error), ()),
            };
            let clock: Arc<dyn Clock> = Arc::new(TokioClock::unpausable());
            let workers = host.config.settings.workers.unwrap_or_else(cores);
            let network = match network(&mut host.config, workers) {
                Ok(network) => network,
                Err(error) => return host.not_started(error),
            };
            let spawner = ThreadPerWorker::new(clock.clone(), workers)
                .with_user_runtime(control.handle().clone());
            let seed = seed(&*clock);
            host.with_process_stats()
                .with_profiler()
                .reading_files_aside()
                .run_quietly(Runtime { clock, network, signals, spawner, seed })
                .await
        });
        let report = {
            // A destructor of the app may spawn a task, or drop a runtime.
            let _context = control.enter();
            conclude(ended.report, ended.leftovers)
        };
        // A blocked `spawn_blocking` would delay the drop of the runtime for ever.
        control.shutdown_background();
        driving.shutdown_background();
        report
    }
}

fn not_built(error: HostError) -> Report {
    Report::failed_to_start(error, Duration::ZERO)
}

/// Builds the host. A panic is an error.
fn host_of<S, Build>(build: Build) -> Result<Host<S>, HostError>
where
    Build: FnOnce() -> Result<Host<S>, BoxError>,
{
    let built = catch(build).map_err(|panic| {
        let message = format!("panicked while the host was built: {panic}");
        HostError::new(HostErrorKind::Build, message)
    })?;
    built.map_err(HostError::build)
}

/// Descriptors that only the internal server may use when all others are gone (P16).
const SPARE_DESCRIPTORS: usize = 4;

/// The system's network, with the sockets that the service manager hands over.
fn network(config: &mut HostConfig, workers: NonZeroUsize) -> Result<OsNetwork, HostError> {
    let settings = &config.settings;
    let spare_fds = SpareFds::new(SPARE_DESCRIPTORS).map_err(|error| {
        let message = "cannot reserve file descriptors";
        HostError::with_source(HostErrorKind::System, message, with_limit(error))
    })?;
    let reuse_port = match settings.port_sharing {
        PortSharing::Exclusive => ReusePort::No,
        PortSharing::Shared => ReusePort::Yes,
    };
    let options = SocketOptions {
        backlog: settings.backlog,
        nodelay: settings.tcp_nodelay,
        keepalive: settings.tcp_keepalive,
        reuse_port,
        unix_mode: settings.unix_mode,
    };
    let network = OsNetwork::new(options).with_spare_fds(spare_fds);
    systemd::install(config, &network)
        .map_err(|message| HostError::new(HostErrorKind::Listen, message))?;
    limit_connections(&mut config.settings, workers)?;
    Ok(network)
}

/// Sets the default connection limit, and compares the limit with that of descriptors. Inherited
/// sockets are among the addresses by now.
fn limit_connections(settings: &mut Settings, workers: NonZeroUsize) -> Result<(), HostError> {
    let limits = &settings.limits;
    // The default does not know the workers, whose own descriptors are no connection's.
    if !limits.is_connections_max_set && limits.connections_max == connections_max() {
        let addresses =
            settings.main_addresses_or_default().len() + settings.proxy_protocol_addresses.len();
        settings.limits.connections_max = connections_max_beside(workers.get(), addresses);
    }
    let limit = settings.limits.connections_max;
    let Some(most) = descriptors_max().filter(|most| limit > *most) else { return Ok(()) };
    let knobs = settings.knobs(&["connections-max"]);
    let message = format!(
        "limits.connections_max={limit}{knobs} exceeds the descriptor limit {most}; \
         lower it or raise the limit (ulimit -n, LimitNOFILE)"
    );
    Err(HostError::new(HostErrorKind::System, message))
}

/// Stands in where the feature `systemd` is off, and on systems without systemd.
#[cfg(not(all(feature = "systemd", target_os = "linux")))]
mod systemd {
    pub(super) const fn inspect() {}

    #[expect(clippy::unnecessary_wraps, reason = "the signature of the real one")]
    pub(super) const fn install(
        _: &mut crate::host_config::HostConfig,
        _: &crate::os::OsNetwork,
    ) -> Result<(), String> {
        Ok(())
    }
}

/// A seed from the time and the process id. It only spreads the moments at which connections
/// announce their close, so it may be easy to guess.
fn seed(clock: &dyn Clock) -> Seed {
    let nanos = clock.wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    Seed(u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or(0) ^ u64::from(std::process::id()))
}

#[expect(clippy::disallowed_methods, reason = "this is the entry point of the process")]
fn exit(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

#[cfg(test)]
mod tests;

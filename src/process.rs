//! The door of the process: the real world, put together for a host.

#[cfg(all(feature = "systemd", target_os = "linux"))]
use crate::systemd;
use crate::{
    Host, HttpService, PortSharing, Report, driver,
    errors::{chain, is_bad_setting},
    host::HostConfig,
    lifecycle::Verdict,
    os::{
        CurrentRuntime, OsNetwork, ReusePort, SocketOptions, SpareFds, ThreadPerWorker, TokioClock,
        UnixSignals, block_signals, cores, descriptors_max, preflight, stdio::write_stderr_line,
        with_limit,
    },
    runtime::{Clock, Runtime, Seed, Spawner},
    unwind::catch,
};
use std::{
    error::Error,
    io,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::runtime::Handle;

impl<S: HttpService> Host<S> {
    /// Lives in the real world, inside the tokio runtime that calls it, until it is over. The worker is a task of that runtime;
    /// only the internal server has a thread. There is no watchdog: the process is not ours to end. For a host that owns its
    /// process, see [`main`](crate::main).
    ///
    /// SIGTERM, SIGINT, SIGQUIT and SIGHUP are heard from the first poll on. Their handlers stay for the rest of the process's life:
    /// after the report, none of them ends it.
    ///
    /// # One worker
    /// There is one accept loop, a task, and each connection is a task of your runtime. In a multi-threaded runtime these tasks are
    /// spread over its threads as there is work: a handler that blocks stalls one thread, and others take over its tasks. That is the
    /// difference to [`main`](crate::main#one-thread-a-worker), whose workers are single-threaded and share nothing. It costs: tasks
    /// that move, counters that are shared, a task for each idle connection (about 1 KB) and one accept loop for all. One HTTP/1
    /// connection, and the framing of one HTTP/2 connection, still use one core at a time; the handlers of HTTP/2 streams are tasks of
    /// their own and spread. In a `current_thread` runtime everything said there of one worker is true of the whole service.
    ///
    /// # What it leaves to you
    /// - The end. Return the report from your `main`, or its exit code is lost. A `spawn_blocking` that is stuck holds the drop of your runtime for ever, which is where `#[tokio::main]` waits, and
    ///   no signal ends that. End with `std::process::exit(report.code().into())`, as the example at [`Host`] does, or by
    ///   `runtime.shutdown_background()` if the runtime is yours to build.
    /// - The log. A failure is logged as `the host failed`. If no subscriber takes that, it is one line `error: …` on
    ///   stderr (P14). [`main`](crate::main#the-log) says what a subscriber of your own must not do.
    /// - The threads. The driver and its signals share your runtime with the handlers: one that blocks a thread, in a runtime of
    ///   several too, can keep a signal and a deadline from being heard for as long as it blocks. [`main`](crate::main) is immune.
    ///
    /// # Panics
    /// If called outside a tokio runtime with its time and io drivers enabled.
    ///
    /// # Cancel safety
    /// Dropping the future drops everything without a drain. What other threads and tasks hold, the addresses among it, is free a
    /// moment later, not at once.
    pub async fn run(self) -> Report {
        let report = self.run_here().await;
        report.log_failure();
        if !crate::log::takes_errors() {
            say_failure(&report);
        }
        report
    }

    async fn run_here(mut self) -> Report {
        systemd::inspect();
        let signals = match UnixSignals::install() {
            Ok(signals) => signals,
            Err(error) => {
                return self
                    .not_started(format!("cannot install the signal handlers: {}", chain(&error)));
            }
        };
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let spawner = CurrentRuntime::new(Handle::current());
        let network = match network(&mut self.config) {
            Ok(network) => network,
            Err(error) => return self.not_started(error),
        };
        let seed = seed(&*clock);
        self.metered().run_quietly(Runtime { clock, network, signals, spawner, seed }).await
    }

    /// Only a process in the real world has something to measure.
    #[cfg(feature = "metrics")]
    fn metered(mut self) -> Self {
        #[cfg(target_os = "linux")]
        {
            self.config.process_stats = crate::os::ProcStats::new().ok().map(|process_stats| {
                Box::new(process_stats) as Box<dyn crate::runtime::ProcessStats>
            });
        }
        self
    }

    #[cfg(not(feature = "metrics"))]
    fn metered(self) -> Self {
        self
    }

    fn not_started(self, error: String) -> Report {
        driver::failed_to_start(Verdict::Failed, error, self.config.settings.plan.worst_case())
    }
}

/// Runs a host that owns its process: one single-threaded runtime a core for the main server, a thread for the internal one, a
/// watchdog. Never returns: the process exits with the code of the [`Report`].
///
/// `build` runs in the context of the control runtime, where the hooks, the background tasks and the readiness checks will run;
/// a signal that comes meanwhile is heard once it returns. If it fails and a
/// [`SettingsError`](crate::SettingsError) is anywhere in its error's chain of causes, the exit code is 2; with anything
/// else, a panic included, it is 1. An `anyhow::Error` is as good as any: `.map_err(Into::into)`.
///
/// `finish` runs last, whatever happened, for what must be done before the exit, such as flushing a log. The watchdog bounds it: at
/// the bound of the stop, or, after a start that failed before there was anything to stop, after five seconds. A report with an error
/// is said in one line on stderr, before it.
///
/// ```no_run
/// # fn router() -> tower::util::BoxCloneSyncService<http::Request<lameduck::Body>,
/// #     http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible> { unimplemented!() }
/// fn main() -> ! {
///     lameduck::main(|| Ok(lameduck::Host::builder().settings(lameduck::Settings::from_env()?).tower(router())), |_| {})
/// }
/// ```
///
/// # What may block, and what may await
/// `build`, and what [`on_bound`](crate::Builder::on_bound) is given, run on the driver's thread: until they return, no stop is
/// carried out. They must not block, nor can they await. A client that connects lazily can be made in `build`; what must be awaited is
/// made by a start hook, which runs before the first request, and handed on in a cell:
/// ```no_run
/// use axum::{Router, extract::State, routing::get};
/// use lameduck::{Hook, Host};
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
/// fn main() -> ! {
///     lameduck::main(
///         || {
///             let pool = Arc::new(OnceLock::new());
///             let router = Router::new().route("/", get(hello)).with_state(pool.clone());
///             let connect = || async move { Pool::connect().await.map(|connected| drop(pool.set(connected))) };
///             Ok(Host::builder().hook(Hook::on_start("pool", connect)).tower(router))
///         },
///         |_| {},
///     )
/// }
/// ```
/// A handler may await. If it blocks, it blocks its worker, a single-threaded runtime with all of its connections: that is what
/// `spawn_blocking` is for. `block_in_place` panics there; in hooks, background tasks and checks it works.
///
/// # One thread a worker
/// Each worker is a runtime of one thread with listeners of its own, which is what makes requests cheap: no lock, no stealing, no
/// cache line that two cores write. It has costs:
/// - A handler that blocks, or computes for long, stalls every connection of its worker. And it can stall requests of *other*
///   workers: a client that all handlers share (hyper's, reqwest's, tonic's) drives each pooled connection by a task on the worker
///   that opened it. A request elsewhere that is given this connection waits until that worker runs again. Use `spawn_blocking`, or
///   build the client in `build`, behind a service that runs its requests on the control runtime
///   (`tokio::runtime::Handle::current()` there).
/// - One connection is served by one worker. An HTTP/2 client that sends everything by one connection, such as a gRPC channel or a
///   proxy with `h2` upstreams, uses one core, however many there are. Let it open several connections.
/// - The kernel spreads connections by a hash of their addresses (`SO_REUSEPORT`), not by load. Few connections are spread
///   unevenly: of 8 among 4 workers, one worker has 4 or more in 45 of 100 cases. A worker with slow requests goes on
///   getting its share, and no other takes work from it.
///
/// Choose [`Host::run`] in a multi-threaded runtime if handlers compute, if few connections carry most of the traffic, or if the app
/// needs work stealing. Choose this function for many connections and short handlers.
///
/// # The log
/// The host logs by `tracing`, from its own threads, too. A subscriber of your own must neither block them nor panic when the reader of
/// the log is gone: give `tracing_subscriber::fmt` a writer that does not block, such as `tracing_appender::non_blocking`, and
/// `log_internal_errors(false)`, since it tells its errors by `eprintln!`.
///
/// # Panics
/// If called inside a tokio runtime, such as under `#[tokio::main]`: there, [`Host::run`] is the way.
pub fn main<S, Build, Finish>(build: Build, finish: Finish) -> !
where
    S: HttpService,
    Build: FnOnce() -> Result<Host<S>, Box<dyn Error + Send + Sync>>,
    Finish: FnOnce(&Report),
{
    block_signals();
    let report = live(build).unwrap_or_else(|report| *report);
    say_failure(&report);
    if report.reason.is_none() {
        // There was no life, and so no stop that would have armed a watchdog.
        bound_the_end();
    }
    // A panic here must not change what the exit says (P13).
    let _ = catch(|| finish(&report));
    exit(report.code())
}

fn live<S, Build>(build: Build) -> Result<Report, Box<Report>>
where
    S: HttpService,
    Build: FnOnce() -> Result<Host<S>, Box<dyn Error + Send + Sync>>,
{
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| {
            let error = with_limit(error);
            Box::new(driver::failed_to_start(
                Verdict::Failed,
                format!("{what}: {}", chain(&error)),
                Duration::ZERO,
            ))
        }
    };
    // Before anything is opened: see there.
    systemd::inspect();
    // The driver has this thread to itself: nothing of the user's runs here, so nothing of the user's makes it deaf (P7).
    let driving =
        preflight::single_threaded().map_err(failed("cannot start the driver's runtime"))?;
    // First of all: process 1 of a container has no default action for SIGTERM, and would be deaf until here. And before there is
    // another thread: what a thread blocks its children inherit, and a user's child process could not be ended any more.
    let signals = driving
        .block_on(async { UnixSignals::install() })
        .map_err(failed("cannot install the signal handlers"))?;
    // Two threads, so that a hook which blocks one does not hold the others.
    let control = preflight::multi_threaded("lameduck-control", 2)
        .map_err(failed("cannot start the control runtime"))?;
    let report = driving.block_on(async {
        let built = {
            let _context = control.enter();
            catch(build).unwrap_or_else(|panic| {
                Err(format!("panicked while the host was built: {panic}").into())
            })
        };
        let mut host = built.map_err(|error| {
            let text =
                catch(|| chain(&*error)).unwrap_or_else(|panic| format!("panicked: {panic}"));
            Box::new(if is_bad_setting(&*error) {
                driver::bad_plan(text, Duration::ZERO)
            } else {
                driver::failed_to_start(Verdict::Failed, text, Duration::ZERO)
            })
        })?;
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::unpausable());
        let network = match network(&mut host.config) {
            Ok(network) => network,
            Err(error) => return Ok(host.not_started(error)),
        };
        let workers = host.config.settings.workers.unwrap_or_else(cores);
        let spawner = ThreadPerWorker::new(clock.clone(), workers)
            .map_err(failed("cannot start the watchdog"))?
            .with_user_runtime(control.handle().clone());
        let seed = seed(&*clock);
        Ok(host.metered().run_quietly(Runtime { clock, network, signals, spawner, seed }).await)
    });
    // A `spawn_blocking` that is stuck would hold the drop of the runtime for ever.
    control.shutdown_background();
    driving.shutdown_background();
    report
}

/// How long `finish` may take after a start that failed before there was a life with a plan (P14).
const FINISH_MAX: Duration = Duration::from_secs(5);

/// A process that is out of threads gets no watchdog; its `finish` is run all the same.
fn bound_the_end() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::unpausable());
    if let Ok(spawner) = ThreadPerWorker::new(clock.clone(), NonZeroUsize::MIN) {
        spawner.arm_watchdog(clock.now() + FINISH_MAX);
    }
}

/// Writes the failure, if there is one, as one line to standard error (P14).
fn say_failure(report: &Report) {
    if let Some(error) = &report.error {
        write_stderr_line(&format!("error: {}", one_line(error)));
    }
}

/// Users' errors may have several lines; standard error gets one (P14).
fn one_line(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Descriptors that only the internal server may use when all others are gone (P16).
const SPARE_DESCRIPTORS: usize = 4;

/// The system's network, with what the service manager hands over.
fn network(config: &mut HostConfig) -> Result<OsNetwork, String> {
    let settings = &config.settings;
    if let Some(most) = descriptors_max()
        && settings.limits.connections_max > most
    {
        return Err(format!(
            "limits.connections_max={}{} exceeds the descriptor limit {most}; lower it or raise the limit (ulimit -n, \
             LimitNOFILE)",
            settings.limits.connections_max,
            settings.knobs(&["connections-max"])
        ));
    }
    let spare_fds = SpareFds::new(SPARE_DESCRIPTORS).map_err(|error| {
        format!("cannot reserve file descriptors: {}", chain(&with_limit(error)))
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
    systemd::install(config, &network)?;
    Ok(network)
}

/// Stands in where the feature `systemd` is off, and on systems without systemd.
#[cfg(not(all(feature = "systemd", target_os = "linux")))]
mod systemd {
    pub(super) const fn inspect() {}

    #[expect(clippy::unnecessary_wraps, reason = "the signature of the real one")]
    pub(super) const fn install(
        _: &mut crate::host::HostConfig,
        _: &crate::os::OsNetwork,
    ) -> Result<(), String> {
        Ok(())
    }
}

/// Chance in the real world: it spreads the moments at which clients are told to go, so it need not be hard to guess.
fn seed(clock: &dyn Clock) -> Seed {
    let nanos = clock.wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    Seed(u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or(0) ^ u64::from(std::process::id()))
}

#[expect(clippy::disallowed_methods, reason = "this is the door of the process")]
fn exit(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_the_host_is_built_is_a_failed_start() {
        // It ended the process with 101, which tells an operator nothing.
        type Answers = tower::util::BoxCloneSyncService<
            http::Request<crate::Body>,
            http::Response<String>,
            io::Error,
        >;
        fn built<T>(_: impl FnOnce(Answers) -> T) -> Result<T, Box<dyn Error + Send + Sync>> {
            panic!("no such file")
        }
        let report = live(|| built(|service| Host::builder().tower(service))).unwrap_err();
        assert_eq!(report.code(), 1);
        assert_eq!(
            report.error.as_deref(),
            Some("panicked while the host was built: no such file")
        );
    }
}

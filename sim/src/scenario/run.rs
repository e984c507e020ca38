//! Runs a scenario in a world and collects the outcome.

use super::{Client, Fault, Filter, Scenario, StopBy};
use crate::{
    app::{Actor, Drill},
    client::{self, ClientId, ProxiedRoute, Route, TlsRoute},
    harness::downstream::{HOST as DOWNSTREAMS, Server, serve_all},
    host_run::{self, HostRun, INTERNAL_PORT, MAIN_PORT, PROXIED_PORT, SECOND_PORT},
    network::{
        AnyHost,
        Attendance::{Awaited, Background},
        Faults, HostNetwork, LinkChange, LinuxWorld, Overrun, Stalls, SynFilter, World,
        WorldConfig,
    },
    observe, scripted_signals,
    signals::SignalSender,
    trace::Trace,
};
use lameduck::{Builder, Host, HttpService, Report, ShutdownHandle, runtime::Seed};
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// Name of the host under test.
pub const SERVER: &str = "server";
/// Name of the host of the clients. The clients are called `client-0`, `client-1`, …, in the order
/// of the scenario.
pub const CLIENTS: &str = "clients";
/// Name of the prober's host.
pub const PROBER: &str = "prober";

/// How long a client waits for anything.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Number of void runs after which a scenario in real time is given up.
const VOID_RUNS_MAX: u64 = 5;

/// Outcome of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that happened.
    pub trace: Trace,
    /// The host's report; `None` if the watchdog ended the process first.
    pub report: Option<Report>,
    /// When the last job returned, in the world's time, or which hosts' jobs did not.
    pub ended: Result<Duration, Overrun>,
    /// How much later than its latency a packet may arrive in this world.
    pub grain: Duration,
    /// Whether this world's connections can be reset.
    pub resets: bool,
    /// How late anything may happen because the machine is busy; zero in simulated time.
    pub tolerance: Duration,
    /// Longest time for which the machine let the world wait; zero in simulated time.
    pub stalled: Duration,
    /// Number of runs before this one that were void.
    pub void_runs: u64,
}

impl Outcome {
    /// Whether the machine let the world wait for so long that the run proves nothing.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.stalled * 2 > self.tolerance
    }
}

/// Runs `scenario` with the default app.
///
/// # Panics
/// If the host or a client panics unexpectedly.
#[must_use]
pub fn run<W: World>(scenario: &Scenario) -> Outcome {
    run_with::<W, _>(scenario, Drill::new)
}

/// Runs `scenario` in real time with the default app, again while the machine stalls, but only a
/// few times.
///
/// # Panics
/// If the host or a client panics unexpectedly.
#[must_use]
pub fn run_in_real_time(scenario: &Scenario) -> Outcome {
    run_while_void(scenario, Outcome::is_void)
}

/// Runs `scenario` in real time, again while the run `is_void`, but only a few times.
pub(crate) fn run_while_void(scenario: &Scenario, is_void: impl Fn(&Outcome) -> bool) -> Outcome {
    let mut void_runs = 0;
    loop {
        let outcome = Outcome { void_runs, ..run::<LinuxWorld>(scenario) };
        if !is_void(&outcome) || void_runs == VOID_RUNS_MAX {
            return outcome;
        }
        void_runs += 1;
    }
}

/// Runs `scenario` with another app.
///
/// # Panics
/// If the host or a client panics unexpectedly.
#[must_use]
pub fn run_with<W: World, S: HttpService>(
    scenario: &Scenario,
    factory: impl FnOnce(Actor) -> S + Send + 'static,
) -> Outcome {
    run_life::<W, S, _, _>(
        scenario,
        ServedApp::Default,
        |builder, actor, _| builder.serve_hyper(factory(actor)),
        |_| std::future::ready(()),
    )
}

/// The app of a run.
pub(crate) enum ServedApp {
    /// The default app, which records its own events.
    Default,
    /// A user's service: its log is recorded, its requests are marked, and its downstreams are
    /// served as they arrive.
    User(UnboundedReceiver<Server>),
}

impl ServedApp {
    fn subscriber(&self, trace: Trace) -> tracing::Dispatch {
        match self {
            Self::Default => observe::observer(SERVER, trace),
            Self::User(_) => observe::service_observer(SERVER, trace),
        }
    }
}

/// Runs `scenario` with the host that `build` creates. `at_exit` is called when its process exits.
pub(crate) fn run_life<W, S, Exit, Exiting>(
    scenario: &Scenario,
    app: ServedApp,
    build: impl FnOnce(Builder, Actor, Arc<dyn AnyHost>) -> Host<S> + Send + 'static,
    at_exit: Exit,
) -> Outcome
where
    W: World,
    S: HttpService,
    Exit: FnOnce(Trace) -> Exiting + Send + 'static,
    Exiting: Future<Output = ()> + Send + 'static,
{
    let trace = Trace::new();
    if scenario.tls {
        trace.hide_payload();
    }
    let mut world = W::new(config(scenario), trace.clone());
    let (sender, signals) = scripted_signals(SERVER, trace.clone());
    let report = Arc::new(Mutex::new(None));
    let stalls = Arc::new(stalls(scenario, &trace));
    let life = HostRun {
        // Its exact times do not survive the ticks of the other world.
        order: (scenario.reordered && W::GRAIN.is_zero()).then_some(Seed(scenario.seed)),
        stalls: Some(Arc::clone(&stalls)),
        ..host_run(scenario)
    };
    let faults = Arc::new(faults(scenario, &trace, &stalls));
    let resets = resets(scenario);
    let subscriber = app.subscriber(trace.clone());
    let exited = CancellationToken::new();
    world.spawn(SERVER, Awaited, {
        let exited = exited.clone();
        let (report, trace, stops) = (Arc::clone(&report), trace.clone(), scenario.stops.clone());
        let reloads = scenario.reloads.as_ref().map(|reloads| reloads.at_ms.clone());
        let subscriber = subscriber.clone();
        move |host| async move {
            let any_host: Arc<dyn AnyHost> = Arc::new(host.clone());
            let build = |builder, actor| build(builder, actor, any_host);
            let (handle, handed) = tokio::sync::oneshot::channel();
            let asking_sender = sender.clone();
            let asking = async move {
                if let Ok(handle) = handed.await {
                    ask_to_stop(stops, asking_sender, handle).await;
                }
                std::future::pending::<()>().await;
            };
            let network = host.with_faults(Arc::clone(&faults));
            let reloading = act_at(reloads.unwrap_or_default(), move || sender.reload());
            let asks = |asker| drop(handle.send(asker));
            let running =
                life.live_with(host, network, build, signals, trace.clone(), asks, subscriber);
            let ended = tokio::select! {
                biased;
                () = asking => None,
                () = reloading => None,
                () = act_at(resets, || faults.reset_all()) => None,
                () = stalls.run() => None,
                ended = running => ended,
            };
            exited.cancel();
            at_exit(trace).await;
            client::pause(W::LINGER.unwrap_or_default()).await;
            *report.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        }
    });
    let attendance = if W::LINGER.is_none() { Awaited } else { Background };
    for (n, client) in scenario.clients.iter().enumerate() {
        let client_id = ClientId::new(client_name(n), trace.clone())
            .with_max_wait(MAX_WAIT)
            .with_noise(client.noise_ms.map(Duration::from_millis))
            .with_bodies(matches!(app, ServedApp::User(_)));
        let port = if client.expects_header() {
            PROXIED_PORT
        } else if scenario.second_address && n % 2 == 1 {
            SECOND_PORT
        } else {
            MAIN_PORT
        };
        let job = use_host(client.clone(), n, client_id, port, scenario.tls);
        world.spawn(CLIENTS, attendance, job);
    }
    let pause = Duration::from_millis(scenario.probe_every_ms);
    world.spawn(PROBER, Background, {
        let trace = trace.clone();
        move |host| host_run::probe(host, SERVER.to_owned(), trace, pause, exited)
    });
    for fault in &scenario.faults {
        if let Fault::Hold { at_ms, for_ms } = fault
            && !scenario.clients.is_empty()
        {
            let link = (CLIENTS, SERVER);
            world.change_link_at(Duration::from_millis(*at_ms), link, LinkChange::Hold);
            world.change_link_at(Duration::from_millis(at_ms + for_ms), link, LinkChange::Release);
        }
    }
    // Connection tasks have no subscriber attached, so their events are recorded by the default
    // one.
    let listening = tracing::dispatcher::set_default(&subscriber);
    if let ServedApp::User(servers) = app {
        world.spawn(DOWNSTREAMS, Background, move |host| serve_all(Arc::new(host), servers));
    }
    let ended = world.run(scenario.limit());
    drop(listening);
    let report = report.lock().unwrap_or_else(PoisonError::into_inner).take();
    let stalled = trace.stalled();
    let (resets, tolerance) = (W::RESETS, W::TOLERANCE);
    let grain = W::GRAIN;
    Outcome { trace, report, ended, grain, resets, tolerance, stalled, void_runs: 0 }
}

/// Returns the faults at the host's own end of the network.
fn faults(scenario: &Scenario, trace: &Trace, stalls: &Arc<Stalls>) -> Faults {
    let mut faults = Faults::new(SERVER, trace.clone(), Seed(scenario.seed));
    faults.stall(Arc::clone(stalls));
    if scenario.syn_filter == Filter::Missing {
        faults.without_seals();
    }
    if let Some(most) = scenario.limits.connections_max {
        faults.record_above(most);
    }
    for fault in &scenario.faults {
        match fault {
            Fault::PartialIo { bytes } => {
                faults.partial_io(usize::try_from(*bytes).unwrap_or(usize::MAX));
            }
            Fault::NoDescriptors { at_ms, for_ms } => {
                faults.fail_accepts(
                    Duration::from_millis(*at_ms),
                    Duration::from_millis(at_ms + for_ms),
                );
            }
            Fault::AcceptAborted => faults.abort_accepts(),
            Fault::Hold { .. }
            | Fault::ResetAll { .. }
            | Fault::Stall { .. }
            | Fault::Downstream { .. } => {}
        }
    }
    faults
}

fn stalls(scenario: &Scenario, trace: &Trace) -> Stalls {
    let ms = Duration::from_millis;
    let stall = |fault: &Fault| match fault {
        Fault::Stall { worker, at_ms, for_ms } => Some((*worker, ms(*at_ms), ms(at_ms + for_ms))),
        Fault::Hold { .. }
        | Fault::PartialIo { .. }
        | Fault::NoDescriptors { .. }
        | Fault::AcceptAborted
        | Fault::ResetAll { .. }
        | Fault::Downstream { .. } => None,
    };
    Stalls::new(trace.clone(), scenario.faults.iter().filter_map(stall).collect())
}

/// Returns the times at which all connections are reset.
fn resets(scenario: &Scenario) -> Vec<u64> {
    scenario
        .faults
        .iter()
        .filter_map(|fault| match fault {
            Fault::ResetAll { at_ms } => Some(*at_ms),
            Fault::Hold { .. }
            | Fault::PartialIo { .. }
            | Fault::NoDescriptors { .. }
            | Fault::Stall { .. }
            | Fault::AcceptAborted
            | Fault::Downstream { .. } => None,
        })
        .collect()
}

/// Calls `act` at each of these times. Never returns.
async fn act_at(mut times_ms: Vec<u64>, mut act: impl FnMut()) {
    times_ms.sort_unstable();
    let mut now_ms = 0;
    for at_ms in times_ms {
        client::pause(Duration::from_millis(at_ms - now_ms)).await;
        now_ms = at_ms;
        act();
    }
    std::future::pending::<()>().await;
}

/// Returns the name of the n-th client in the trace.
pub(crate) fn client_name(n: usize) -> String {
    format!("client-{n}")
}

fn config(scenario: &Scenario) -> WorldConfig {
    let (min, max) = scenario.latency_ms;
    let mut config = WorldConfig::new(Seed(scenario.seed))
        .with_latency(Duration::from_millis(min), Duration::from_millis(max));
    config.syn_filter = match scenario.syn_filter {
        Filter::Available => SynFilter::Available,
        Filter::Missing => SynFilter::Missing,
    };
    config
}

fn host_run(scenario: &Scenario) -> HostRun {
    HostRun {
        name: SERVER.to_owned(),
        plan: scenario.plan(),
        request_timeout: scenario.request_timeout_ms.map(Duration::from_millis),
        limits: scenario.limits(),
        hooks: scenario.hooks.clone(),
        tasks: scenario.tasks.clone(),
        checks: scenario.checks.clone(),
        reloads: scenario.reloads.clone(),
        clock_skew_ppm: scenario.clock_skew_ppm,
        tls: scenario.tls,
        workers: NonZeroUsize::new(scenario.workers).unwrap_or(NonZeroUsize::MIN),
        seed: Seed(scenario.seed),
        order: None,
        second_address: scenario.second_address,
        expects_headers: scenario.expects_headers(),
        stalls: None,
    }
}

async fn ask_to_stop(
    mut stops: Vec<super::StopRequest>,
    signals: SignalSender,
    handle: ShutdownHandle,
) {
    stops.sort_by_key(|stop| stop.at_ms);
    let mut now_ms = 0;
    for stop in stops {
        client::pause(Duration::from_millis(stop.at_ms - now_ms)).await;
        now_ms = stop.at_ms;
        match stop.by {
            StopBy::Handle => {
                signals.note("shutdown handle");
                handle.stop();
            }
            StopBy::Sigterm | StopBy::Sigint | StopBy::Sigquit | StopBy::Sighup => {
                stop.by.signal().into_iter().for_each(|signal| signals.send(signal));
            }
        }
    }
}

/// Returns the job of a client. A separate function, so that the compiler can prove the future
/// `Send`.
fn use_host<H: HostNetwork>(
    client: Client,
    n: usize,
    client_id: ClientId,
    port: u16,
    tls: bool,
) -> impl FnOnce(H) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + 'static {
    move |host| {
        Box::pin(async move {
            let internal = Route::new(host.clone(), SERVER, INTERNAL_PORT);
            let bare = Route::new(host, SERVER, port);
            let (pieces, pause_ms) =
                client.header.map_or((Vec::new(), 0), |header| (header.pieces(n), header.pause_ms));
            let pause = Duration::from_millis(pause_ms);
            let main = ProxiedRoute::new(bare.clone(), client_id.clone(), pieces, pause);
            if tls {
                let main = TlsRoute::new(main, client_id.clone());
                client.use_host(n, &client_id, &main, (&internal, &bare)).await;
            } else {
                client.use_host(n, &client_id, &main, (&internal, &bare)).await;
            }
            client_id.tell("is done", &[]);
        })
    }
}

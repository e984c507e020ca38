//! Prepares everything for the first turn: the bound ports and the running internal server.

use super::{CutOnDrop, Driver, hooks::HookSlot};
#[cfg(feature = "metrics")]
use crate::internal::Metrics;
#[cfg(feature = "profiles")]
use crate::internal::Profiles;
use crate::{
    hook::{BoxFuture, HookState},
    host_config::{BoundAddresses, HostConfig},
    host_error::{HostError, HostErrorKind},
    http::{
        CloseRaces, EvictionGrace, HttpService, SealBarrier, ServerConfig, ServerState,
        WorkerCommand, WorkerContext, WorkerRuntime, run,
    },
    internal::{AllowedHosts, Heartbeats, HostStatus, InternalService, watch},
    lifecycle::{HookBudget, Lifecycle, Moment, Phase},
    runtime::{
        Clock, Listener, Network, ProxyHeader, Reservation, Runtime, Seed, ServerRole,
        SignalSource, Spawner,
    },
    unwind::unwind,
    user_tasks::UserTasks,
};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Ports that are bound and do not listen yet.
struct Reserved<M, I> {
    main: Vec<M>,
    internal: I,
}

fn reserve<N: Network, M, G, R: Spawner>(
    config: &HostConfig,
    runtime: &Runtime<N, G, R>,
    wrap: impl Fn(N::Reservation, ProxyHeader) -> M,
) -> Result<Reserved<M, N::Reservation>, HostError> {
    let settings = &config.settings;
    let workers = runtime.spawner.workers().get();
    let reserve = |address, flags: &[&str]| {
        runtime.network.reserve(address, ServerRole::Main, workers).map_err(|error| {
            let knobs = settings.knobs(flags);
            let message = format!("cannot bind the main address {address}{knobs}");
            HostError::with_source(HostErrorKind::Listen, message, error)
        })
    };
    let mut main = Vec::new();
    for address in settings.main_addresses_or_default() {
        main.push(wrap(reserve(address, &["addr", "port"])?, ProxyHeader::Refused));
    }
    for address in &settings.proxy_protocol_addresses {
        main.push(wrap(reserve(address, &["proxy-protocol"])?, ProxyHeader::Required));
    }
    let address = &settings.internal_address;
    let internal = runtime.network.reserve(address, ServerRole::Internal, 1).map_err(|error| {
        let knobs = settings.knobs(&["internal-addr", "internal-port"]);
        let message = format!("cannot bind the internal address {address}{knobs}");
        HostError::with_source(HostErrorKind::Listen, message, error)
    })?;
    Ok(Reserved { main, internal })
}

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    /// Reserves the ports, and sets up the driver before its first turn. When this returns, the
    /// internal server listens. After an error `config` holds all that it held of the app, except
    /// what has run.
    pub(super) async fn new<N: Network>(
        service: Arc<S>,
        config: &mut HostConfig,
        runtime: Runtime<N, G, R>,
        begin: Moment,
        wrap: impl Fn(N::Reservation, ProxyHeader) -> M,
    ) -> Result<Self, HostError> {
        let budgets: Vec<HookBudget> = config.hooks.iter().map(|hook| hook.budget).collect();
        let lifecycle = Lifecycle::new(config.settings.plan, &budgets, begin)
            .map_err(|error| config.settings.explain(error))?;
        let reserved = reserve(config, &runtime, wrap)?;
        let Runtime { clock, network: _, signals, spawner, seed } = runtime;
        let (main, internal) = servers(config, &clock, seed);
        let heartbeats = Arc::new(Heartbeats::new(spawner.workers().get()));
        let results: Vec<_> =
            config.checks.iter().map(crate::readiness::ReadinessCheck::result).collect();
        let status = HostStatus::new(
            main.clone(),
            heartbeats.clone(),
            results.clone(),
            config.settings.plan,
            reserved.internal.local(),
            reserved.main.iter().map(Reservation::local).collect(),
        );
        #[cfg(feature = "tls")]
        let status = status.with_certificate(config.certificate.clone());
        let status = Arc::new(status);
        if let Some(callback) = config.on_bound.take() {
            let bound = BoundAddresses {
                main: status.main_addresses.clone(),
                internal: status.internal_address.clone(),
            };
            unwind(async move { callback.into_inner()(&bound) }).await.map_err(|panic| {
                HostError::new(HostErrorKind::Build, format!("on_bound panicked: {panic}"))
            })?;
        }
        let address = reserved.internal.local();
        let knobs = config.settings.knobs(&["internal-addr", "internal-port"]);
        let listeners = reserved.internal.listen().await.map_err(|error| {
            let message = format!("cannot listen on the internal address {address}{knobs}");
            HostError::with_source(HostErrorKind::Listen, message, error)
        })?;
        let (internal_commands, commands) = mpsc::unbounded_channel();
        let server = internal_server(config, &internal, &status, listeners, commands);
        let check_tasks = UserTasks::new();
        for (check, result) in std::mem::take(&mut config.checks).into_iter().zip(results) {
            check_tasks
                .spawn(&spawner, (), check.run(clock.clone(), result, status.serving.clone()))
                .map_err(|error| {
                    let message = "cannot run the checks";
                    HostError::with_source(HostErrorKind::System, message, error)
                })?;
        }
        #[cfg(feature = "tls")]
        if let Some(certificate) = config.certificate.take() {
            certificate
                .watch(clock.clone())
                .and_then(|watching| check_tasks.spawn(&spawner, (), watching))
                .map_err(|error| {
                    let message = "cannot watch the TLS certificate";
                    HostError::with_source(HostErrorKind::System, message, error)
                })?;
        }
        let hooks = std::mem::take(&mut config.hooks);
        Ok(Self {
            _guard: CutOnDrop([main.clone(), internal.clone()]),
            lifecycle,
            clock,
            signals,
            spawner,
            main,
            internal,
            status,
            heartbeats,
            service,
            reservations: reserved.main,
            hooks: hooks
                .into_iter()
                .map(|hook| HookSlot {
                    name: hook.name,
                    state: HookState::Waiting(hook.start),
                    give_up: CancellationToken::new(),
                })
                .collect(),
            hook_tasks: UserTasks::new(),
            listening: None,
            is_listen_due: false,
            background: UserTasks::new(),
            checks: check_tasks,
            reloads: UserTasks::new(),
            reload_since: None,
            reload_again: false,
            workers: Vec::new(),
            main_closing: None,
            releasing: None,
            internal_commands,
            internal_server: Some(server),
            internal_end: None,
            is_internal_closing: false,
            wait_log: None,
            stop_asked: false,
            failure: None,
            config: std::mem::take(config),
        })
    }
}

/// Creates the shared state of the main and of the internal server.
fn servers(
    config: &HostConfig,
    clock: &Arc<dyn Clock>,
    seed: Seed,
) -> (Arc<ServerState>, Arc<ServerState>) {
    let settings = &config.settings;
    let main = ServerConfig {
        app_version: settings.app_version.as_str().into(),
        request_timeout: settings.request_timeout,
        lame_duck: settings.plan.lame_duck,
        streams: settings.plan.streams,
        limits: settings.limits,
        close_races: CloseRaces::Counted,
        eviction_grace: EvictionGrace::MAIN,
        seed,
        outcome_observer: config.outcome_observer.clone(),
        process: None,
    };
    let main = Arc::new(ServerState::new(clock.clone(), main));
    let internal = ServerConfig {
        app_version: main.config.app_version.clone(),
        request_timeout: None,
        lame_duck: Duration::ZERO,
        streams: Duration::ZERO,
        limits: settings.limits.internal(),
        close_races: CloseRaces::Ignored,
        eviction_grace: EvictionGrace::INTERNAL,
        seed,
        outcome_observer: None,
        process: Some(main.clone()),
    };
    (main, Arc::new(ServerState::new(clock.clone(), internal)))
}

/// Returns the task of the internal server, with the worker watch and the observer.
fn internal_server<L: Listener>(
    config: &mut HostConfig,
    server: &Arc<ServerState>,
    status: &Arc<HostStatus>,
    listeners: Vec<L>,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
) -> BoxFuture<()> {
    let routes = InternalService::new(
        status.clone(),
        config.routes.clone(),
        AllowedHosts::new(
            &config.settings.internal_hosts,
            config.settings.knobs(&["internal-hosts"]),
        ),
        #[cfg(feature = "metrics")]
        Metrics::new(status.clone(), config.process_stats.take(), config.app_metrics.clone()),
        #[cfg(feature = "profiles")]
        config.profiles.then(|| Profiles::new(config.profiler.take(), config.heap_profile.clone())),
    );
    let clock = status.clock.clone();
    server.publish(Phase::Serving, clock.now());
    let server = server.clone();
    let serving = async move {
        let worker = Arc::new(WorkerContext::new(
            server,
            Arc::new(routes),
            Arc::default(),
            WorkerRuntime::current(),
        ));
        run(worker, listeners, &mut commands, Arc::new(SealBarrier::new(1))).await;
    };
    let watching = watch(clock, status.main.clone(), status.heartbeats.clone());
    let observing = config.observer.take().map(|observe| observe(status.clone()));
    // If the observer ends, the internal server continues.
    let observing = async move {
        if let Some(observing) = observing {
            observing.await;
        }
        pending::<()>().await;
    };
    Box::pin(async move {
        tokio::select! {
            biased;
            // Polled before the server, so that the observer sees the last phase too.
            () = observing => {}
            () = serving => {}
            () = watching => {}
        }
    })
}

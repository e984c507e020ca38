//! Plays a deploy in a world.

use super::{
    platform::Deploy,
    process::Version,
    rollout::{DeployRun, host_name},
    rotation::Rotation,
    scenario::DeployScenario,
    traffic::{Observed, Traffic},
};
use crate::{
    explore::exploring,
    harness::downstream::{HOST as DOWNSTREAMS, Server, Serving, serve_all},
    network::{
        Attendance::{Awaited, Background},
        TurmoilNetWorld, World, WorldConfig,
    },
    observe,
    trace::Trace,
};
use lameduck::runtime::Seed;
use std::{
    future::pending,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// Longest time of a play.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How long the world continues after the traffic, so that background work can finish. D3 expects
/// the end of a message that was delivered before the deploy ended.
const SETTLE: Duration = Duration::from_secs(5);

/// What happened in a play.
#[derive(Clone, Debug)]
pub(super) struct DeployOutcome {
    pub(super) trace: Trace,
    pub(super) observed: Vec<Observed>,
    /// Whether the deploy ended.
    pub(super) is_finished: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a deploy from `old` to `new`. `servers` are the downstreams that the service creates,
/// whose faults are counted from `serving`.
pub(super) fn play(
    scenario: &DeployScenario,
    deploy: Deploy,
    (old, new): (Version, Version),
    trace: &Trace,
    servers: UnboundedReceiver<Server>,
    serving: Serving,
) -> DeployOutcome {
    let (min, max) = scenario.latency_ms;
    let ms = Duration::from_millis;
    let seed = Seed(scenario.seed);
    let config = WorldConfig::new(seed).with_latency(ms(min), ms(max));
    let mut world = TurmoilNetWorld::new(config, trace.clone());
    let hosts = Arc::new(Mutex::new(Vec::new()));
    let targets = if deploy.platform.has_surge() { 2 * deploy.replicas } else { deploy.replicas };
    for target in 0..targets {
        let hosts = Arc::clone(&hosts);
        world.spawn(&host_name(target), Background, move |host| {
            lock(&hosts).push(host);
            pending()
        });
    }
    let lag = deploy.platform.propagation();
    let rotation = Arc::new(Rotation::new(trace.clone(), Seed(seed.nth(0x1a6)), lag));
    let over = CancellationToken::new();
    let observed = Arc::new(Mutex::new(Vec::new()));
    let pool = deploy.platform.has_pool().then(Arc::default);
    for (n, client) in scenario.clients.iter().enumerate() {
        let (client, rotation, pool) = (client.clone(), Arc::clone(&rotation), pool.clone());
        let (trace, observed) = (trace.clone(), Arc::clone(&observed));
        let (serving, over) = (serving.clone(), over.clone());
        world.spawn("clients", Awaited, move |host| {
            let traffic = Traffic { host, rotation, pool, trace, serving, over, observed };
            traffic.run(n, client)
        });
    }
    world.spawn("downstreams-of-deploy", Awaited, {
        let over = over.clone();
        move |_| async move {
            over.cancelled().await;
            crate::client::pause(SETTLE).await;
        }
    });
    world.spawn(DOWNSTREAMS, Background, move |host| serve_all(Arc::new(host), servers));
    world.spawn("platform", Background, {
        let (trace, begins) = (trace.clone(), ms(scenario.begins_ms));
        move |prober| {
            let hosts = lock(&hosts).clone();
            let run = DeployRun {
                deploy,
                old,
                new,
                hosts,
                prober,
                rotation,
                trace,
                seed: Seed(seed.nth(0xc0_45e)),
                begins,
                serving,
                over,
            };
            run.perform()
        }
    });
    // Connection tasks have no subscriber attached, so their events are recorded by the default
    // one.
    let listening =
        tracing::dispatcher::set_default(&observe::service_observer("service", trace.clone()));
    let is_finished = world.run(LIMIT).is_ok();
    drop(listening);
    let observed = std::mem::take(&mut *lock(&observed));
    DeployOutcome { trace: trace.clone(), observed, is_finished }
}

/// Calls `play` for each seed, on all cores, until `done` returns true. Returns the results in the
/// order of the seeds. A panic that leaves a play is a result, too.
pub(super) fn for_each_seed<T: Send>(
    seeds: Range<u64>,
    play: impl Fn(u64) -> T + Sync,
    done: impl Fn(&T) -> bool + Sync,
) -> Vec<(u64, thread::Result<T>)> {
    crate::explore::quiet_panics();
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let result = exploring(|| play(seed));
                    if result.as_ref().map_or(true, &done) {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                    lock(&results).push((seed, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(seed, _)| *seed);
    results
}

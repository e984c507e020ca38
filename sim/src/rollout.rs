//! A rolling restart. The replicas are reached through a balancer that trusts their readiness and
//! never retries.
//!
//! Each replica in turn receives a SIGTERM. When its process has exited, the next process starts on
//! the same host and ports. In addition to the records of a host run, this records those of the
//! balancer and `process begins` with its generation.

use crate::{
    app::Drill,
    balancer::{Balancer, Counts, Replica},
    client::{ClientId, RequestSpec, Route, pause},
    host_run::{HostRun, INTERNAL_PORT, MAIN_PORT},
    network::{
        Attendance::{Awaited, Background},
        HostNetwork, Overrun, World, WorldConfig,
    },
    scripted_signals,
    trace::Trace,
};
use lameduck::{
    Limits,
    lifecycle::{Plan, Signal},
    runtime::Seed,
};
use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Settings of a rolling restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Seed of all randomness.
    pub seed: u64,
    /// Range of the one-way network latency.
    pub latency: (Duration, Duration),
    /// Number of replicas.
    pub replicas: usize,
    /// Plan of each replica.
    pub plan: Plan,
    /// When the first replica is stopped.
    pub begins: Duration,
    /// Time between the stops of two replicas.
    pub step: Duration,
    /// Interval of the balancer's readiness probes.
    pub probe_every: Duration,
    /// Number of clients behind the balancer; each sends one request at a time.
    pub clients: usize,
    /// Pause of a client between two requests.
    pub every: Duration,
    /// Requests that the clients send, in turn.
    pub asks: Vec<RequestSpec>,
}

/// Outcome of a rolling restart.
#[derive(Clone, Debug)]
pub struct RolloutOutcome {
    /// Everything that happened.
    pub trace: Trace,
    /// Counters of the balancer.
    pub counts: Counts,
    /// Exit codes of the stopped processes, in the order of their exits.
    pub codes: Vec<u64>,
    /// When the run ended, in the world's time.
    pub ended: Result<Duration, Overrun>,
}

impl Rollout {
    /// Creates a rollout of three replicas with a lame duck delay of 1 s, a readiness probe every
    /// 200 ms, and four clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            latency: (Duration::from_millis(1), Duration::from_millis(3)),
            replicas: 3,
            plan: Plan::new().lame_duck(Duration::from_secs(1)),
            begins: Duration::from_secs(1),
            step: Duration::from_secs(2),
            probe_every: Duration::from_millis(200),
            clients: 4,
            every: Duration::from_millis(10),
            asks: vec![RequestSpec::get("/fast"), RequestSpec::get("/slow?ms=30")],
        }
    }

    /// Runs the rollout.
    ///
    /// # Panics
    /// If the host or a client panics unexpectedly.
    #[must_use]
    pub fn run<W: World>(&self) -> RolloutOutcome {
        let trace = Trace::new();
        let config = WorldConfig::new(Seed(self.seed)).with_latency(self.latency.0, self.latency.1);
        let mut world = W::new(config, trace.clone());
        for n in 0..self.replicas {
            world.spawn(&replica(n), Background, self.processes(n, &trace));
        }
        let counts = Arc::new(Mutex::new(Counts { sent: 0, failed: 0, unserved: 0 }));
        world.spawn("balancer", Awaited, self.traffic(&trace, &counts));
        let ended = world.run(self.until() + Duration::from_secs(120));
        let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
        let codes = trace.events("exit").iter().filter_map(|exit| exit.number("code")).collect();
        RolloutOutcome { trace, counts, codes, ended }
    }

    /// Returns when the traffic ends, some time after the last restart.
    fn until(&self) -> Duration {
        self.begins + self.step * u32::try_from(self.replicas).unwrap_or(u32::MAX)
    }

    /// Runs the processes of one replica: the first until it is stopped, then a second to the end.
    fn processes<H: HostNetwork>(
        &self,
        n: usize,
        trace: &Trace,
    ) -> impl FnOnce(H) -> Pin<Box<dyn Future<Output = ()> + Send>> + 'static {
        let (trace, plan, seed) = (trace.clone(), self.plan, self.seed);
        let stops = self.begins + self.step * u32::try_from(n).unwrap_or(u32::MAX);
        move |host| {
            Box::pin(async move {
                for generation in 0..2_u64 {
                    trace.record(
                        &replica(n),
                        "process begins",
                        &[("generation", generation.into())],
                    );
                    let (sender, signals) = scripted_signals(replica(n), trace.clone());
                    let life = HostRun {
                        name: replica(n),
                        plan,
                        request_timeout: Some(Duration::from_secs(5)),
                        limits: Limits::default(),
                        hooks: Vec::new(),
                        tasks: Vec::new(),
                        checks: Vec::new(),
                        reloads: None,
                        clock_skew_ppm: 0,
                        tls: false,
                        workers: NonZeroUsize::MIN,
                        seed: Seed(seed ^ (n as u64) << 8 ^ generation),
                        order: None,
                        second_address: false,
                        expects_headers: false,
                        stalls: None,
                    };
                    let running = life.live(
                        host.clone(),
                        host.clone(),
                        |builder, actor| builder.serve_hyper(Drill::new(actor)),
                        signals,
                        trace.clone(),
                        drop,
                    );
                    let stopping = async move {
                        if generation == 0 {
                            sender.play([(stops, Signal::Terminate)]).await;
                        }
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        biased;
                        () = stopping => {}
                        _ = running => {}
                    }
                }
            })
        }
    }

    /// Runs the clients of the balancer.
    fn traffic<H: HostNetwork>(
        &self,
        trace: &Trace,
        counts: &Arc<Mutex<Counts>>,
    ) -> impl FnOnce(H) -> Pin<Box<dyn Future<Output = ()> + Send>> + 'static {
        let (rollout, trace, counts) = (self.clone(), trace.clone(), Arc::clone(counts));
        move |host: H| {
            Box::pin(async move {
                let replicas = (0..rollout.replicas).map(|n| Replica {
                    name: replica(n),
                    main: Route::new(host.clone(), replica(n), MAIN_PORT),
                    internal: Route::new(host.clone(), replica(n), INTERNAL_PORT),
                });
                let client_id = ClientId::new("balancer", trace.clone());
                // The many probes are not recorded; changes of readiness are, as `in rotation` and
                // `out of rotation`.
                let prober = ClientId::new("prober", trace);
                let balancer = Balancer::new(client_id, prober, replicas);
                let mut clients = tokio::task::JoinSet::new();
                for n in 0..rollout.clients {
                    let (balancer, rollout) = (Arc::clone(&balancer), rollout.clone());
                    clients.spawn(async move {
                        // Wait until readiness is known.
                        pause(rollout.begins / 2 + Duration::from_millis(n as u64)).await;
                        let rounds = rollout.until().as_millis() / rollout.every.as_millis().max(1);
                        let asks = rollout.asks.iter().cycle().skip(n);
                        for (_, ask) in (0..rounds).zip(asks) {
                            balancer.forward(ask).await;
                            pause(rollout.every).await;
                        }
                    });
                }
                tokio::select! {
                    biased;
                    () = balancer.probe(rollout.probe_every) => {}
                    () = async { while clients.join_next().await.is_some() {} } => {}
                }
                *counts.lock().unwrap_or_else(PoisonError::into_inner) = balancer.counts();
            })
        }
    }
}

fn replica(n: usize) -> String {
    format!("replica-{n}")
}

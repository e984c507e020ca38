//! A rolling restart: replicas behind a balancer that believes their readiness and never retries.
//!
//! One replica after the other gets a SIGTERM; when its process has exited the next one begins on the same host and ports.
//! Records beside a life's own: the balancer's, and `process begins` with its generation.

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

/// A rolling restart, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Where chance comes from.
    pub seed: u64,
    /// The one-way latency of the network, from and to.
    pub latency: (Duration, Duration),
    /// How many replicas.
    pub replicas: usize,
    /// Each replica's plan.
    pub plan: Plan,
    /// When the first is asked to stop.
    pub begins: Duration,
    /// The time between two that are asked.
    pub step: Duration,
    /// How often the balancer asks for readiness.
    pub probe_every: Duration,
    /// How many clients send through the balancer, each one request at a time.
    pub clients: usize,
    /// The pause of a client between two requests.
    pub every: Duration,
    /// What they ask for.
    pub asks: Vec<RequestSpec>,
}

/// What came of a rolling restart.
#[derive(Clone, Debug)]
pub struct Rolled {
    /// Everything that happened.
    pub trace: Trace,
    /// What the balancer counted.
    pub counts: Counts,
    /// The exit codes of the processes that were asked to stop, in the order of their ends.
    pub codes: Vec<u64>,
    /// When it was over, in the world's time.
    pub ended: Result<Duration, Overrun>,
}

impl Rollout {
    /// Three replicas, a lame duck delay of 1 s, readiness asked for every 200 ms, four clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            latency: (Duration::from_millis(1), Duration::from_millis(3)),
            replicas: 3,
            plan: Plan { lame_duck: Duration::from_secs(1), ..Plan::default() },
            begins: Duration::from_secs(1),
            step: Duration::from_secs(2),
            probe_every: Duration::from_millis(200),
            clients: 4,
            every: Duration::from_millis(10),
            asks: vec![RequestSpec::get("/fast"), RequestSpec::get("/slow?ms=30")],
        }
    }

    /// Runs it.
    ///
    /// # Panics
    /// If something panics that should not.
    #[must_use]
    pub fn run<W: World>(&self) -> Rolled {
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
        Rolled { trace, counts, codes, ended }
    }

    /// When the traffic ends: some time after the last restart.
    fn until(&self) -> Duration {
        self.begins + self.step * u32::try_from(self.replicas).unwrap_or(u32::MAX)
    }

    /// The processes of one replica: one until it is asked to stop, then one that goes on.
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
                        clock_skew_ppm: 0,
                        workers: NonZeroUsize::MIN,
                        seed: Seed(seed ^ (n as u64) << 8 ^ generation),
                    };
                    let living = life.live(
                        host.clone(),
                        |builder, actor| builder.hyper(Drill::new(actor)),
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
                        _ = living => {}
                    }
                }
            })
        }
    }

    /// Clients behind the balancer.
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
                // Its probes are many; what they change is told as `in rotation` and `out of rotation`.
                let prober = ClientId::new("prober", trace);
                let balancer = Balancer::new(client_id, prober, replicas);
                let mut clients = tokio::task::JoinSet::new();
                for n in 0..rollout.clients {
                    let (balancer, rollout) = (Arc::clone(&balancer), rollout.clone());
                    clients.spawn(async move {
                        // Readiness is known by then.
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

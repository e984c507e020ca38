//! Performs a deploy: starts, probes and stops processes, and decides which of them get requests.

use super::{
    platform::{Deploy, Platform, Probing},
    process::{Probe, Process, Version, live},
    rotation::Rotation,
};
use crate::{
    client::{ClientId, Connect, ExchangePacing, RequestSpec, Route, one_request, pause},
    harness::downstream::Serving,
    host_run::{INTERNAL_PORT, MAIN_PORT},
    network::TurmoilNetHost,
    task_count::counted,
    trace::Trace,
};
use lameduck::runtime::Seed;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Event of a deploy that has come to its end.
pub(super) const ENDS: &str = "deploy ends";
/// Event of a deploy that is given up.
pub(super) const STUCK: &str = "deploy stuck";
/// Event of a process whose stop is requested.
pub(super) const SIGTERM: &str = "SIGTERM";

/// Longest time until a process is ready, apart from the time that its platform needs to see it.
const READY_MAX: Duration = Duration::from_secs(90);
/// How long the traffic continues after the last old process has exited.
const TAIL: Duration = Duration::from_secs(1);
/// Longest wait for the response to a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Time between two probes of the deploying tool itself.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// Returns the name of the host of a target.
pub(super) fn host_name(target: usize) -> String {
    format!("host-{target}")
}

/// What a deploy consists of.
#[derive(Clone)]
pub(super) struct DeployRun {
    pub(super) deploy: Deploy,
    pub(super) old: Version,
    pub(super) new: Version,
    /// By target.
    pub(super) hosts: Vec<TurmoilNetHost>,
    /// Where the probes come from.
    pub(super) prober: TurmoilNetHost,
    pub(super) rotation: Arc<Rotation>,
    pub(super) trace: Trace,
    pub(super) seed: Seed,
    /// Time from the first request to the start of the deploy.
    pub(super) begins: Duration,
    /// When the old processes get requests.
    pub(super) serving: Serving,
    /// Cancelled when the deploy has ended.
    pub(super) over: CancellationToken,
}

/// A process that was started.
struct Started {
    target: usize,
    process: Process,
    /// Cancelled once it is probed no longer.
    is_watched: CancellationToken,
}

/// The processes of a run, and the tasks that belong to them.
struct Fleet {
    run: DeployRun,
    tasks: JoinSet<()>,
    /// The version that runs on each target, for a balancer that probes addresses.
    probes: Arc<Mutex<BTreeMap<usize, Probe>>>,
    started: u64,
}

impl DeployRun {
    /// Performs the deploy, and cancels `over` some time after its end.
    pub(super) async fn perform(self) {
        let (deploy, over, serving) = (self.deploy, self.over.clone(), self.serving.clone());
        let (begins, trace) = (self.begins, self.trace.clone());
        let mut fleet =
            Fleet { run: self, tasks: JoinSet::new(), probes: Arc::default(), started: 0 };
        let mut old = Vec::new();
        for target in 0..deploy.replicas {
            old.push(fleet.start(target, "old"));
        }
        if deploy.platform.has_pool() {
            fleet.probe_addresses();
        }
        for started in &old {
            fleet.await_requests(started).await;
        }
        // They are in the rotation of each node.
        pause(deploy.platform.propagation()).await;
        serving.begin(trace.now().unwrap_or_default());
        pause(begins).await;
        trace.record("deploy", "deploy begins", &[]);
        match deploy.platform {
            Platform::Kubernetes(_) => fleet.roll_with_surge(old).await,
            Platform::ProbingBalancer(platform) => {
                fleet.restart_in_turn(old, platform.restart_delay).await;
            }
            Platform::Systemd(platform) => {
                fleet.restart_in_turn(old, platform.restart_delay).await;
            }
            Platform::BlueGreen(platform) => fleet.switch(old, platform.bake).await,
        }
        trace.record("deploy", ENDS, &[]);
        pause(deploy.platform.propagation() + TAIL).await;
        over.cancel();
        // The new processes run until the world ends.
        std::future::pending::<()>().await;
    }
}

impl Fleet {
    fn start(&mut self, target: usize, version: &'static str) -> Started {
        let DeployRun { old, new, hosts, trace, seed, deploy, .. } = &self.run;
        let which = if version == "old" { old } else { new };
        let place = target % deploy.replicas;
        self.started += 1;
        let process = Process {
            name: format!("{version}-{place}"),
            host: hosts[target].clone(),
            trace: trace.clone(),
            seed: Seed(seed.nth(0x90_0d + self.started)),
            stop: CancellationToken::new(),
            ready: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        self.probes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(target, which.probe.clone());
        let running =
            live(Arc::clone(&which.program), process.clone(), deploy.platform.grace_period());
        self.tasks.spawn(counted(running));
        Started { target, process, is_watched: CancellationToken::new() }
    }

    /// Waits until a process gets requests. Gives the deploy up if it never does.
    async fn await_requests(&mut self, started: &Started) {
        let probing = self.run.deploy.platform.probing();
        let most = READY_MAX + probing.period * (probing.rise + 2);
        let run = self.run.clone();
        tokio::select! {
            biased;
            () = self.until_requests(started) => return,
            () = pause(most) => {}
        }
        let fields = [
            ("process", started.process.name.clone().into()),
            ("after", format!("{most:?}").into()),
        ];
        run.trace.record("deploy", STUCK, &fields);
        run.serving.begin(run.trace.now().unwrap_or_default());
        run.over.cancel();
        std::future::pending::<()>().await;
    }

    async fn until_requests(&mut self, started: &Started) {
        let (run, target) = (self.run.clone(), started.target);
        let probing = run.deploy.platform.probing();
        let probe = self.probe_of(target);
        match run.deploy.platform {
            Platform::ProbingBalancer(_) => {
                // The tool sees the process itself, then gives the balancer time to see it too.
                await_ready(&run, target, &probe, probing).await;
                pause(probing.period * (probing.rise + 1)).await;
                while !run.rotation.view(0).contains(&target) {
                    pause(WATCH_EVERY).await;
                }
            }
            Platform::Systemd(_) => {
                await_ready(&run, target, &probe, probing).await;
                run.rotation.change(vec![(target, true)]);
            }
            Platform::Kubernetes(_) => {
                self.await_kubelet(started, &probe, probing, true).await;
            }
            Platform::BlueGreen(_) => {
                let is_old = target < run.deploy.replicas;
                self.await_kubelet(started, &probe, probing, is_old).await;
            }
        }
        started.process.ready.cancel();
        run.trace.record(&started.process.name, "ready", &[]);
    }

    /// Waits until the kubelet finds a process ready, and continues to probe it. If `rotates`, the
    /// probes decide whether it gets requests.
    async fn await_kubelet(
        &mut self,
        started: &Started,
        probe: &Probe,
        probing: Probing,
        rotates: bool,
    ) {
        let (run, target) = (self.run.clone(), started.target);
        let millis = u64::try_from(probing.period.as_millis()).unwrap_or(u64::MAX).max(1);
        pause(Duration::from_millis(run.seed.nth(0x0ff_5e7 + target as u64) % millis)).await;
        let ready = CancellationToken::new();
        let watching = {
            let (probe, ready, run) = (probe.clone(), ready.clone(), run.clone());
            let is_watched = started.is_watched.clone();
            async move {
                let watch = watch(
                    &run,
                    target,
                    || probe.clone(),
                    probing,
                    |is_up| {
                        if is_up {
                            ready.cancel();
                        }
                        if rotates {
                            run.rotation.change(vec![(target, is_up)]);
                        }
                    },
                );
                tokio::select! {
                    biased;
                    () = is_watched.cancelled() => {}
                    () = watch => {}
                }
            }
        };
        self.tasks.spawn(counted(watching));
        ready.cancelled().await;
    }

    /// Lets a balancer probe every address until the world ends.
    fn probe_addresses(&mut self) {
        let probing = self.run.deploy.platform.probing();
        for target in 0..self.run.deploy.replicas {
            let (run, probes) = (self.run.clone(), Arc::clone(&self.probes));
            let millis = u64::try_from(probing.period.as_millis()).unwrap_or(u64::MAX).max(1);
            let offset = Duration::from_millis(run.seed.nth(0x0ff_5e7 + target as u64) % millis);
            self.tasks.spawn(counted(async move {
                pause(offset).await;
                let current = || probe_at(&probes, target);
                watch(&run, target, current, probing, |is_up| {
                    run.rotation.change(vec![(target, is_up)]);
                })
                .await;
            }));
        }
    }

    fn probe_of(&self, target: usize) -> Probe {
        probe_at(&self.probes, target)
    }

    /// Sends SIGTERM.
    fn stop(&self, started: &Started) {
        self.run.trace.record(&started.process.name, SIGTERM, &[]);
        started.process.stop.cancel();
    }

    async fn roll_with_surge(&mut self, old: Vec<Started>) {
        let replicas = self.run.deploy.replicas;
        let mut leaving = Vec::new();
        for (place, old) in (0..).zip(old) {
            let new = self.start(replicas + place, "new");
            self.await_requests(&new).await;
            // The pod is deleted.
            old.is_watched.cancel();
            self.run.rotation.change(vec![(old.target, false)]);
            self.stop(&old);
            leaving.push(old);
        }
        for old in leaving {
            old.process.gone.cancelled().await;
        }
    }

    async fn restart_in_turn(&mut self, old: Vec<Started>, restart_delay: Duration) {
        for old in old {
            self.stop(&old);
            old.process.gone.cancelled().await;
            pause(restart_delay).await;
            let new = self.start(old.target, "new");
            self.await_requests(&new).await;
        }
    }

    async fn switch(&mut self, old: Vec<Started>, bake: Duration) {
        let replicas = self.run.deploy.replicas;
        let new: Vec<Started> =
            (0..replicas).map(|place| self.start(replicas + place, "new")).collect();
        for new in &new {
            self.await_requests(new).await;
        }
        old.iter().for_each(|old| old.is_watched.cancel());
        let to_new = new.iter().map(|new| (new.target, true));
        let from_old = old.iter().map(|old| (old.target, false));
        self.run.rotation.change(to_new.chain(from_old).collect());
        self.run.trace.record("deploy", "traffic switched", &[]);
        pause(bake).await;
        old.iter().for_each(|old| self.stop(old));
        for old in &old {
            old.process.gone.cancelled().await;
        }
    }
}

fn probe_at(probes: &Mutex<BTreeMap<usize, Probe>>, target: usize) -> Probe {
    let probes = probes.lock().unwrap_or_else(PoisonError::into_inner);
    probes.get(&target).cloned().unwrap_or(Probe::Connect)
}

/// Waits until a probe of the deploying tool succeeds.
async fn await_ready(run: &DeployRun, target: usize, probe: &Probe, probing: Probing) {
    while !succeeds(run, target, probe, probing.path).await {
        pause(WATCH_EVERY).await;
    }
}

/// Probes a target until the world ends. Calls `changed` when it was found up or down often enough.
/// It begins as down.
async fn watch(
    run: &DeployRun,
    target: usize,
    probe: impl Fn() -> Probe + Send,
    probing: Probing,
    changed: impl Fn(bool) + Send,
) {
    let (mut is_up, mut differing) = (false, 0);
    loop {
        let found_up = succeeds(run, target, &probe(), probing.path).await;
        differing = if found_up == is_up { 0 } else { differing + 1 };
        if differing >= if is_up { probing.fall } else { probing.rise }.max(1) {
            (is_up, differing) = (found_up, 0);
            let event = if is_up { "found up" } else { "found down" };
            run.trace.record(&host_name(target), event, &[]);
            changed(is_up);
        }
        pause(probing.period).await;
    }
}

async fn succeeds(run: &DeployRun, target: usize, probe: &Probe, path: &str) -> bool {
    let probing = async {
        let host = run.prober.clone();
        let client_id = ClientId::new("prober", Trace::new()).with_max_wait(PROBE_MAX);
        let (port, path) = match probe {
            Probe::Internal => (INTERNAL_PORT, path),
            Probe::Path(path) => (MAIN_PORT, path.as_str()),
            Probe::Connect => {
                return Route::new(host, host_name(target), MAIN_PORT).connect().await.is_ok();
            }
        };
        let route = Route::new(host, host_name(target), port);
        let request = RequestSpec::get(path);
        one_request(&client_id, &route, &request, ExchangePacing::PROMPT)
            .await
            .is_ok_and(|done| done.status < 400)
    };
    tokio::select! {
        biased;
        is_up = probing => is_up,
        () = pause(PROBE_MAX) => false,
    }
}

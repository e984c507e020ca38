//! The status that the internal server reads. It decides nothing.

use super::Heartbeats;
#[cfg(feature = "tls")]
use crate::tls::ReloadingCertificate;
use crate::{
    host_error::TaskError,
    http::{ConnectionStats, Outstanding, ServerState, millis},
    lifecycle::{HookVerdict, Moment, Phase, Plan},
    readiness::CheckResult,
    report::{HookReport, connections_json, requests_json},
    runtime::{Address, Clock},
};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(any(feature = "metrics", feature = "tls"))]
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Written by the driver, read by the internal server.
#[derive(Debug)]
pub(crate) struct HostStatus {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) main: Arc<ServerState>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) checks: Vec<Arc<CheckResult>>,
    pub(crate) plan: Plan,
    pub(crate) started_at: Moment,
    pub(crate) internal_address: Address,
    pub(crate) main_addresses: Vec<Address>,
    /// Reloads that have begun, and those that have ended.
    reloads: [AtomicU64; 2],
    /// The certificate of the main server, if it was read from files.
    #[cfg(feature = "tls")]
    pub(crate) certificate: Option<Arc<ReloadingCertificate>>,
    timeline: Mutex<Timeline>,
    /// The lifecycle's `is_serving`, stored before the phase is published.
    is_serving: AtomicBool,
    /// Cancelled when Serving begins.
    pub(crate) serving: CancellationToken,
    /// Notified when a phase is recorded. Only one task may wait for it; a phase recorded before
    /// the wait wakes that task at once.
    pub(crate) changed: Notify,
}

/// Events that the driver has recorded.
#[derive(Debug)]
struct Timeline {
    /// Every phase and when it was entered, in order; never empty.
    phases: Vec<(Phase, Moment)>,
    /// When the process must have exited.
    deadline: Option<Moment>,
    /// The ended stages of all hook pairs, as the report will list them, and the number of each
    /// pair.
    hooks: Vec<(usize, HookReport)>,
    /// The running hook stage.
    hook_running: Option<HookRunning>,
}

/// A running stage of a hook pair, and when it started.
#[derive(Clone, Debug)]
pub(crate) struct HookRunning {
    /// The number of the pair, from 0.
    pub(crate) pair: usize,
    pub(crate) name: String,
    pub(crate) stage: &'static str,
    pub(crate) since: Moment,
}

impl HostStatus {
    pub(crate) fn new(
        main: Arc<ServerState>,
        heartbeats: Arc<Heartbeats>,
        checks: Vec<Arc<CheckResult>>,
        plan: Plan,
        internal_address: Address,
        main_addresses: Vec<Address>,
    ) -> Self {
        let clock = main.clock.clone();
        let started_at = clock.now();
        Self {
            clock,
            main,
            heartbeats,
            checks,
            plan,
            started_at,
            internal_address,
            main_addresses,
            reloads: Default::default(),
            #[cfg(feature = "tls")]
            certificate: None,
            timeline: Mutex::new(Timeline {
                phases: vec![(Phase::Starting, started_at)],
                deadline: None,
                hooks: Vec::new(),
                hook_running: None,
            }),
            is_serving: AtomicBool::new(false),
            serving: CancellationToken::new(),
            changed: Notify::new(),
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn with_certificate(self, certificate: Option<Arc<ReloadingCertificate>>) -> Self {
        Self { certificate, ..self }
    }

    /// Records whether the lifecycle lets the process respond to requests (P2b). Call it before the
    /// phase is published.
    pub(crate) fn record_serving(&self, is_serving: bool) {
        self.is_serving.store(is_serving, Ordering::Release);
    }

    pub(crate) fn record_phase(&self, phase: Phase, at: Moment, deadline: Option<Moment>) {
        {
            let mut timeline = self.timeline();
            if timeline.phases.last().is_none_or(|(last, _)| *last != phase) {
                timeline.phases.push((phase, at));
            }
            timeline.deadline = deadline;
        }
        if phase == Phase::Serving {
            self.serving.cancel();
        }
        self.changed.notify_one();
    }

    /// The phase and the deadline of the shutdown, read under one lock.
    #[cfg(feature = "systemd")]
    pub(crate) fn entered(&self) -> (Phase, Option<Moment>) {
        let timeline = self.timeline();
        (timeline.phases.last().map_or(Phase::Starting, |(phase, _)| *phase), timeline.deadline)
    }

    /// When `phase` was entered, and the deadline of the shutdown. Falls back to `now`, since a
    /// phase is published before it is recorded here.
    fn since(&self, phase: Phase, now: Moment) -> (Moment, Option<Moment>) {
        let timeline = self.timeline();
        let since = timeline
            .phases
            .iter()
            .rev()
            .find(|(noted, _)| *noted == phase)
            .map_or(now, |(_, at)| *at);
        (since, timeline.deadline)
    }

    pub(crate) fn record_reload_begun(&self) {
        self.reloads[0].fetch_add(1, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn record_reload_ended(&self) {
        self.reloads[1].fetch_add(1, Ordering::Release);
        self.changed.notify_one();
    }

    /// The number of reloads that have begun, and of those that have ended.
    #[cfg(all(feature = "systemd", target_os = "linux"))]
    pub(crate) fn reloads(&self) -> [u64; 2] {
        let [begun, ended] = &self.reloads;
        // The ends are read first, so that none comes before its beginning.
        let ended = ended.load(Ordering::Acquire);
        [begun.load(Ordering::Acquire), ended]
    }

    pub(crate) fn record_hook_running(&self, hook: HookRunning) {
        self.timeline().hook_running = Some(hook);
    }

    /// Records that the running stage of a hook pair ended at `now`.
    pub(crate) fn record_hook_ended(
        &self,
        name: String,
        verdict: HookVerdict,
        error: Option<TaskError>,
        now: Moment,
    ) {
        let mut timeline = self.timeline();
        // Nothing ends that did not run.
        let Some(running) = timeline.hook_running.take() else { return };
        let took = now.since(running.since);
        timeline.hooks.push((running.pair, HookReport { name, verdict, took, error }));
    }

    /// The ended stages of all hook pairs, in the order in which they ended.
    pub(crate) fn hooks(&self) -> Vec<HookReport> {
        self.timeline().hooks.iter().map(|(_, ended)| ended.clone()).collect()
    }

    /// The same with the numbers of the pairs, and the stage that runs.
    #[cfg(feature = "metrics")]
    pub(crate) fn hook_stages(&self) -> (Vec<(usize, HookReport)>, Option<HookRunning>) {
        let timeline = self.timeline();
        (timeline.hooks.clone(), timeline.hook_running.clone())
    }

    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reason why the process should be restarted; `None` if it should not.
    pub(crate) fn liveness_failure(&self) -> Option<String> {
        self.liveness_failure_in(self.main.phase())
    }

    /// The same for a phase that was read already. A page reads the phase once, so that its fields
    /// agree.
    pub(crate) fn liveness_failure_in(&self, phase: Phase) -> Option<String> {
        if phase != Phase::Serving {
            return None;
        }
        self.wedged_worker()
    }

    fn wedged_worker(&self) -> Option<String> {
        self.heartbeats.blocked(&self.main).map(|blocked| blocked.to_string())
    }

    /// The reasons why no traffic should be sent here; empty if it should.
    pub(crate) fn readiness_failures(&self) -> Vec<String> {
        self.readiness_failures_in(self.main.phase())
    }

    pub(crate) fn readiness_failures_in(&self, phase: Phase) -> Vec<String> {
        if phase != Phase::Serving {
            return vec![format!("phase is {phase}")];
        }
        self.failing_checks().collect()
    }

    fn failing_checks(&self) -> impl Iterator<Item = String> {
        let now = self.checked_at();
        self.checks.iter().filter_map(move |check| {
            check.failure(now).map(|reason| format!("check {} fails: {reason}", check.name))
        })
    }

    /// The moment for which the results of the checks hold: now, or the begin of the drain, in
    /// which checks no longer run.
    pub(crate) fn checked_at(&self) -> Moment {
        let drained = |(phase, at): &(Phase, Moment)| (*phase >= Phase::Draining).then_some(*at);
        let drained = self.timeline().phases.iter().find_map(drained);
        drained.unwrap_or_else(|| self.clock.now())
    }

    /// Reasons why new requests get no response, or soon will not (P2b); empty if they do.
    pub(crate) fn serving_failures(&self) -> Vec<String> {
        self.serving_failures_in(self.main.phase())
    }

    pub(crate) fn serving_failures_in(&self, phase: Phase) -> Vec<String> {
        match phase {
            Phase::Serving | Phase::LameDuck if self.is_serving.load(Ordering::Acquire) => {
                self.wedged_worker().into_iter().chain(self.failing_checks()).collect()
            }
            Phase::LameDuck => {
                vec![format!("phase is {phase}, and the process requested the stop itself")]
            }
            Phase::Starting
            | Phase::Serving
            | Phase::Draining
            | Phase::Cancelling
            | Phase::CleaningUp
            | Phase::Stopped => {
                vec![format!("phase is {phase}")]
            }
        }
    }

    /// Whether the start succeeded. After one that failed, the phases go on all the same.
    pub(crate) fn is_started(&self) -> bool {
        self.serving.is_cancelled()
    }

    /// The running stage of a hook pair.
    pub(crate) fn hook_running(&self) -> Option<HookRunning> {
        self.timeline().hook_running.clone()
    }

    /// The deadline of the shutdown; `None` before a stop request.
    #[cfg(feature = "metrics")]
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.timeline().deadline
    }

    pub(crate) fn status(&self) -> Value {
        let now = self.clock.now();
        let phase = self.main.phase();
        let (since, deadline) = self.since(phase, now);
        let hook_running = self.hook_running().map(|hook| {
            let (name, stage, ms) = (hook.name, hook.stage, millis(now.since(hook.since)));
            json!({"name": name, "stage": stage, "running_for_ms": ms})
        });
        let requests = self.main.metrics.requests();
        let connections = self.main.metrics.connections();
        let by_state: serde_json::Map<String, Value> =
            connections_by_state(&self.main, &connections)
                .into_iter()
                .map(|(state, count)| (state.to_owned(), count.into()))
                .collect();
        let (ready, serving) = (self.readiness_failures_in(phase), self.serving_failures_in(phase));
        let live: Vec<String> = self.liveness_failure_in(phase).into_iter().collect();
        let checked_at = self.checked_at();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let failure = check.failure(checked_at);
                json!({"name": check.name, "passes": failure.is_none(), "reason": failure})
            })
            .collect();
        let main_addresses: Vec<String> =
            self.main_addresses.iter().map(ToString::to_string).collect();
        json!({
            "phase": phase.name(),
            "phase_for_ms": millis(now.since(since)),
            "up_for_ms": millis(now.since(self.started_at)),
            "app_version": &*self.main.config.app_version,
            "phases": self.phases_json(now),
            "ready": ready.is_empty(),
            "serving": serving.is_empty(),
            "live": live.is_empty(),
            "reasons": {"ready": ready, "serving": serving, "live": live},
            "addresses": {"main": main_addresses, "internal": self.internal_address.to_string()},
            "in_flight": requests.in_flight(),
            "waiting_for": Outstanding::of(&self.main).to_json(),
            "requests": requests_json(&requests),
            "connections": connections_json(&connections),
            "connections_by_state": by_state,
            "checks": checks,
            "certificate": self.certificate_json(),
            "hook": hook_running,
            "blocked": self.heartbeats.blocked(&self.main).map(|blocked| blocked.to_json()),
            "plan": {
                "start_ms": millis(self.plan.start),
                "lame_duck_ms": millis(self.plan.lame_duck),
                "drain_ms": millis(self.plan.drain),
                "streams_ms": millis(self.plan.streams),
                "cancel_ms": millis(self.plan.cancel),
                "cleanup_ms": millis(self.plan.cleanup),
                "internal_close_ms": millis(self.plan.internal_close),
                "worst_case_ms": millis(self.plan.worst_case()),
                "request_timeout_ms": self.main.config.request_timeout.map(millis),
            },
            "must_exit_within_ms": deadline.map(|deadline| millis(deadline.since(now))),
        })
    }
}

impl HostStatus {
    /// The certificate of the main server; null unless it was read from files.
    #[cfg(feature = "tls")]
    fn certificate_json(&self) -> Value {
        let Some(certificate) = &self.certificate else {
            return Value::Null;
        };
        let wall =
            self.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let [(_, replaced), (_, refused)] = certificate.reloads();
        let (expires, last_reload) = (certificate.expires(), certificate.last_reload());
        json!({
            "expires_in_ms": expires
                .map(|at| millis(Duration::from_secs(at).saturating_sub(wall))),
            "last_reload_ms_ago": last_reload
                .map(|at| millis(wall.saturating_sub(Duration::from_secs(at)))),
            "replaced": replaced,
            "refused": refused,
        })
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "the signature with the feature")]
    const fn certificate_json(&self) -> Value {
        Value::Null
    }

    /// Every phase until now: when it was entered, since the start, and how long it lasted.
    fn phases_json(&self, now: Moment) -> Vec<Value> {
        let timeline = self.timeline();
        let ends = timeline.phases.iter().skip(1).map(|(_, at)| *at).chain([now]);
        let phases = timeline.phases.iter().zip(ends);
        let span = |((phase, from), to): (&(Phase, Moment), Moment)| {
            let (after, lasted) = (from.since(self.started_at), to.since(*from));
            json!({"phase": phase.name(), "after_ms": millis(after), "lasted_ms": millis(lasted)})
        };
        phases.map(span).collect()
    }
}

/// Connections by state. All that are in no other state are parked.
pub(super) fn connections_by_state(
    main: &ServerState,
    connections: &ConnectionStats,
) -> [(&'static str, u64); 6] {
    let (mut opening, mut http1, mut http2, mut lingering) = (0, 0, 0, 0);
    for worker in main.metrics.workers() {
        http1 += worker.http1.get() as u64;
        http2 += worker.http2.get() as u64;
        lingering += worker.lingering.get() as u64;
        opening += worker.opening.get() as u64;
    }
    let upgraded = connections.upgraded.saturating_sub(connections.upgraded_closed);
    let parked = connections.open().saturating_sub(opening + http1 + http2 + lingering + upgraded);
    [
        ("opening", opening),
        ("parked", parked),
        ("http1", http1),
        ("http2", http2),
        ("lingering", lingering),
        ("upgraded", upgraded),
    ]
}

#[cfg(feature = "metrics")]
impl HostStatus {
    /// How long each phase lasted, up to `now`.
    pub(crate) fn phase_spans(&self, now: Moment) -> [(Phase, Duration); Phase::ALL.len()] {
        let timeline = self.timeline();
        let ends = timeline.phases.iter().skip(1).map(|(_, at)| *at).chain([now]);
        let mut spans = Phase::ALL.map(|phase| (phase, Duration::ZERO));
        for ((phase, from), to) in timeline.phases.iter().zip(ends) {
            spans[usize::from(*phase as u8)].1 += to.since(*from);
        }
        spans
    }
}

//! What the internal server knows: it reads, and decides nothing.

use super::Heartbeats;
use crate::{
    check::CheckResult,
    env::{Address, Clock},
    http::{Side, millis},
    lifecycle::{Moment, Phase, Plan},
    report::{connections_json, requests_json},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Shared by the internal server, which reads it, and the driver, which tells it what changes.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) main: Arc<Side>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) checks: Vec<Arc<CheckResult>>,
    pub(crate) plan: Plan,
    pub(crate) began: Moment,
    pub(crate) internal_address: Address,
    pub(crate) main_addresses: Vec<Address>,
    entered: Mutex<(Phase, Moment, Option<Moment>)>,
    /// Wakes the one who observes the phases; a phase that was entered meanwhile wakes it at once.
    pub(crate) changed: Notify,
}

impl Board {
    pub(crate) fn new(
        main: Arc<Side>,
        heartbeats: Arc<Heartbeats>,
        checks: Vec<Arc<CheckResult>>,
        plan: Plan,
        internal_address: Address,
        main_addresses: Vec<Address>,
    ) -> Self {
        let clock = main.clock.clone();
        let began = clock.now();
        Self {
            clock,
            main,
            heartbeats,
            checks,
            plan,
            began,
            internal_address,
            main_addresses,
            entered: Mutex::new((Phase::Starting, began, None)),
            changed: Notify::new(),
        }
    }

    pub(crate) fn note_phase(&self, phase: Phase, at: Moment, deadline: Option<Moment>) {
        *self.entered.lock().unwrap_or_else(PoisonError::into_inner) = (phase, at, deadline);
        self.changed.notify_one();
    }

    /// The phase and when it was entered, and when the shutdown must be over.
    pub(crate) fn entered(&self) -> (Phase, Moment, Option<Moment>) {
        *self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the process should be restarted; `None` if it should not.
    pub(crate) fn liveness_failure(&self) -> Option<String> {
        if self.main.phase() != Phase::Serving {
            return None;
        }
        self.heartbeats
            .wedged()
            .map(|(worker, span)| format!("worker {worker} of the main runtime has not run for at least {span:?}"))
    }

    /// Why no traffic should be sent here, a line a reason; empty if it should.
    pub(crate) fn readiness_failures(&self) -> Vec<String> {
        let phase = self.main.phase();
        if phase != Phase::Serving {
            return vec![format!("phase is {phase}")];
        }
        let now = self.clock.now();
        self.checks
            .iter()
            .filter_map(|check| check.failure(now).map(|reason| format!("check {} fails: {reason}", check.name)))
            .collect()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.main.phase() >= Phase::Serving
    }

    pub(crate) fn status(&self) -> Value {
        let now = self.clock.now();
        let (phase, since, deadline) = self.entered();
        let requests = self.main.tally.requests();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let failure = check.failure(now);
                json!({"name": check.name, "passes": failure.is_none(), "reason": failure})
            })
            .collect();
        let main_addresses: Vec<String> = self.main_addresses.iter().map(ToString::to_string).collect();
        json!({
            "phase": phase.name(),
            "phase_for_ms": millis(now.since(since)),
            "up_for_ms": millis(now.since(self.began)),
            "app_version": &*self.main.config.app_version,
            "ready": self.readiness_failures().is_empty(),
            "live": self.liveness_failure().is_none(),
            "addresses": {"main": main_addresses, "internal": self.internal_address.to_string()},
            "in_flight": requests.in_flight(),
            "requests": requests_json(&requests),
            "connections": connections_json(&self.main.tally.connections()),
            "checks": checks,
            "plan": {
                "start_ms": millis(self.plan.start),
                "lame_duck_ms": millis(self.plan.lame_duck),
                "drain_ms": millis(self.plan.drain),
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
